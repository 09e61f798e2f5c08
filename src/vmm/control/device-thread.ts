import type { EventFd } from "../../host/eventfd.ts";
import type { GuestRamAttachment } from "../../host/memory/guest-ram.ts";
import type { MemoryLayout } from "../shared/memory-map.ts";
import type {
  Channel,
  DeviceStatistics,
  DeviceWorkerData,
  FromDeviceThread,
  GuestEvent,
  LogMessage,
  MachineFiles,
  ToDeviceThread,
} from "../shared/messages.ts";
import { fromPlainError } from "../shared/plain-error.ts";
import type { MachinePlan } from "../shared/plan.ts";
import { giveTraceCredit, makeTraceCredit } from "../shared/trace-credit.ts";
import { OutputCredit } from "./output-credit.ts";
import { type Deferred, defer, WorkerLink, withDeadline } from "./worker-link.ts";

export interface DeviceThreadParts {
  readonly data: Omit<DeviceWorkerData, "traceCredit" | "outputCredit">;
  /** Whether {@link onLog} is told of every step of guest and devices, at level `trace`. */
  readonly isTraced: boolean;
  readonly doorbell: EventFd;
  readonly onLog: (message: LogMessage) => void;
  readonly onGuestEvent: (event: GuestEvent) => void;
  /** `droppedBytes` were lost between these bytes and the last ones. */
  readonly onOutput: (channel: Channel, bytes: Uint8Array, droppedBytes: number) => void;
  /** A pty was made; a terminal program can open its path. */
  readonly onPty: (channel: Channel, path: string) => void;
  /** The thread failed outside a call that somebody waits for. */
  readonly onFailure: (error: Error) => void;
}

/** The control thread's handle on the device thread: a command is a message and a ring of the doorbell. */
export class DeviceThread {
  readonly #link: WorkerLink<ToDeviceThread, FromDeviceThread>;
  readonly #parts: DeviceThreadParts;
  readonly #statistics = new Map<number, Deferred<DeviceStatistics>>();
  readonly #traceCredit: Int32Array | undefined;
  readonly #outputCredit = new OutputCredit(() => {
    if (!this.#isGone) this.#parts.doorbell.signal();
  });
  #built: Deferred<MachinePlan> | undefined;
  #dismantled: Deferred<DeviceStatistics> | undefined;
  #nextToken = 0;
  #isGone = false;

  constructor(parts: DeviceThreadParts) {
    this.#parts = parts;
    this.#traceCredit = parts.isTraced ? makeTraceCredit() : undefined;
    this.#link = new WorkerLink(
      "../device/device-worker.js",
      {
        ...parts.data,
        traceCredit: this.#traceCredit,
        outputCredit: this.#outputCredit.words,
      } satisfies DeviceWorkerData,
      (message) => this.#receive(message),
      (error) => this.#fail(error),
    );
    // Whoever waits for a thread that is gone waits in vain.
    this.#link.ended.then(() => {
      this.#isGone = true;
      this.#rejectAll(new Error("the device thread has ended"));
    });
  }

  /** Makes the devices of one power cycle; rejects with SpecError or HostError, and nothing is left then. */
  build(files: MachineFiles, ram: GuestRamAttachment, layout: MemoryLayout): Promise<MachinePlan> {
    this.#built = defer();
    this.send({ kind: "build", files, ram, layout });
    return this.#built.promise;
  }

  /** Takes the devices apart; the vCPUs must have stopped. Answers the counters of the cycle. */
  dismantle(timeoutMs: number): Promise<DeviceStatistics> {
    // Nothing was asked for, or nobody is there: a thread that only now begins to run should not be waited for.
    if (this.#built === undefined || this.#isGone) return Promise.resolve({ accesses: {}, functions: [] });
    this.#built = undefined;
    this.#dismantled = defer();
    this.send({ kind: "dismantle" });
    return withDeadline(this.#dismantled.promise, timeoutMs, `Cannot release the devices within ${timeoutMs} ms`);
  }

  statistics(): Promise<DeviceStatistics> {
    const token = this.#nextToken++;
    const answer = defer<DeviceStatistics>();
    this.#statistics.set(token, answer);
    this.send({ kind: "statistics", token });
    return answer.promise;
  }

  /** Ends the thread. */
  async end(): Promise<void> {
    this.send({ kind: "stop" });
    await this.#link.ended;
  }

  /**
   * Brings the thread to where Node can end it, and blocks until it is there: for a process that exits. Its devices are given back then,
   * and its disks' threads have ended.
   */
  release(): void {
    if (this.#isGone) return;
    this.send({ kind: "stop" });
    this.#link.waitFor("finished");
  }

  send(message: ToDeviceThread): void {
    this.#link.post(message);
    this.#parts.doorbell.signal();
  }

  #receive(message: FromDeviceThread): void {
    switch (message.kind) {
      case "log":
        this.#parts.onLog(message);
        if (this.#traceCredit !== undefined && message.level === "trace") giveTraceCredit(this.#traceCredit);
        return undefined;
      case "built":
        return this.#built?.resolve(message.plan);
      case "dismantled":
        return this.#dismantled?.resolve(message.statistics);
      case "failed":
        return this.#fail(fromPlainError(message.error));
      case "guest":
        return this.#parts.onGuestEvent(message.event);
      case "pty":
        return this.#parts.onPty(message.channel, message.path);
      case "output":
        this.#outputCredit.took(message.channel);
        return this.#parts.onOutput(message.channel, message.bytes, message.droppedBytes);
      case "statistics":
        this.#statistics.get(message.token)?.resolve(message.statistics);
        this.#statistics.delete(message.token);
        return undefined;
      default:
        return message satisfies never;
    }
  }

  #fail(error: Error): void {
    this.#rejectAll(error);
    this.#parts.onFailure(error);
  }

  #rejectAll(error: Error): void {
    for (const deferred of [...this.#statistics.values(), this.#built, this.#dismantled]) deferred?.reject(error);
  }
}
