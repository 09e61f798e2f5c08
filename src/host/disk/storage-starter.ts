import { SHARE_ENV } from "node:worker_threads";
import { HostError } from "../../base/errors.ts";
import { allOrNothing } from "../../base/undo-stack.ts";
import { EventFd } from "../eventfd.ts";
import { startWorker, workerError } from "../worker.ts";
import { STORAGE_STAGE, type StoragePort, StorageRing } from "./storage-ring.ts";

/**
 * A storage worker, seen by the thread that starts it. That thread runs an event loop, so it alone gets the event of a
 * worker that could not start or has died. It tells the device thread through the ring.
 */
export class StorageWorker {
  /** For the device thread. */
  readonly port: StoragePort;
  /** Resolves when the thread is gone, also when it never came. */
  readonly ended: Promise<void>;
  readonly #name: string;
  readonly #ring: StorageRing = new StorageRing();
  readonly #completion: EventFd;
  readonly #serving: Promise<void>;

  /**
   * Starts the thread; its code runs some 40 ms later.
   *
   * @param name For messages: `the storage worker of disk.img`.
   * @param entry Its compiled file; tests have others.
   * @throws HostError when the host allows no more threads or descriptors.
   */
  constructor(name: string, entry: URL = new URL("./storage-worker.js", import.meta.url)) {
    this.#name = name;
    const { completion, port, worker } = allOrNothing((undo) => {
      const completion = undo.own(EventFd.create());
      const port = { ring: this.#ring.memory, completion: completion.fd };
      return { completion, port, worker: startWorker(name, entry, { workerData: port, env: SHARE_ENV }) };
    });
    this.#completion = completion;
    this.port = port;
    this.#serving = new Promise((resolve, reject) => {
      worker.once("message", () => resolve());
      worker.on("error", (error) => reject(workerError(name, error)));
    });
    this.#serving.catch(() => undefined); // ready() rejects with it later
    this.ended = new Promise((resolve) => {
      worker.once("exit", () => {
        // A thread that could not start or died has not said so itself.
        this.#ring.enter("ended");
        this.#completion.signal();
        resolve();
      });
    });
  }

  /**
   * Waits until the worker takes jobs.
   *
   * @throws HostError when it cannot start, or is not there after `timeoutMs`.
   */
  async ready(timeoutMs: number): Promise<void> {
    if (this.#ring.stage === STORAGE_STAGE.serving) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        // Where this thread was busy meanwhile, the worker's message is still to be looked at.
        if (this.#ring.stage !== STORAGE_STAGE.loading) return;
        reject(
          new HostError(
            "TSVMM_THREAD_START",
            `Cannot start ${this.#name}: it is not ready after ${timeoutMs / 1000} s`,
          ),
        );
      }, timeoutMs);
    });
    try {
      await Promise.race([this.#serving, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whether it has jobs that are not done: their calls may take as long as the host's storage does. */
  get isBusy(): boolean {
    return this.#ring.peek() !== undefined;
  }

  /** Asks the worker to end when it has done its jobs. Who watches `port.completion` must have closed the watch. */
  stop(): void {
    this.#ring.stop();
    this.ended.then(() => this.#completion.close());
  }

  /**
   * Blocks until the worker has ended: for a process that exits, since Node would end a thread in the middle of native
   * code.
   *
   * @returns False after `timeoutMs`.
   */
  waitForEnd(timeoutMs: number): boolean {
    this.#ring.stop();
    return this.#ring.waitForEnd(timeoutMs);
  }
}
