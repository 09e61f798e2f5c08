import type { Report } from "../base/backends.ts";

/** A function whose device memory the guest may reach by memory slots. */
export interface SlottedFunction {
  readonly name: string;
  /** True while the guest reaches any of its memory without an exit. */
  readonly hasSlots: boolean;
  /**
   * Whether its memory can answer. False once it was pulled or its link is down. False too if it decodes nothing
   * although the guest enabled decode: it was reset without the guest.
   */
  isReachable(): boolean;
  /** Takes the slots away until the guest places the BARs anew: its accesses exit from now on. */
  withdrawSlots(): void;
}

/**
 * What to do when KVM cannot reach the memory behind a slot (EFAULT): the device was pulled, reset or put to sleep
 * without the guest. KVM does not say whose memory it was. Slots of functions that no longer answer go; if all answer,
 * all slots do. The access is then made again and meets the bus. A device that is gone reads all ones there; a device
 * that is there works on, only slower.
 */
export class MemoryFaults {
  readonly #functions: readonly SlottedFunction[];
  readonly #report: Report;
  #withdrawals = 0;

  constructor(functions: readonly SlottedFunction[], report: Report) {
    this.#functions = functions;
    this.#report = report;
  }

  /**
   * Withdraws what may be behind the fault.
   *
   * @returns Number of withdrawals so far. A vCPU retries only if the number changed since its previous fault. This
   *   bounds the retries when several vCPUs fault on the same memory.
   */
  handle(): number {
    const reachable = this.#functions.filter((one) => one.hasSlots);
    const gone = reachable.filter((one) => !one.isReachable());
    const suspects = gone.length > 0 ? gone : reachable;
    for (const suspect of suspects) {
      suspect.withdrawSlots();
      const state = gone.length > 0 ? "does not answer any more" : "may have stopped answering";
      this.#report("warn", `${suspect.name}: its memory ${state}; accesses to it go through the bus from now on`);
    }
    if (suspects.length > 0) this.#withdrawals++;
    return this.#withdrawals;
  }
}
