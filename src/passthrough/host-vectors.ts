import { type Fd, fd } from "../base/units.ts";
import type { DeviceBackend } from "./backend.ts";

const NONE: Fd = fd(-1);

/**
 * The host's vectors of one kind: makes them agree with the eventfds that the guest's vectors have. Pure state machine.
 *
 * Only the vectors that the guest uses are requested from the host. A kernel that can grow
 * the set (6.5 or newer) gets new vectors one by one. Otherwise all are disabled and armed again with twice the
 * capacity. So a driver that takes its vectors one by one causes few gaps.
 */
export class HostVectors {
  readonly #backend: DeviceBackend;
  readonly #kind: "msi" | "msix";
  #armed: Fd[] | undefined; // what the host was told of each place; undefined while the kind is off

  constructor(backend: DeviceBackend, kind: "msi" | "msix") {
    this.#backend = backend;
    this.#kind = kind;
  }

  get isOn(): boolean {
    return this.#armed !== undefined;
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
   * @param wanted Eventfd of each vector, -1 for none.
   * @returns Vectors that were disarmed for a moment: an interrupt may have been lost, so signal them once.
   * @throws HostError; the kind may be off then.
   */
  arm(wanted: readonly Fd[]): readonly number[] {
    const needed = Math.max(1, wanted.findLastIndex((eventFd) => eventFd >= 0) + 1);
    if (this.#armed === undefined) {
      this.#switchOn(wanted, needed);
      return [];
    }
    if (needed > this.#armed.length && !this.#backend.interrupt(this.#kind).canGrow) {
      return this.#armAnew(wanted, needed, this.#armed);
    }
    this.#armChanged(wanted, Math.max(needed, this.#armed.length), this.#armed);
    return [];
  }

  /** Switches the kind off; harmless when it is. */
  disarm(): void {
    if (this.#armed === undefined) return;
    this.#armed = undefined;
    this.#backend.disableInterrupts(this.#kind);
  }

  #switchOn(wanted: readonly Fd[], places: number): void {
    const triggers = Array.from({ length: places }, (_, vector) => wanted[vector] ?? NONE);
    this.#backend.setTrigger(this.#kind, 0, triggers);
    this.#armed = triggers;
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
