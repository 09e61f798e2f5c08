import { availableParallelism } from "node:os";
import type { CpuStart } from "../base/cpu-state.ts";
import type { Fd } from "../base/units.ts";
import { kick } from "../host/thread.ts";
import type { CpuidEntry } from "../kvm/cpuid.ts";
import type { SpinLimits } from "./mailbox.ts";
import type { FromVcpu, LogMessage, ToVcpu, VcpuStop, VcpuWorkerData } from "./messages.ts";
import { fromPlainError, toPlainError } from "./plain-error.ts";
import { createVcpuControls, EXIT_KINDS, type ExitKind, VcpuControl } from "./vcpu-control.ts";
import { type Deferred, defer, WorkerLink, withDeadline } from "./worker-link.ts";

/** Loads of a mailbox before a waiting vCPU sleeps: about 50 µs. */
const SPIN_LIMIT = 2500;

export interface CpuThreadsParts {
  readonly count: number;
  readonly mailboxes: SharedArrayBuffer;
  readonly doorbell: Fd;
  readonly onLog: (message: LogMessage) => void;
  /** A vCPU left its run loop by itself: a triple fault or a failure. */
  readonly onStop: (vcpu: number, stop: VcpuStop) => void;
}

/** What a vCPU thread is given in each power cycle. */
export interface CpuDescription {
  readonly vcpuFd: Fd;
  readonly cpuid: readonly CpuidEntry[];
}

interface CpuThread {
  readonly link: WorkerLink<ToVcpu, FromVcpu>;
  readonly control: VcpuControl;
  stopped: Deferred<void> | undefined;
}

/** Polling wants a core for the device thread beside the vCPU that waits: never with one CPU, for wake-ups only with one to spare. */
function spinLimits(vcpuCount: number): SpinLimits {
  const hostCpus = availableParallelism();
  return { awake: hostCpus > 1 ? SPIN_LIMIT : 0, asleep: vcpuCount < hostCpus ? SPIN_LIMIT : 0 };
}

/** The vCPU threads: started once, run and stopped as often as the guest resets. Lives on the control thread. */
export class CpuThreads {
  readonly #threads: readonly CpuThread[];
  readonly #onStop: (vcpu: number, stop: VcpuStop) => void;

  constructor(parts: CpuThreadsParts) {
    this.#onStop = parts.onStop;
    const controls = createVcpuControls(parts.count);
    const spins = spinLimits(parts.count);
    this.#threads = Array.from({ length: parts.count }, (_, index) => {
      const data: VcpuWorkerData = { index, mailboxes: parts.mailboxes, controls, doorbell: parts.doorbell, spins };
      const link = new WorkerLink<ToVcpu, FromVcpu>(
        "vcpu-worker.js",
        data,
        (message) => {
          if (message.kind === "log") parts.onLog(message);
          else this.#stopped(index, message.reason);
        },
        (error) => this.#stopped(index, { kind: "failed", error: toPlainError(error) }),
      );
      return { link, control: new VcpuControl(controls, index), stopped: undefined };
    });
  }

  /** Starts all vCPUs; the first one at `start`, the others wait for INIT and SIPI. */
  run(vcpus: readonly CpuDescription[], mmapSize: number, start: CpuStart): void {
    this.#threads.forEach((thread, index) => {
      const vcpu = vcpus[index];
      if (vcpu === undefined) return;
      thread.stopped = defer();
      thread.control.setStopping(false);
      thread.link.post({ kind: "run", ...vcpu, mmapSize, ...(index === 0 ? { start } : {}) });
    });
  }

  /**
   * Gets every vCPU out of KVM_RUN and waits until each has left its run loop.
   *
   * @throws Error when one does not leave within `timeoutMs`.
   */
  async stop(timeoutMs: number): Promise<void> {
    this.kickAll();
    const waiting = this.#threads.map((thread) => thread.stopped?.promise);
    await withDeadline(
      Promise.all(waiting),
      timeoutMs,
      `Cannot stop the vCPUs: one did not leave KVM_RUN within ${timeoutMs} ms`,
    );
  }

  /** Asks every vCPU to leave, without waiting: also the last resort when the process exits, since a thread in KVM_RUN would hang it. */
  kickAll(): void {
    for (const { control } of this.#threads) {
      control.setStopping(true);
      if (control.tid !== 0) kick(control.tid);
    }
  }

  /** Ends the threads; they must have been stopped. */
  async end(): Promise<void> {
    for (const { link } of this.#threads) link.post({ kind: "stop" });
    await Promise.all(this.#threads.map(({ link }) => link.ended));
  }

  /** Exits of all vCPUs so far. */
  counts(): Record<ExitKind, number> {
    const sum = { portRead: 0, portWrite: 0, mmioRead: 0, mmioWrite: 0, halt: 0, interrupted: 0, other: 0 };
    for (const { control } of this.#threads) {
      const counts = control.counts();
      for (const kind of EXIT_KINDS) sum[kind] += counts[kind];
    }
    return sum;
  }

  #stopped(index: number, stop: VcpuStop): void {
    const thread = this.#threads[index];
    thread?.stopped?.resolve();
    if (stop.kind !== "asked") this.#onStop(index, stop);
  }
}

/** The error behind a vCPU's failure, for the control thread. */
export const vcpuError = (stop: VcpuStop): Error | undefined =>
  stop.kind === "failed" ? fromPlainError(stop.error) : undefined;
