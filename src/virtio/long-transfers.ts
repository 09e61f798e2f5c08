import type { BlockStatus } from "../base/backends.ts";
import { MIB } from "../base/units.ts";
import { type Segment, sliceSegments } from "./chain.ts";
import type { Virtqueue } from "./queue.ts";

/**
 * Most bytes that one turn of the device thread moves for one request. Drivers' ordinary requests are smaller. It takes
 * a few milliseconds if the host has the data in memory.
 */
export const SLICE_BYTES: number = 4 * MIB;

/** A read or write that takes more than one turn. */
export interface LongTransfer {
  readonly queue: Virtqueue;
  readonly segments: readonly Segment[];
  readonly sizeBytes: number;
  /** Moves a part; `start` counts from the request's first byte. `done` is called once, now or later. */
  readonly move: (start: number, segments: readonly Segment[], done: (status: BlockStatus) => void) => void;
  /** Called once, with the first status that is not ok, or at the end. */
  readonly finished: (status: BlockStatus) => void;
}

/**
 * Long transfers of one device: one after the other, a slice in each turn. Other devices, the vCPUs' accesses and a
 * stop come between two slices. Shorter requests do not wait behind them: a driver cannot rely on the order of requests
 * in flight. VIRTIO 1.2 §5.2.6.2
 */
export class LongTransfers {
  readonly #defer: (work: () => void) => void;
  /** The first one is under way. */
  readonly #transfers: LongTransfer[] = [];
  #doneBytes = 0; // of the first one
  /** A slice will come, or is with the backend. */
  #isUnderWay = false;
  #isMoving = false; // with the backend

  /** @param defer Runs work in the device thread's next turn. */
  constructor(defer: (work: () => void) => void) {
    this.#defer = defer;
  }

  add(transfer: LongTransfer): void {
    this.#transfers.push(transfer);
    if (!this.#isUnderWay) this.#goOn();
  }

  /** Ends all but the slice that is with the backend; their queue is dead. */
  drop(): void {
    if (!this.#isMoving) this.#doneBytes = 0;
    for (const transfer of this.#transfers.splice(this.#isMoving ? 1 : 0)) transfer.finished("ioError");
  }

  #goOn(): void {
    this.#isUnderWay = this.#transfers.length > 0;
    if (this.#isUnderWay) this.#defer(() => this.#slice());
  }

  #slice(): void {
    const [transfer] = this.#transfers;
    if (transfer === undefined) {
      this.#isUnderWay = false;
      return;
    }
    if (!transfer.queue.isLive) {
      this.#end(transfer, "ioError");
      return;
    }
    const start = this.#doneBytes;
    const sizeBytes = Math.min(SLICE_BYTES, transfer.sizeBytes - start);
    this.#isMoving = true;
    transfer.move(start, sliceSegments(transfer.segments, start, sizeBytes), (status) => {
      this.#isMoving = false;
      this.#doneBytes += sizeBytes;
      if (status !== "ok" || this.#doneBytes >= transfer.sizeBytes) this.#end(transfer, status);
      else this.#goOn();
    });
  }

  /** Ends the first one. */
  #end(transfer: LongTransfer, status: BlockStatus): void {
    this.#transfers.shift();
    this.#doneBytes = 0;
    transfer.finished(status);
    this.#goOn();
  }
}
