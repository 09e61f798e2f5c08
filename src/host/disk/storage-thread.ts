import type { BlockStatus, Report } from "../../base/backends.ts";
import type { FdWatch, FdWatcher } from "../../base/signals.ts";
import { ERRNO, errnoName } from "../errors.ts";
import { EventFd } from "../eventfd.ts";
import { STORAGE_STAGE, type StorageJob, type StoragePort, StorageRing, type StorageTarget } from "./storage-ring.ts";

type Done = (status: BlockStatus) => void;

/**
 * The device thread's side of a storage worker: calls that may take long are handed over, results come back through the
 * watcher.
 *
 * The worker uses the target's descriptor number, so the descriptor must stay open until {@link close} has answered
 * true. All it tells comes through shared memory, as this thread's event loop never turns.
 */
export class StorageThread {
  readonly #name: string;
  readonly #report: Report;
  readonly #ring: StorageRing;
  readonly #waiting: { readonly job: StorageJob; readonly done: Done }[] = []; // found the ring full
  readonly #submitted: Done[] = []; // in the ring's order
  readonly #watch: FdWatch;
  readonly #reported: Set<string> = new Set();
  #isClosed = false;

  /** @param port Of a worker without jobs so far. */
  constructor(name: string, port: StoragePort, target: StorageTarget, watcher: FdWatcher, report: Report) {
    this.#name = name;
    this.#report = report;
    this.#ring = new StorageRing(port.ring);
    this.#ring.setTarget(target);
    const completion = EventFd.attach(port.completion);
    this.#watch = watcher.watch(port.completion, "input", () => {
      completion.drain();
      this.#reap();
    });
  }

  /**
   * Hands a job over; `done` is called later, on this thread. Jobs are done in order. Without a worker it fails at
   * once.
   */
  submit(job: StorageJob, done: Done): void {
    if (this.#isClosed) done("ioError");
    else if (this.#isGone) this.#failForGood([done]);
    else if (this.#waiting.length === 0 && this.#ring.submit(job)) this.#submitted.push(done);
    else this.#waiting.push({ job, done });
  }

  /**
   * Lets the worker finish what it has, delivers the results, and stops it. Blocks this thread meanwhile; calling it
   * twice is harmless.
   *
   * @returns False when the worker is still inside a call after `timeoutMs`. Unfinished jobs have failed then. The
   *   target's descriptor must stay open, because the worker uses its number.
   */
  close(timeoutMs: number): boolean {
    if (this.#isClosed) return true;
    this.#isClosed = true;
    this.#watch.close();
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      this.#reap();
      if (this.#submitted.length === 0) break;
      const isDone = this.#ring.waitForCompletion(Math.max(0, deadline - performance.now()));
      if (isDone || this.#isGone) continue; // the next look delivers the results, or fails the jobs
      this.#report("warn", `${this.#name}: a storage call has not finished after ${timeoutMs} ms and is left alone`);
      for (const done of this.#takeAll()) done("ioError");
      this.#ring.stop();
      return false;
    }
    this.#ring.stop();
    return true;
  }

  /** Delivers finished jobs in order and moves waiting ones into the ring. */
  #reap(): void {
    const isGone = this.#isGone; // looked at before the results: a worker finishes its jobs, then ends
    for (let errno = this.#ring.reap(); errno !== undefined; errno = this.#ring.reap()) {
      const done = this.#submitted.shift();
      done?.(this.#status(errno));
    }
    if (isGone) return this.#failForGood(this.#takeAll());
    for (let next = this.#waiting[0]; next !== undefined && this.#ring.submit(next.job); next = this.#waiting[0]) {
      this.#submitted.push(next.done);
      this.#waiting.shift();
    }
  }

  get #isGone(): boolean {
    return this.#ring.stage === STORAGE_STAGE.ended;
  }

  #failForGood(jobs: readonly Done[]): void {
    if (jobs.length === 0) return;
    this.#reportOnce(
      "error",
      "its storage worker has ended: flushes, discards and zeroes fail until the machine's end",
    );
    for (const done of jobs) done("ioError");
  }

  /** Everything that is not finished, no longer this object's. */
  #takeAll(): readonly Done[] {
    return [...this.#submitted.splice(0), ...this.#waiting.splice(0).map((entry) => entry.done)];
  }

  #status(errno: number): BlockStatus {
    if (errno === 0) return "ok";
    if (errno === ERRNO.EOPNOTSUPP) return "unsupported";
    this.#reportOnce("warn", `a storage call failed with ${errnoName(errno)}`);
    return "ioError";
  }

  /** Reports each text once: a guest can repeat a request without end. */
  #reportOnce(level: "warn" | "error", text: string): void {
    if (this.#reported.has(text)) return;
    this.#reported.add(text);
    this.#report(level, `${this.#name}: ${text}`);
  }
}
