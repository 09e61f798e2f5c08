import type { Report } from "../base/backends.ts";
import { vcpuError } from "./control/cpu-threads.ts";
import { Power, type PowerParts } from "./control/power.ts";
import { defer } from "./control/worker-link.ts";
import { exitOf, failure, type MachineExit, silentTripleFault, withMore } from "./machine-exit.ts";
import type { GuestEvent, VcpuStop } from "./shared/messages.ts";

/** What a life needs, and whom it tells how it goes. */
export interface LifeParts extends Omit<PowerParts, "onGuestEvent" | "onFailure" | "onStop"> {
  /** How long devices without progress may take, then all threads, in milliseconds. */
  readonly endTimeoutMs: number;
  /** Takes every line of the end. */
  readonly tell: Report;
  /** The guest was reset and starts anew. */
  readonly onReset: () => void;
  /**
   * @param isReleased Whether everything was given back; otherwise `onLate` follows when it was after all, or never.
   */
  readonly onEnd: (exit: MachineExit, isReleased: boolean) => void;
  readonly onLate: () => void;
}

/**
 * When a machine starts, resets and ends. These happen one after another. Of several reasons to end, the first one
 * wins. Control thread.
 */
export class MachineLife {
  readonly power: Power;
  /** Resolves when everything is stopped and released; never rejects. */
  readonly exited: Promise<MachineExit>;
  readonly #parts: LifeParts;
  readonly #exit = defer<MachineExit>();
  /** Set once the machine is on its way out: the first reason wins. */
  #ending: MachineExit | undefined;
  #work: Promise<void> = Promise.resolve();
  #resets = 0;
  #isResetting = false;

  /** @throws SyscallError */
  constructor(parts: LifeParts) {
    this.#parts = parts;
    this.exited = this.#exit.promise;
    this.power = new Power({
      ...parts,
      onGuestEvent: (event) => this.#guestEvent(event),
      onFailure: (error) => this.#fail(error),
      onStop: (vcpu, stop) => this.#vcpuStopped(vcpu, stop),
    });
  }

  get resets(): number {
    return this.#resets;
  }

  /**
   * Starts the first power cycle.
   *
   * @throws SpecError, HostError, the reason of `signal` when that was aborted; nothing is left behind then.
   */
  start(signal: AbortSignal | undefined): Promise<void> {
    return this.#begin(() => this.#powerOn(), signal);
  }

  /** Makes everything up to the first instruction. @throws as {@link start} */
  assemble(signal: AbortSignal | undefined): Promise<void> {
    return this.#begin(async () => void (await this.power.assemble()), signal);
  }

  /** A start, or what is done of one. Takes apart what a failed one has left, then passes its error on. */
  async #begin(step: () => Promise<void>, signal: AbortSignal | undefined): Promise<void> {
    const abort = (): void => this.end({ status: 0, reason: "stopped", text: "stopped while it started" });
    signal?.addEventListener("abort", abort);
    try {
      signal?.throwIfAborted();
      await this.#serialized(step);
      signal?.throwIfAborted(); // it was aborted too late to fail
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error(String(thrown));
      this.#fail(error);
      await this.exited;
      signal?.throwIfAborted(); // whatever came of that on the way
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  async #powerOn(): Promise<void> {
    await this.power.on(() => this.#ending !== undefined);
  }

  #guestEvent(event: GuestEvent): void {
    if ("device" in event) return this.power.deviceEvent(event);
    switch (event.kind) {
      case "powerOff":
      case "debugExit":
      case "quit":
      case "outputClosed":
        return this.end(exitOf(event));
      case "reset":
        return this.#reset();
      default:
        return event satisfies never;
    }
  }

  #reset(): void {
    const { spec, report, endTimeoutMs, onReset } = this.#parts;
    if (!spec.allowReboot) return this.end({ status: 0, reason: "reset", text: "the guest reset itself" });
    // A guest tries several ways one after another until it is gone: what comes while a reset is under way belongs to
    // it.
    if (this.#isResetting) return;
    this.#isResetting = true;
    this.#serialized(async () => {
      if (this.#ending !== undefined) return;
      await this.power.off(endTimeoutMs);
      this.#resets++;
      report("info", "the guest resets");
      onReset();
      await this.#powerOn();
      this.#isResetting = false;
    }).catch((error: unknown) => this.#fail(error instanceof Error ? error : new Error(String(error))));
  }

  #vcpuStopped(vcpu: number, stop: VcpuStop): void {
    const error = vcpuError(stop);
    if (error !== undefined) return this.#fail(error);
    const { spec, report } = this.#parts;
    const counts = this.power.cpus.counts();
    const hasTouchedDevices = counts.portRead + counts.portWrite + counts.mmioRead + counts.mmioWrite > 0;
    if (!hasTouchedDevices) return this.#fail(silentTripleFault(spec.kernel));
    report("warn", "triple fault: the guest resets", { vcpu });
    this.#reset();
  }

  #fail(error: Error): void {
    this.end(failure(error));
  }

  /** The way out, taken once. */
  end(exit: MachineExit): void {
    if (this.#ending !== undefined) return;
    this.#ending = exit;
    this.power.devices.hurry();
    this.#serialized(async () => {
      const { endTimeoutMs, tell, onEnd, onLate } = this.#parts;
      const { failed, kept } = await this.power.end(endTimeoutMs, tell, onLate);
      let final = failed === undefined ? exit : failure(failed);
      // What it ended by comes first; a deadline that passed on the way says less than what stays.
      if (kept !== undefined) final = exit.error === undefined ? failure(kept) : withMore(exit, kept.message);
      this.#exit.resolve(final);
      onEnd(final, kept === undefined);
    });
  }

  #serialized(step: () => Promise<void>): Promise<void> {
    const result = this.#work.then(step);
    this.#work = result.catch(() => undefined);
    return result;
  }
}
