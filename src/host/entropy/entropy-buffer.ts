/** The memory both sides use; plain data for `workerData`. */
export type EntropyBufferMemory = SharedArrayBuffer;

/** Most bytes that are asked for at a time. */
export const ENTROPY_BUFFER_BYTES = 4096;
/** Words before the bytes. */
const HEADER = { state: 0, count: 1, errno: 2, stop: 3, done: 4, serving: 5, words: 8 } as const;
/**
 * Who owns count and bytes. Only the owner changes the state: the device thread makes `wanted` of `empty` and `empty`
 * of `full`, the worker makes `full` or `ended` of `wanted`.
 */
const STATE = { empty: 0, wanted: 1, full: 2, ended: 3 } as const;

/** One piece of random bytes on its way from a worker to the device thread. */
export class EntropyBuffer {
  readonly memory: EntropyBufferMemory;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  #taken = 0; // device thread: of the piece at hand

  /** @param memory What the other side has; new memory when absent. */
  constructor(memory: EntropyBufferMemory = new SharedArrayBuffer(HEADER.words * 4 + ENTROPY_BUFFER_BYTES)) {
    this.memory = memory;
    this.#words = new Int32Array(memory, 0, HEADER.words);
    this.#bytes = new Uint8Array(memory, HEADER.words * 4);
  }

  /** Device thread: moves bytes of the piece at hand. @returns How many; 0 when there is none. */
  take(target: Uint8Array): number {
    if (Atomics.load(this.#words, HEADER.state) !== STATE.full) return 0;
    const filled = this.#words[HEADER.count] ?? 0;
    const count = Math.min(target.length, filled - this.#taken);
    target.set(this.#bytes.subarray(this.#taken, this.#taken + count));
    this.#taken += count;
    if (this.#taken === filled) Atomics.store(this.#words, HEADER.state, STATE.empty);
    return count;
  }

  /**
   * Device thread: asks for a piece of so many bytes at most. @returns False when one is asked for already, or the
   * source has ended.
   */
  want(sizeBytes: number): boolean {
    if (Atomics.load(this.#words, HEADER.state) !== STATE.empty) return false;
    this.#taken = 0;
    this.#words[HEADER.count] = Math.min(sizeBytes, ENTROPY_BUFFER_BYTES);
    Atomics.store(this.#words, HEADER.state, STATE.wanted);
    return true;
  }

  /** Device thread: the errno that ended the source, 0 for its end; `undefined` while it goes on. */
  get endErrno(): number | undefined {
    return Atomics.load(this.#words, HEADER.state) === STATE.ended ? this.#words[HEADER.errno] : undefined;
  }

  /** Device thread: the worker should end. */
  stop(): void {
    Atomics.store(this.#words, HEADER.stop, 1);
  }

  /** Device thread: blocks until the worker's code runs. @returns False after `timeoutMs`. */
  waitUntilServing(timeoutMs: number): boolean {
    return this.#waitFor(HEADER.serving, timeoutMs);
  }

  /** Device thread: blocks until the worker uses no descriptor any more. @returns False after `timeoutMs`. */
  waitUntilDone(timeoutMs: number): boolean {
    return this.#waitFor(HEADER.done, timeoutMs);
  }

  #waitFor(word: number, timeoutMs: number): boolean {
    const deadline = performance.now() + timeoutMs;
    while (Atomics.load(this.#words, word) === 0) {
      const left = deadline - performance.now();
      if (left <= 0) return false;
      Atomics.wait(this.#words, word, 0, left);
    }
    return true;
  }

  /** Worker: the first thing it does. */
  begin(): void {
    this.#announce(HEADER.serving);
  }

  /** Worker: how many bytes are asked for; 0 for none. */
  get wanted(): number {
    return Atomics.load(this.#words, HEADER.state) === STATE.wanted ? (this.#words[HEADER.count] ?? 0) : 0;
  }

  get isStopped(): boolean {
    return Atomics.load(this.#words, HEADER.stop) !== 0;
  }

  /** Worker: answers what is wanted. */
  fill(bytes: Uint8Array): void {
    this.#bytes.set(bytes);
    this.#words[HEADER.count] = bytes.length;
    Atomics.store(this.#words, HEADER.state, STATE.full);
  }

  /** Worker: nothing more will come. */
  end(errno: number): void {
    this.#words[HEADER.errno] = errno;
    Atomics.store(this.#words, HEADER.state, STATE.ended);
  }

  /** Worker: the last thing it does. */
  finish(): void {
    this.#announce(HEADER.done);
  }

  #announce(word: number): void {
    Atomics.store(this.#words, word, 1);
    Atomics.notify(this.#words, word);
  }
}
