import { Worker } from "node:worker_threads";
import type { BlockStatus, Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import type { FdWatch, FdWatcher } from "../../base/signals.ts";
import { ERRNO, errnoName } from "../errors.ts";
import { EventFd } from "../eventfd.ts";
import type { StorageTarget } from "./storage-jobs.ts";
import { type StorageJob, StorageRing } from "./storage-ring.ts";
import type { StorageWorkerData } from "./storage-worker.ts";

type Done = (status: BlockStatus) => void;

/**
 * The device thread's side of a storage worker: calls that may take long are handed over, results come back through the watcher.
 *
 * The worker starts at the first job. It holds nothing but the target's descriptor number, so the descriptor must stay open until
 * {@link close} has answered true.
 */
export class StorageThread {
  readonly #name: string;
  readonly #target: StorageTarget;
  readonly #watcher: FdWatcher;
  readonly #report: Report;
  readonly #ring: StorageRing = new StorageRing();
  readonly #waiting: { readonly job: StorageJob; readonly done: Done }[] = []; // found the ring full
  readonly #submitted: Done[] = []; // in the ring's order
  #completion: EventFd | undefined;
  #watch: FdWatch | undefined;
  readonly #reported: Set<string> = new Set();
  #isClosed = false;
  #hasFailed = false; // the worker ended by an exception

  constructor(name: string, target: StorageTarget, watcher: FdWatcher, report: Report) {
    this.#name = name;
    this.#target = target;
    this.#watcher = watcher;
    this.#report = report;
  }

  /** Hands a job over; `done` is called later, on this thread. Jobs are done in order. After {@link close} it fails at once. */
  submit(job: StorageJob, done: Done): void {
    if (this.#isClosed || this.#hasFailed) {
      done("ioError");
      return;
    }
    if (this.#completion === undefined && !this.#start()) {
      done("ioError");
      return;
    }
    if (this.#waiting.length === 0 && this.#ring.submit(job)) this.#submitted.push(done);
    else this.#waiting.push({ job, done });
  }

  /**
   * Lets the worker finish what it has, delivers the results, and stops it. Blocks this thread meanwhile; calling it twice is harmless.
   *
   * @returns False when the worker is still inside a call after `timeoutMs`: what was not finished has failed, and the target's
   *   descriptor must be left open, because the worker uses its number.
   */
  close(timeoutMs: number): boolean {
    if (this.#isClosed) return true;
    this.#isClosed = true;
    this.#watch?.close();
    if (this.#completion === undefined) return true; // never started
    if (this.#hasFailed) {
      this.#completion.close();
      return true;
    }
    this.#waiting.push({ job: { kind: "stop" }, done: () => undefined });
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      this.#reap();
      if (this.#submitted.length === 0) break;
      if (this.#ring.waitForCompletion(Math.max(0, deadline - Date.now()))) continue;
      this.#report("warn", `${this.#name}: a storage call has not finished after ${timeoutMs} ms and is left alone`);
      this.#failAll();
      return false;
    }
    this.#completion.close();
    return true;
  }

  /** False when the host lacks what it needs: the job at hand fails, the next one tries again. */
  #start(): boolean {
    let completion: EventFd;
    try {
      completion = EventFd.create();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#reportOnce("error", error.message);
      return false;
    }
    this.#completion = completion;
    this.#watch = this.#watcher.watch(completion.fd, "input", () => {
      completion.drain();
      this.#reap();
    });
    const workerData: StorageWorkerData = {
      ring: this.#ring.memory,
      completion: completion.fd,
      target: this.#target,
      threadName: "tsvmm-storage",
    };
    const worker = new Worker(new URL("./storage-worker.js", import.meta.url), { workerData });
    // It never keeps the process alive, and starts although this thread's event loop may never turn.
    worker.unref();
    worker.on("error", (error) => {
      this.#hasFailed = true;
      this.#report("error", `${this.#name}: the storage worker ended: ${error.message}`);
      this.#failAll();
    });
    return true;
  }

  /** Delivers finished jobs in order and moves waiting ones into the ring. */
  #reap(): void {
    for (let errno = this.#ring.reap(); errno !== undefined; errno = this.#ring.reap()) {
      const done = this.#submitted.shift();
      done?.(this.#status(errno));
    }
    for (let next = this.#waiting[0]; next !== undefined && this.#ring.submit(next.job); next = this.#waiting[0]) {
      this.#submitted.push(next.done);
      this.#waiting.shift();
    }
  }

  #status(errno: number): BlockStatus {
    if (errno === 0) return "ok";
    if (errno === ERRNO.EOPNOTSUPP) return "unsupported";
    this.#reportOnce("warn", `a storage call failed with ${errnoName(errno)}`);
    return "ioError";
  }

  /** A guest can ask for the same thing for ever. */
  #reportOnce(level: "warn" | "error", text: string): void {
    if (this.#reported.has(text)) return;
    this.#reported.add(text);
    this.#report(level, `${this.#name}: ${text}`);
  }

  #failAll(): void {
    const failed = [...this.#submitted.splice(0), ...this.#waiting.splice(0).map((entry) => entry.done)];
    for (const done of failed) done("ioError");
  }
}
