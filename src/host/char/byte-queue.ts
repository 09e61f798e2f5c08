/**
 * A first-in-first-out queue of bytes with a limit. When it is full the oldest bytes make room: the newest output is
 * worth most.
 */
export class ByteQueue {
  readonly limitBytes: number;
  #bytes: Uint8Array = new Uint8Array(0);
  #head = 0;
  #length = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get length(): number {
    return this.#length;
  }

  /** Appends a copy. @returns How many bytes were dropped, old ones first. */
  push(bytes: Uint8Array): number {
    const kept = bytes.length > this.limitBytes ? bytes.subarray(bytes.length - this.limitBytes) : bytes;
    const overflow = Math.max(0, this.#length + kept.length - this.limitBytes);
    this.drop(overflow);
    this.#reserve(this.#length + kept.length);
    const capacity = this.#bytes.length;
    const tail = (this.#head + this.#length) % Math.max(1, capacity);
    const first = Math.min(kept.length, capacity - tail);
    this.#bytes.set(kept.subarray(0, first), tail);
    this.#bytes.set(kept.subarray(first), 0);
    this.#length += kept.length;
    return overflow + (bytes.length - kept.length);
  }

  /** The oldest bytes that lie together, without a copy; valid until the next call. Empty when the queue is. */
  peek(): Uint8Array {
    return this.#bytes.subarray(this.#head, Math.min(this.#head + this.#length, this.#bytes.length));
  }

  /** Takes the oldest bytes off. */
  drop(count: number): void {
    const taken = Math.min(count, this.#length);
    this.#length -= taken;
    this.#head = this.#length === 0 ? 0 : (this.#head + taken) % this.#bytes.length;
  }

  #reserve(sizeBytes: number): void {
    if (sizeBytes <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.min(this.limitBytes, Math.max(256, 2 ** Math.ceil(Math.log2(sizeBytes)))));
    const first = this.peek();
    larger.set(first, 0);
    larger.set(this.#bytes.subarray(0, this.#length - first.length), first.length);
    this.#bytes = larger;
    this.#head = 0;
  }
}
