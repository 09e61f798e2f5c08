import { highHalf, lowHalf } from "../base/units.ts";
import { IOVEC } from "./constants.ts";

/** An array of struct iovec to be used again and again: where preadv and pwritev put or find the bytes. */
export class IovecArray {
  /** As the calls take it. */
  readonly bytes: Uint8Array;
  readonly capacity: number;
  readonly #words: Uint32Array;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.bytes = new Uint8Array(capacity * IOVEC.size);
    this.#words = new Uint32Array(this.bytes.buffer);
  }

  /** Fills element `index`; the address must be mapped in this process for as long as the call runs. */
  set(index: number, address: number, sizeBytes: number): void {
    const word = (index * IOVEC.size) / 4;
    this.#words[word] = lowHalf(address);
    this.#words[word + 1] = highHalf(address);
    this.#words[word + 2] = lowHalf(sizeBytes);
    this.#words[word + 3] = highHalf(sizeBytes);
  }
}
