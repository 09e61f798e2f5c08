import { isMainThread, Worker, workerData } from "node:worker_threads";
import { currentThreadId, kick } from "../../src/host/thread.ts";

/*
 * A thread in KVM_RUN cannot time itself out, so another one kicks it. This module is both: the class for the thread
 * that runs guests, and, when it is started as a worker, the thread that kicks.
 *
 * | word      | writer   | meaning                                                         |
 * | sequence  | runner   | odd while armed; every change wakes the worker; -1 ends it      |
 * | fired     | worker   | 1 once the time was up                                          |
 * | limit     | runner   | milliseconds                                                    |
 */
const SEQUENCE = 0;
const FIRED = 1;
const LIMIT = 2;
const END = -1;
/** Between two kicks: one is enough, unless the guest's exit was just being handled. */
const AGAIN_MS = 50;

interface WatchdogData {
  readonly vcpuWatchdog: true;
  readonly words: Int32Array;
  readonly threadId: number;
}

/** Kicks this thread out of KVM_RUN when a guest takes too long. The thread must have blocked the kick signal. */
export class VcpuWatchdog {
  readonly #words: Int32Array = new Int32Array(new SharedArrayBuffer(12));
  readonly #worker: Worker;

  constructor() {
    const data: WatchdogData = { vcpuWatchdog: true, words: this.#words, threadId: currentThreadId() };
    this.#worker = new Worker(new URL(import.meta.url), { workerData: data });
    this.#worker.unref();
  }

  /** True when the last armed time was up; {@link arm} clears it. */
  get hasFired(): boolean {
    return Atomics.load(this.#words, FIRED) === 1;
  }

  arm(limitMs: number): void {
    Atomics.store(this.#words, FIRED, 0);
    Atomics.store(this.#words, LIMIT, limitMs);
    this.#advance();
  }

  disarm(): void {
    this.#advance();
  }

  /**
   * Ends the worker. The process waits for it: ended from outside while the FFI package loads, the worker would abort
   * the process.
   */
  close(): void {
    this.#worker.ref();
    Atomics.store(this.#words, SEQUENCE, END);
    Atomics.notify(this.#words, SEQUENCE);
  }

  #advance(): void {
    Atomics.add(this.#words, SEQUENCE, 1);
    Atomics.notify(this.#words, SEQUENCE);
  }
}

function watch({ words, threadId }: WatchdogData): void {
  for (;;) {
    const sequence = Atomics.load(words, SEQUENCE);
    if (sequence === END) return;
    if (sequence % 2 === 0) {
      Atomics.wait(words, SEQUENCE, sequence);
      continue;
    }
    let limit = Atomics.load(words, LIMIT);
    while (Atomics.wait(words, SEQUENCE, sequence, limit) === "timed-out") {
      Atomics.store(words, FIRED, 1);
      kick(threadId);
      limit = AGAIN_MS;
    }
  }
}

if (!isMainThread && (workerData as Partial<WatchdogData> | null)?.vcpuWatchdog) {
  watch(workerData as WatchdogData); // Cast: the flag says that the class above made the data
}
