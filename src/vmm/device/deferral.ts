import type { FdWatch, FdWatcher } from "../../base/signals.ts";
import { EventFd } from "../../host/eventfd.ts";

/** Runs work on the device thread's next turn, in order: for what must not keep the thread now. */
export class Deferral {
  readonly #wake = EventFd.create();
  readonly #watch: FdWatch;
  #work: (() => void)[] = [];

  constructor(watcher: FdWatcher) {
    this.#watch = watcher.watch(this.#wake.fd, "input", () => {
      this.#wake.drain();
      const work = this.#work;
      this.#work = []; // what is deferred from here on waits for the turn after
      for (const item of work) item();
    });
  }

  defer(work: () => void): void {
    if (this.#work.push(work) === 1) this.#wake.signal();
  }

  /** Drops what has not run. */
  close(): void {
    this.#work = [];
    this.#watch.close();
    this.#wake.close();
  }
}
