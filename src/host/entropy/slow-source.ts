import type { EntropyBackend, Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import type { FdWatch, FdWatcher } from "../../base/signals.ts";
import { UndoStack } from "../../base/undo-stack.ts";
import type { Fd } from "../../base/units.ts";
import { errnoName } from "../errors.ts";
import { EventFd } from "../eventfd.ts";
import { libc } from "../libc.ts";
import { startWorker } from "../worker.ts";
import { EntropyBuffer } from "./entropy-buffer.ts";
import type { EntropyWorkerData } from "./entropy-worker.ts";

/** The worker's program, and how long it may take until it runs, in milliseconds. Tests have others. */
interface WorkerStart {
  readonly entry: URL;
  readonly timeoutMs: number;
}

const WORKER: WorkerStart = { entry: new URL("./entropy-worker.js", import.meta.url), timeoutMs: 10_000 };
const START_ADVICE = "raise ulimit -n, or install tsvmm again if its files are gone";

/**
 * A source of random bytes that may make its reader wait: a hardware generator, a pipe, a terminal. A worker waits for
 * it, and reads no more than was asked for: a generator's bytes are other programs' too.
 */
export class SlowSource implements EntropyBackend {
  readonly #path: string;
  readonly #file: Fd;
  readonly #report: Report;
  readonly #buffer: EntropyBuffer = new EntropyBuffer();
  readonly #wake: EventFd;
  readonly #ready: EventFd;
  readonly #watch: FdWatch;
  #onReady: () => void = () => undefined;
  #isEndTold = false;

  /** @param file A nonblocking descriptor, owned from now on, also when this throws. @throws HostError */
  constructor(path: string, file: Fd, watcher: FdWatcher, report: Report, worker: WorkerStart = WORKER) {
    this.#path = path;
    this.#file = file;
    this.#report = report;
    const undo = new UndoStack();
    undo.add(() => libc.close(file));
    try {
      this.#wake = undo.own(EventFd.create());
      this.#ready = undo.own(EventFd.create());
      const watch = watcher.watch(this.#ready.fd, "input", () => this.#take());
      this.#watch = undo.own(watch, () => watch.close());
      undo.add(() => this.#buffer.stop()); // a late worker looks at that before it uses a descriptor
      const workerData: EntropyWorkerData = {
        memory: this.#buffer.memory,
        source: file,
        wake: this.#wake.fd,
        ready: this.#ready.fd,
      };
      // It never keeps the process alive, and starts although this thread's event loop may never turn.
      const name = `the thread that reads ${path}`;
      const thread = startWorker(name, worker.entry, { workerData });
      thread.unref();
      // It cannot say why it does not run: its errors need an event loop that turns. Where one does, it is said below.
      thread.on("error", () => undefined);
      if (!this.#buffer.waitUntilServing(worker.timeoutMs)) {
        throw new HostError(
          "TSVMM_THREAD_START",
          `Cannot start ${name}: it does not run after ${worker.timeoutMs / 1000} s`,
          START_ADVICE,
        );
      }
    } catch (error) {
      throw undo.after(error);
    }
  }

  take(target: Uint8Array): number {
    const count = this.#buffer.take(target);
    if (count === 0 && this.#buffer.want(target.length)) this.#wake.signal();
    return count;
  }

  onReady(ready: () => void): void {
    this.#onReady = ready;
  }

  /** Ends the worker, blocking meanwhile; one that does not end in time keeps its descriptors. */
  close(timeoutMs: number): void {
    this.#watch.close();
    this.#buffer.stop();
    this.#wake.signal();
    if (!this.#buffer.waitUntilDone(timeoutMs)) {
      this.#report("warn", `rng: a read of ${this.#path} has not come back after ${timeoutMs} ms and is left alone`);
      return;
    }
    this.#wake.close();
    this.#ready.close();
    libc.close(this.#file);
  }

  #take(): void {
    this.#ready.drain();
    const errno = this.#buffer.endErrno;
    if (errno === undefined) return this.#onReady();
    if (this.#isEndTold) return;
    this.#isEndTold = true;
    this.#report("warn", endText(this.#path, errno === 0 ? undefined : errnoName(errno)));
  }
}

/** What is said once when a source gives no more. */
export function endText(path: string, errno: string | undefined): string {
  const state = errno === undefined ? "has ended" : `cannot be read any more: ${errno}`;
  return `rng: ${path} ${state}: the guest gets no more random bytes`;
}
