/** Bytes collected before they are written anyway. */
const BATCH_SIZE = 4096;

/**
 * Collects the bytes a guest writes one access at a time, so that a character backend is called once for many.
 *
 * No byte waits longer than a pass of the device thread. The first byte of a batch calls `wantsFlush`, and the thread
 * calls {@link flush} before it sleeps. Without that hook each byte is written at once.
 */
export class OutputBatch {
  readonly #write: (bytes: Uint8Array) => void;
  readonly #wantsFlush: (() => void) | undefined;
  readonly #bytes = new Uint8Array(BATCH_SIZE);
  #count = 0;

  /** @param write Takes a copy of its own, which it may keep. */
  constructor(write: (bytes: Uint8Array) => void, wantsFlush: (() => void) | undefined) {
    this.#write = write;
    this.#wantsFlush = wantsFlush;
  }

  push(byte: number): void {
    this.#bytes[this.#count++] = byte;
    if (this.#wantsFlush === undefined || this.#count === BATCH_SIZE) this.flush();
    else if (this.#count === 1) this.#wantsFlush();
  }

  /** Writes what was collected; harmless when nothing was. */
  flush(): void {
    if (this.#count === 0) return;
    const bytes = this.#bytes.slice(0, this.#count);
    this.#count = 0;
    this.#write(bytes);
  }
}
