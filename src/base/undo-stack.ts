/**
 * What was done so far and can be undone, for code that has to give back what it took when a later step fails.
 *
 * Why neither `using` nor JavaScript's DisposableStack: Node has that class from version 24 on. Both throw a
 * SuppressedError where the work and an undo have failed. That is no HostError, by which a program tells what happened.
 */
export class UndoStack implements Disposable {
  #steps: (() => unknown)[] = [];

  /** Remembers how to undo what was just done. */
  add(undo: () => unknown): void {
    this.#steps.push(undo);
  }

  /** Remembers how to give a thing back, and answers the thing. */
  own<Thing extends Disposable>(thing: Thing): Thing;
  own<Thing>(thing: Thing, giveBack: (thing: Thing) => unknown): Thing;
  own<Thing extends Disposable>(thing: Thing, giveBack?: (thing: Thing) => unknown): Thing {
    this.add(() => (giveBack === undefined ? thing[Symbol.dispose]() : giveBack(thing)));
    return thing;
  }

  /** Keeps what was done: nothing is left to undo. */
  commit(): void {
    this.#steps = [];
  }

  /** Hands all steps on to a new stack, for the owner of what was done. */
  move(): UndoStack {
    const moved = new UndoStack();
    moved.#steps = this.#steps;
    this.commit();
    return moved;
  }

  /**
   * Undoes everything, the last step first. A step that throws keeps none of the others from running. Calling it twice
   * is harmless.
   *
   * @throws What the first of the failed steps threw, when all have run.
   */
  undo(): void {
    const [first] = this.#runAll();
    if (first !== undefined) throw first.error;
  }

  [Symbol.dispose](): void {
    this.undo();
  }

  /**
   * Undoes everything after a failure: `catch (error) { throw undo.after(error); }`.
   *
   * @returns The error, to be thrown on. What could not be undone is added to its message.
   */
  after(error: unknown): unknown {
    for (const failed of this.#runAll()) {
      const text = failed.error instanceof Error ? failed.error.message : String(failed.error);
      if (error instanceof Error) error.message += `; and what was done cannot be undone: ${text}`;
    }
    return error;
  }

  /** @returns What went wrong. A step may add further ones, and may throw anything, `undefined` too. */
  #runAll(): readonly { readonly error: unknown }[] {
    const failed: { readonly error: unknown }[] = [];
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        step();
      } catch (error) {
        failed.push({ error });
      }
    }
    return failed;
  }
}

/**
 * Does something in steps, all of them or none: where `work` throws, what it had given to the stack is undone. What it
 * returns is the caller's to give back.
 *
 * ```ts
 * return allOrNothing((undo) => {
 *   const event = undo.own(EventFd.create());
 *   connect(event);
 *   return event;
 * });
 * ```
 *
 * @throws What `work` throws.
 */
export function allOrNothing<Result>(work: (undo: UndoStack) => Result): Result {
  const undo = new UndoStack();
  try {
    return work(undo);
  } catch (error) {
    throw undo.after(error);
  }
}
