import { SHARE_ENV, type Worker } from "node:worker_threads";
import { HostError } from "../../base/errors.ts";
import { startWorker, workerError } from "../../host/worker.ts";
import { type LoadingWorker, STAGE } from "../shared/messages.ts";
import { THREAD_WORDS, type ThreadProgress, threadProgress } from "../shared/thread-progress.ts";

/** How long an exiting process waits for a thread that loads its code or gives back what it has, in milliseconds. */
const STAGE_TIMEOUT = 2000;
/** It looks so often whether there is progress. */
const STAGE_LOOK = 100;

/**
 * A worker thread with typed messages. The control thread holds one for each.
 *
 * Never call `worker.terminate()`: terminating a thread while it loads koffi aborts the process. Post a stop message
 * and await `ended`.
 */
export class WorkerLink<ToWorker, FromWorker> {
  readonly #worker: Worker;
  readonly #stage = new Int32Array(new SharedArrayBuffer(4 * THREAD_WORDS));
  readonly progress: ThreadProgress = threadProgress(this.#stage);
  /** Resolves when the thread is gone. */
  readonly ended: Promise<void>;

  /**
   * Starts a thread; its code runs some 40 ms later.
   *
   * @param name For messages: `the device thread`.
   * @param entry Compiled entry file, relative to this one: `../vcpu/vcpu-worker.js`.
   * @param onMessage Every message, on the control thread.
   * @param onCrash An exception that ended the thread; a HostError when the host refused it a descriptor.
   * @throws HostError when the host allows no more threads.
   */
  constructor(
    name: string,
    entry: string,
    data: object,
    onMessage: (message: FromWorker) => void,
    onCrash: (error: unknown) => void,
  ) {
    this.#worker = startWorker(name, new URL(entry, import.meta.url), {
      workerData: { ...data, stage: this.#stage } satisfies LoadingWorker,
      env: SHARE_ENV,
    });
    // Cast: the worker's entry file posts nothing else.
    this.#worker.on("message", (message) => onMessage(message as FromWorker));
    this.#worker.on("error", (error) => onCrash(workerError(name, error)));
    this.ended = new Promise((resolve) => this.#worker.once("exit", () => resolve()));
  }

  post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  /**
   * Blocks until the thread is that far: for a process that exits, and so ends its workers from outside.
   *
   * @returns False after two seconds without progress, or more where the kernel has a device to reset.
   */
  waitFor(stage: keyof typeof STAGE): boolean {
    const { mark, allowanceMs } = this.progress;
    let last = mark();
    let since = performance.now();
    for (;;) {
      const reached = Atomics.load(this.#stage, 0);
      if (reached >= STAGE[stage]) return true;
      const current = mark();
      if (current !== last) since = performance.now();
      last = current;
      const left = since + Math.max(STAGE_TIMEOUT, allowanceMs()) - performance.now();
      if (left <= 0) return false;
      Atomics.wait(this.#stage, 0, reached, Math.min(left, STAGE_LOOK));
    }
  }
}

/** A promise and its ends, for a message that will come. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: Error): void;
}

export function defer<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: Error) => void = () => undefined;
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  // A rejection that is not awaited yet must not end the process; a later await still gets it.
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}

/** `promise`, or a rejection with a HostError of `text` after `timeoutMs`. */
export function withDeadline<T>(promise: Promise<T>, timeoutMs: number, text: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new HostError("TSVMM_THREAD_START", text)), timeoutMs);
    promise.then(
      (value) => {
        clearTimeout(timer);
        resolve(value);
      },
      (error: unknown) => {
        clearTimeout(timer);
        reject(error);
      },
    );
  });
}
