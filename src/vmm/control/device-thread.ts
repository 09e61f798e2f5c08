import { HostError } from "../../base/errors.ts";
import type { EventFd } from "../../host/eventfd.ts";
import type {
  Channel,
  DeviceWorkerData,
  FromDeviceThread,
  GuestEvent,
  LogMessage,
  ToDeviceThread,
} from "../shared/messages.ts";
import { fromPlainError } from "../shared/plain-error.ts";
import type { MachinePlan } from "../shared/plan.ts";
import type { BuildParts, TraceSettings } from "../shared/requests.ts";
import type { DeviceSnapshot } from "../shared/snapshot.ts";
import type { DeviceStatistics } from "../shared/statistics.ts";
import type { TraceEvent } from "../shared/trace-event.ts";
import type { DiskSpec } from "../spec/spec.ts";
import { OutputCredit } from "./output-credit.ts";
import { waitWhileItProgresses } from "./patience.ts";
import { PendingRequests } from "./pending-requests.ts";
import { StorageWorkers } from "./storage-workers.ts";
import type { EndingThread } from "./thread-ends.ts";
import { type MachineTrace, type TraceOptions, Traces } from "./traces.ts";
import { WorkerLink } from "./worker-link.ts";

export interface DeviceThreadParts {
  readonly data: Omit<DeviceWorkerData, "outputCredit" | "stopping">;
  /** Each writable one has a storage worker. */
  readonly disks: readonly DiskSpec[];
  readonly doorbell: EventFd;
  readonly onLog: (message: LogMessage) => void;
  readonly onGuestEvent: (event: GuestEvent) => void;
  /** `droppedBytes` were lost between these bytes and the last ones. */
  readonly onOutput: (channel: Channel, bytes: Uint8Array, droppedBytes: number) => void;
  /** A pty was made; a terminal program can open its path. */
  readonly onPty: (channel: Channel, path: string) => void;
  /** An end takes long; `step` is what the thread does. Called every five seconds. */
  readonly onSlowEnd: (seconds: number, step: string | undefined) => void;
  /** The thread failed outside a call that somebody waits for. */
  readonly onFailure: (error: Error) => void;
}

const NAME = "the device thread";
const NO_STATISTICS: DeviceStatistics = { accesses: {}, functions: [] };

/** The control thread's handle on the device thread: a command is a message and a ring of the doorbell. */
export class DeviceThread {
  readonly #parts: DeviceThreadParts;
  /** They do the disks' slow calls for the device thread. */
  readonly #storage: StorageWorkers;
  readonly #requests = new PendingRequests((message) => this.send(message));
  readonly #traces = new Traces((settings) => this.#switchTrace(settings));
  readonly #stopping = new Int32Array(new SharedArrayBuffer(4));
  /** `undefined` until {@link launch}, and when the thread has ended. */
  #link: WorkerLink<ToDeviceThread, FromDeviceThread> | undefined;
  readonly #outputCredit = new OutputCredit(() => {
    if (this.#link !== undefined) this.#parts.doorbell.signal();
  });
  #hasEnded = false;
  /** What it does at the end that may take long: "guest RAM leaves the IOMMU". */
  #step: string | undefined;
  /** Whether devices were asked for that have not been taken apart again. */
  #isBuilt = false;
  #dismantled: Promise<DeviceStatistics> | undefined;

  constructor(parts: DeviceThreadParts) {
    this.#parts = parts;
    this.#storage = new StorageWorkers(parts.disks);
  }

  /**
   * Makes the thread, and those of its disks, if they are not there.
   *
   * @throws HostError when the host allows no more threads.
   */
  launch(): void {
    if (this.#link !== undefined) return;
    this.#link = new WorkerLink<ToDeviceThread, FromDeviceThread>(
      NAME,
      "../device/device-worker.js",
      {
        ...this.#parts.data,
        stopping: this.#stopping,
        outputCredit: this.#outputCredit.words,
      } satisfies DeviceWorkerData,
      (message) => this.#receive(message),
      (error) => this.#crashed(error instanceof Error ? error : new Error(String(error))),
    );
    this.#link.ended.then(() => {
      this.#link = undefined;
      this.#hasEnded = true;
      this.#requests.rejectAll(new HostError("TSVMM_MACHINE_OFF", `Cannot ask ${NAME}: it has ended`));
    });
    this.#storage.start();
    // Before the first build, so that a trace that listens from the start has all of it.
    const { settings } = this.#traces;
    // The thread's end is told elsewhere.
    if (settings !== undefined) this.#requests.ask("trace", settings).catch(() => undefined);
  }

  /**
   * Tells `listener` of every step of guest and devices, over resets. Before {@link launch} it listens from the first
   * step on.
   *
   * @throws HostError when the thread has ended.
   */
  trace(listener: (event: TraceEvent) => void, options?: TraceOptions): Promise<MachineTrace> {
    return this.#traces.listen(listener, options);
  }

  /**
   * The machine is stopping: from now on the thread waits for no vfio-user server, not even within a build or an
   * access.
   */
  hurry(): void {
    Atomics.store(this.#stopping, 0, 1);
  }

  /** Makes the devices of one power cycle; rejects with SpecError or HostError, and nothing is left then. */
  build(parts: BuildParts): Promise<MachinePlan> {
    this.#isBuilt = true;
    const building = this.#requests.ask("build", { ...parts, storage: this.#storage.ports });
    const built = Promise.all([building, this.#storage.ready()]).then(([plan]) => plan);
    // The caller does other things before it awaits this, which may fail too.
    built.catch(() => undefined);
    return built;
  }

  /** Says that the guest starts; rejects with SpecError or HostError when a file for its output cannot be emptied. */
  async begin(): Promise<void> {
    await this.#requests.ask("begin", undefined);
  }

  /**
   * Takes the devices apart; the vCPUs must have stopped. A further call after the deadline waits for the same end.
   *
   * @returns The counters of the cycle.
   * @throws HostError after `timeoutMs` without progress: the thread still uses RAM, the VM and the doorbell.
   */
  async dismantle(timeoutMs: number): Promise<DeviceStatistics> {
    // No build was requested, or the thread has ended: nothing to dismantle.
    if (this.#link === undefined) return NO_STATISTICS;
    if (this.#isBuilt) {
      this.#isBuilt = false;
      this.#step = undefined;
      this.#dismantled = this.#requests.ask("dismantle", undefined);
    }
    const going = this.#dismantled;
    if (going === undefined) return NO_STATISTICS;
    const last = await waitWhileItProgresses(going, {
      progress: this.#link.progress,
      stillMs: timeoutMs,
      onWait: (seconds) => this.#parts.onSlowEnd(seconds, this.#step),
      error: () => {
        const since = this.#step === undefined ? `for ${timeoutMs} ms` : `while ${this.#step}`;
        return new HostError("TSVMM_THREAD_STUCK", `Cannot release the devices: no progress ${since}`);
      },
    });
    this.#dismantled = undefined;
    return last;
  }

  /** @throws HostError while the machine is off. */
  async snapshot(): Promise<DeviceSnapshot> {
    if (this.#link === undefined) throw new HostError("TSVMM_MACHINE_OFF", "Cannot look into the machine: it is off");
    return this.#requests.ask("snapshot", undefined);
  }

  async statistics(): Promise<DeviceStatistics> {
    return this.#link === undefined ? NO_STATISTICS : this.#requests.ask("statistics", undefined);
  }

  /**
   * Asks the thread to end, then those of its disks. Of the latter one may stay inside a call: it uses no guest RAM.
   */
  end(): EndingThread {
    this.send({ kind: "stop" });
    const ended = this.#link?.ended ?? Promise.resolve();
    return { name: NAME, ended: ended.then(() => this.#storage.end()) };
  }

  /** Resolves when it and all threads of its disks have ended, after {@link end}; that may be never. */
  async gone(): Promise<void> {
    await this.#link?.ended;
    await this.#storage.gone();
  }

  /**
   * Brings the thread to where Node can end it, and blocks until it is there: for a process that exits. Its devices are
   * given back then, and its disks' threads have ended.
   *
   * @returns False when it did not come there.
   */
  release(): boolean {
    this.hurry();
    this.send({ kind: "stop" });
    return (this.#link?.waitFor("finished") ?? true) && this.#storage.release();
  }

  /** Does nothing when the thread is not there. */
  send(message: ToDeviceThread): void {
    if (this.#link === undefined) return;
    this.#link.post(message);
    this.#parts.doorbell.signal();
  }

  #receive(message: FromDeviceThread): void {
    switch (message.kind) {
      case "log":
        return this.#parts.onLog(message);
      case "trace":
        return this.#traces.receive(message.event);
      case "reply":
      case "refusal":
        return this.#requests.take(message);
      case "failed": // it goes on, and answers what it was asked
        return this.#parts.onFailure(fromPlainError(message.error));
      case "step":
        this.#step = message.text;
        return;
      case "guest":
        return this.#parts.onGuestEvent(message.event);
      case "pty":
        return this.#parts.onPty(message.channel, message.path);
      case "output":
        this.#outputCredit.took(message.channel);
        return this.#parts.onOutput(message.channel, message.bytes, message.droppedBytes);
      default:
        return message satisfies never;
    }
  }

  async #switchTrace(settings: TraceSettings | undefined): Promise<void> {
    if (this.#hasEnded) throw new HostError("TSVMM_MACHINE_OFF", "Cannot trace the machine: it has ended");
    if (this.#link !== undefined) await this.#requests.ask("trace", settings);
  }

  #crashed(error: Error): void {
    this.#requests.rejectAll(error);
    this.#parts.onFailure(error);
  }
}
