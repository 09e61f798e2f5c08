import type { Waiter } from "./device-loop.ts";

/**
 * Waits for descriptors as its waiter does. Then it runs work that was deferred to this turn, so that it would not
 * block the device thread before. It makes no system call of its own.
 */
export class Turns implements Waiter {
  readonly #waiter: Waiter;
  readonly #work: (() => void)[] = [];

  constructor(waiter: Waiter) {
    this.#waiter = waiter;
  }

  /** Runs work after the next wait, in order; what is put off from there waits for the turn after. */
  defer(work: () => void): void {
    this.#work.push(work);
  }

  /** Does not wait while there is work. */
  wait(timeoutMs: number): number {
    const due = this.#work.length;
    const dispatched = this.#waiter.wait(due === 0 ? timeoutMs : 0);
    // One by one: an exception leaves the rest to the next turn.
    for (let index = 0; index < due; index++) this.#work.shift()?.();
    return dispatched + due;
  }
}

/** What a board puts off; it does not outlive the board. */
export class Deferral implements Disposable {
  readonly #defer: Turns["defer"];
  #isClosed = false;

  /** @param defer That of the device thread's turns. */
  constructor(defer: Turns["defer"]) {
    this.#defer = defer;
  }

  defer(work: () => void): void {
    this.#defer(() => {
      if (!this.#isClosed) work();
    });
  }

  /** Drops what has not run. */
  close(): void {
    this.#isClosed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
