import type { EntropyBackend } from "../base/backends.ts";
import { type Chain, scatter } from "./chain.ts";
import type { VirtioDevice } from "./device.ts";
import type { Virtqueue } from "./queue.ts";

/**
 * Most bytes one request gets. A driver that wants more asks again; one queue of requests stays well under a
 * millisecond.
 */
const MAX_REQUEST_BYTES = 4096;
/** Bytes given in one turn of the device thread: the kernel makes them in a millisecond. */
const BYTES_PER_TURN = 1 << 18;

/**
 * An entropy device: fills what the driver puts in its only queue. VIRTIO 1.2 §5.4
 *
 * A request gets the bytes that are there, one at least; it waits while there are none (§5.4.6.1).
 */
export class VirtioRng implements VirtioDevice, Disposable {
  readonly name: string;
  readonly deviceId = 4;
  readonly classCode = 0xff_00_00; // unassigned class
  readonly features = 0n;
  readonly queueSizes: readonly number[] = [64];
  readonly configSizeBytes = 0;
  readonly isBusy = false;
  readonly #backend: EntropyBackend;
  readonly #bytes = new Uint8Array(MAX_REQUEST_BYTES);
  /** Requests without an answer yet, oldest first: at most as many as the queue holds. */
  readonly #waiting: Chain[] = [];
  #queue: Virtqueue | undefined;

  constructor(name: string, backend: EntropyBackend) {
    this.name = name;
    this.#backend = backend;
    backend.onReady(() => void this.#answer());
  }

  attach(): void {}

  readConfig(): number {
    return 0;
  }

  writeConfig(): void {}

  activate(queues: readonly (Virtqueue | undefined)[]): void {
    this.#queue = queues[0];
  }

  queueNotified(): void {
    const queue = this.#queue;
    queue?.drain(BYTES_PER_TURN, (chain) => this.#accept(queue, chain));
  }

  reset(): void {
    this.#queue = undefined;
    this.#waiting.length = 0;
  }

  close(): void {
    this.reset();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #accept(queue: Virtqueue, chain: Chain): number {
    if (chain.writableBytes === 0) {
      queue.fail("an entropy request has no room for an answer");
      return 0;
    }
    this.#waiting.push(chain);
    return this.#answer();
  }

  /** Answers requests as long as there are bytes; returns how many those were. */
  #answer(): number {
    const queue = this.#queue;
    let total = 0;
    for (let chain = this.#waiting[0]; queue !== undefined && chain !== undefined; chain = this.#waiting[0]) {
      const count = this.#backend.take(this.#bytes.subarray(0, Math.min(chain.writableBytes, MAX_REQUEST_BYTES)));
      if (count === 0) break;
      total += count;
      this.#waiting.shift();
      queue.complete(chain, scatter(queue.memory, chain.writable, this.#bytes.subarray(0, count)));
    }
    return total;
  }
}
