import { SHARE_ENV, Worker } from "node:worker_threads";
import { type LoadingWorker, STAGE } from "../shared/messages.ts";

/** How long an exiting process waits for a thread that loads its code or gives back what it has, in milliseconds. */
const STAGE_TIMEOUT = 2000;

/**
 * A worker thread with typed messages. The control thread holds one for each.
 *
 * Nobody ends it from outside: it is asked to, and does. Node would stop its code in the middle of loading the FFI package, whose native
 * part answers that by aborting the whole process.
 */
export class WorkerLink<ToWorker, FromWorker> {
  readonly #worker: Worker;
  readonly #stage = new Int32Array(new SharedArrayBuffer(4));
  /** Resolves when the thread is gone. */
  readonly ended: Promise<void>;

  /**
   * Starts a thread; its code runs some 40 ms later.
   *
   * @param entry Compiled entry file, relative to this one: `../vcpu/vcpu-worker.js`.
   * @param onMessage Every message, on the control thread.
   * @param onCrash An exception that ended the thread.
   */
  constructor(entry: string, data: object, onMessage: (message: FromWorker) => void, onCrash: (error: Error) => void) {
    this.#worker = new Worker(new URL(entry, import.meta.url), {
      workerData: { ...data, stage: this.#stage } satisfies LoadingWorker,
      env: SHARE_ENV,
    });
    // Cast: the worker's entry file posts nothing else.
    this.#worker.on("message", (message) => onMessage(message as FromWorker));
    this.#worker.on("error", onCrash);
    this.ended = new Promise((resolve) => this.#worker.once("exit", () => resolve()));
  }

  post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  /** Blocks until the thread is that far, at most two seconds: for a process that exits, and so ends its workers from outside. */
  waitFor(stage: keyof typeof STAGE): void {
    const deadline = performance.now() + STAGE_TIMEOUT;
    for (let left = STAGE_TIMEOUT; left > 0; left = deadline - performance.now()) {
      const reached = Atomics.load(this.#stage, 0);
      if (reached >= STAGE[stage]) return;
      Atomics.wait(this.#stage, 0, reached, left);
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
  // A rejection that nobody awaits yet must not end the process: whoever awaits it later still gets it.
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}

/** `promise`, or a rejection with `text` after `timeoutMs`. */
export function withDeadline<T>(promise: Promise<T>, timeoutMs: number, text: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(text)), timeoutMs);
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
