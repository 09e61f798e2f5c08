import type { Report } from "../base/backends.ts";
import { type Fd, fd } from "../base/units.ts";
import { type DeviceBackend, FewerVectors } from "./backend.ts";

const NONE: Fd = fd(-1);

/**
 * The host's vectors of one kind: makes them agree with the eventfds that the guest's vectors have. Pure state machine.
 *
 * Of MSI the host is asked for as many vectors as the guest enabled. The device's own Multiple Message Enable follows
 * from that, and the device folds its messages into so many. Where the host has fewer, it is asked again for as many as
 * it has.
 *
 * Of MSI-X only the vectors that the guest uses are requested from the host. A kernel that
 * can grow the set (6.5 or newer) gets new vectors one by one. Otherwise all are disabled and armed again with twice
 * the capacity. So a driver that takes its vectors one by one causes few gaps.
 */
export class HostVectors {
  readonly #backend: DeviceBackend;
  readonly #kind: "msi" | "msix";
  readonly #report: Report;
  #armed: Fd[] | undefined; // what the host was told of each place; undefined while the kind is off
  /** Places that were wanted when the host had fewer: it is not asked for as many again while the kind is on. */
  #refused: number | undefined;

  constructor(backend: DeviceBackend, kind: "msi" | "msix", report: Report = () => undefined) {
    this.#backend = backend;
    this.#kind = kind;
    this.#report = report;
  }

  get isOn(): boolean {
    return this.#armed !== undefined;
  }

  /** Vectors that the host was asked for, with an eventfd or without. */
  get placeCount(): number {
    return this.#armed?.length ?? 0;
  }

  /** Which vectors have an eventfd. */
  get armedVectors(): readonly number[] {
    return (this.#armed ?? []).flatMap((eventFd, vector) => (eventFd >= 0 ? [vector] : []));
  }

  /** Vectors with an eventfd. */
  get armedCount(): number {
    return this.#armed?.filter((eventFd) => eventFd >= 0).length ?? 0;
  }

  /**
   * Switches the kind on if need be and arms what is wanted.
   *
   * With no vector wanted the kind is on all the same, with one empty place. Some devices look at their own enable bit,
   * which a guest sets long before it uses the first vector.
   *
   * @param wanted Eventfd of each vector, -1 for none. Of MSI, one for each message that the guest enabled.
   * @returns Vectors that were disarmed for a moment: an interrupt may have been lost, so signal them once.
   * @throws HostError; the kind may be off then.
   */
  arm(wanted: readonly Fd[]): readonly number[] {
    const isMsi = this.#kind === "msi";
    const needed = Math.max(1, isMsi ? wanted.length : wanted.findLastIndex((eventFd) => eventFd >= 0) + 1);
    if (this.#armed === undefined) {
      this.#switchOn(wanted, needed);
      return [];
    }
    if (isMsi) {
      if (needed !== this.#armed.length && needed !== this.#refused) return this.#switchAgain(wanted, needed);
      this.#armChanged(wanted, this.#armed.length, this.#armed);
      return [];
    }
    if (needed > this.#armed.length && !this.#backend.interrupt(this.#kind).canGrow) {
      return this.#armAnew(wanted, needed, this.#armed);
    }
    this.#armChanged(wanted, Math.max(needed, this.#armed.length), this.#armed);
    return [];
  }

  /**
   * The same with all vectors off and on again, for a device that has forgotten that they are on. The kind is on.
   *
   * @throws HostError; the kind may be off then.
   */
  armAgain(wanted: readonly Fd[]): readonly number[] {
    return this.#switchAgain(wanted, Math.max(1, this.placeCount));
  }

  /** Switches the kind off; harmless when it is. */
  disarm(): void {
    this.#refused = undefined;
    if (this.#armed === undefined) return;
    this.#armed = undefined;
    this.#backend.disableInterrupts(this.#kind);
  }

  #switchOn(wanted: readonly Fd[], places: number): void {
    const triggers = Array.from({ length: places }, (_, vector) => wanted[vector] ?? NONE);
    try {
      this.#backend.setTrigger(this.#kind, 0, triggers);
      this.#armed = triggers;
    } catch (error) {
      const granted = error instanceof FewerVectors ? error.granted : 0;
      if (this.#kind !== "msi" || granted < 1 || granted >= places) throw error;
      // A device sends powers of two.
      const fewer = 2 ** Math.floor(Math.log2(granted));
      this.#switchOn(wanted, fewer);
      this.#refused = places;
      this.#report(
        "warn",
        `${this.#backend.name} gets ${fewer} of the ${places} MSI messages enabled: the host has no more`,
      );
    }
  }

  /** @returns Vectors that were armed before and are now. */
  #switchAgain(wanted: readonly Fd[], places: number): readonly number[] {
    const before = this.#armed ?? [];
    this.disarm();
    this.#switchOn(wanted, places);
    return this.armedVectors.filter((vector) => before[vector] === wanted[vector]);
  }

  #armAnew(wanted: readonly Fd[], needed: number, before: readonly Fd[]): readonly number[] {
    this.disarm();
    const roomy = Math.min(this.#backend.interrupt(this.#kind).count, Math.max(needed, 2 * before.length));
    try {
      this.#switchOn(wanted, roomy);
    } catch (error) {
      if (roomy === needed) throw error;
      this.#switchOn(wanted, needed); // the host is short of vectors: then without reserve
    }
    return before.flatMap((eventFd, vector) => (eventFd >= 0 && wanted[vector] === eventFd ? [vector] : []));
  }

  /** Tells the host of the places that differ, a run of neighbours at a time. */
  #armChanged(wanted: readonly Fd[], places: number, armed: Fd[]): void {
    for (let start = 0; start < places; start++) {
      const run: Fd[] = [];
      for (let vector = start; vector < places; vector++) {
        const eventFd = wanted[vector] ?? NONE;
        if (eventFd === (armed[vector] ?? NONE)) break;
        run.push(eventFd);
      }
      if (run.length === 0) continue;
      this.#backend.setTrigger(this.#kind, start, run);
      while (armed.length < start) armed.push(NONE);
      armed.splice(start, run.length, ...run);
      start += run.length;
    }
  }
}
