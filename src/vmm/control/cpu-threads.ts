import { availableParallelism } from "node:os";
import type { CpuStart } from "../../base/cpu-state.ts";
import type { Fd } from "../../base/units.ts";
import { kick } from "../../host/thread.ts";
import type { CpuidEntry } from "../../kvm/cpuid.ts";
import type { SpinLimits } from "../shared/mailbox.ts";
import type { FromVcpu, LogMessage, ToVcpu, VcpuStop, VcpuWorkerData } from "../shared/messages.ts";
import { fromPlainError, toPlainError } from "../shared/plain-error.ts";
import { createVcpuControls, EXIT_KINDS, type ExitKind, VcpuControl } from "../shared/vcpu-control.ts";
import type { EndingThread } from "./thread-ends.ts";
import { type Deferred, defer, WorkerLink, withDeadline } from "./worker-link.ts";

/**
 * Delay in milliseconds before the threads of the application processors are made. Linux sends SIPI about ten times
 * later. A guest that ends earlier never pays for them.
 */
const HEAD_START = 10;

/** Loads of a mailbox before a waiting vCPU sleeps: about 50 µs. */
const SPIN_LIMIT = 2500;

export interface CpuThreadsParts {
  readonly count: number;
  readonly mailboxes: SharedArrayBuffer;
  readonly doorbell: Fd;
  readonly onLog: (message: Extract<FromVcpu, LogMessage>) => void;
  /** A vCPU left its run loop by itself: a triple fault or a failure. */
  readonly onStop: (vcpu: number, stop: VcpuStop) => void;
}

/** What a vCPU thread is given in each power cycle. */
export interface CpuDescription {
  readonly vcpuFd: Fd;
  readonly cpuid: readonly CpuidEntry[];
  /** The host's CPUs that its thread may run on; any when absent. */
  readonly hostCpus?: readonly number[];
}

interface CpuThread {
  readonly index: number;
  readonly control: VcpuControl;
  /** `undefined` until the vCPU is to run. */
  link: WorkerLink<ToVcpu, FromVcpu> | undefined;
  /** Set while it has been told to run and not yet said that it stopped. */
  stopped: Deferred<void> | undefined;
}

/** What all vCPUs of a power cycle are told. */
interface CpuRun {
  readonly vcpus: readonly CpuDescription[];
  readonly mmapSize: number;
  readonly start: CpuStart;
}

/**
 * Polling wants a core for the device thread beside the vCPU that waits: never with one CPU, for wake-ups only with one
 * to spare.
 */
function spinLimits(vcpuCount: number): SpinLimits {
  const hostCpus = availableParallelism();
  return { awake: hostCpus > 1 ? SPIN_LIMIT : 0, asleep: vcpuCount < hostCpus ? SPIN_LIMIT : 0 };
}

/**
 * The vCPU threads: run and stopped as often as the guest resets. Lives on the control thread.
 *
 * The boot processor's thread is made by {@link launch}. A thread takes 40 ms of CPU time until its code runs. The
 * application processors have nothing to do until the guest's kernel sends INIT and SIPI. Their threads are made when
 * the boot processor has run for a moment. A SIPI that comes before its thread waits in KVM.
 */
export class CpuThreads {
  readonly #parts: CpuThreadsParts;
  readonly #controls: SharedArrayBuffer;
  readonly #threads: readonly CpuThread[];
  #next: NodeJS.Timeout | undefined;

  constructor(parts: CpuThreadsParts) {
    this.#parts = parts;
    const controls = createVcpuControls(parts.count);
    this.#controls = controls;
    this.#threads = Array.from({ length: parts.count }, (_, index) => {
      return { index, control: new VcpuControl(controls, index), link: undefined, stopped: undefined };
    });
  }

  /**
   * Makes the boot processor's thread, if it is not there.
   *
   * @throws HostError when the host allows no more threads.
   */
  launch(): void {
    const [boot] = this.#threads;
    if (boot !== undefined) boot.link ??= this.#makeThread(0);
  }

  #makeThread(index: number): WorkerLink<ToVcpu, FromVcpu> {
    const { mailboxes, doorbell, count, onLog } = this.#parts;
    const data: VcpuWorkerData = { index, mailboxes, controls: this.#controls, doorbell, spins: spinLimits(count) };
    return new WorkerLink<ToVcpu, FromVcpu>(
      threadName(index),
      "../vcpu/vcpu-worker.js",
      data,
      (message) => {
        if (message.kind === "log") onLog(message);
        else this.#stopped(index, message.reason);
      },
      (error) => this.#stopped(index, { kind: "failed", error: toPlainError(error) }),
    );
  }

  /** Starts all vCPUs; the first one at `start` and now, the others soon, to wait for INIT and SIPI. */
  run(vcpus: readonly CpuDescription[], mmapSize: number, start: CpuStart): void {
    this.#runFrom(0, { vcpus, mmapSize, start });
  }

  #runFrom(index: number, run: CpuRun): void {
    const thread = this.#threads[index];
    const vcpu = run.vcpus[index];
    if (thread === undefined || vcpu === undefined) return;
    try {
      thread.link ??= this.#makeThread(index);
    } catch (error) {
      this.#parts.onStop(index, { kind: "failed", error: toPlainError(error) });
      return;
    }
    thread.stopped = defer();
    thread.control.setStopping(false);
    thread.link.post({ kind: "run", ...vcpu, mmapSize: run.mmapSize, ...(index === 0 ? { start: run.start } : {}) });
    if (index + 1 >= run.vcpus.length) return;
    // One a turn of the event loop, which has others to serve; threads that are there need no head start.
    const isThere = this.#threads[index + 1]?.link !== undefined;
    this.#next = setTimeout(() => this.#runFrom(index + 1, run), index === 0 && !isThere ? HEAD_START : 0);
  }

  /**
   * Gets every vCPU out of KVM_RUN and waits until each has left its run loop.
   *
   * @throws Error when one does not leave within `timeoutMs`.
   */
  async stop(timeoutMs: number): Promise<void> {
    clearTimeout(this.#next);
    this.#kickAll();
    const waiting = this.#threads.map((thread) => stopThread(thread));
    await withDeadline(
      Promise.all(waiting),
      timeoutMs,
      `Cannot stop the vCPUs: one did not leave KVM_RUN within ${timeoutMs} ms`,
    );
  }

  /** Brings the threads to where Node can end them and waits for it: one in KVM_RUN would hang a process that exits. */
  release(): void {
    this.#kickAll();
    for (const { link } of this.#threads) link?.waitFor("loaded");
  }

  /** Asks every vCPU to leave, without waiting. */
  #kickAll(): void {
    for (const { control } of this.#threads) {
      control.setStopping(true);
      if (control.tid !== 0) kick(control.tid);
    }
  }

  /** Asks the threads to end: each does as soon as it has left its run loop. */
  end(): readonly EndingThread[] {
    return this.#threads.flatMap(({ index, link }) => {
      if (link === undefined) return [];
      link.post({ kind: "stop" });
      return [{ name: threadName(index), ended: link.ended }];
    });
  }

  /** Exits of each vCPU so far, by number. */
  countsByVcpu(): readonly Record<ExitKind, number>[] {
    return this.#threads.map(({ control }) => control.counts());
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
    if (stop.kind !== "asked") this.#parts.onStop(index, stop);
  }
}

const threadName = (index: number): string => `the thread of vCPU ${index}`;

/**
 * Waits until a vCPU that was asked to stop has left its run loop. One whose code does not run yet sees it before it
 * enters KVM_RUN.
 */
async function stopThread(thread: CpuThread): Promise<void> {
  await thread.stopped?.promise;
  thread.stopped = undefined;
}

/** The error behind a vCPU's failure, for the control thread. */
export const vcpuError = (stop: VcpuStop): Error | undefined =>
  stop.kind === "failed" ? fromPlainError(stop.error) : undefined;
