import type { Report } from "../../base/backends.ts";
import { KIB, MIB } from "../../base/units.ts";
import { ByteQueue } from "../../host/char/byte-queue.ts";
import { DroppedOutput } from "../../host/char/dropped-output.ts";
import { hasCredit, takeCredit } from "../shared/credit.ts";

/** Most bytes of one message. */
export const MESSAGE_BYTES: number = 64 * KIB;
/** The newest output that waits for credit. */
export const KEPT_BYTES: number = MIB;

export interface ApiOutputParts {
  /** Whose output it is. */
  readonly name: string;
  /** Words of vmm/shared/credit.ts: messages that may be sent. */
  readonly credit: Int32Array;
  /** Sends bytes, which it may keep, and how many were lost between these and the last ones. */
  readonly post: (bytes: Uint8Array, droppedBytes: number) => void;
  readonly report: Report;
}

/**
 * A guest's output on its way to the typed API. The guest never waits for the program. Output without credit is queued
 * and joined to few messages. Above {@link KEPT_BYTES} its oldest bytes are dropped.
 */
export class ApiOutput {
  readonly #parts: ApiOutputParts;
  readonly #queue: ByteQueue = new ByteQueue(KEPT_BYTES);
  readonly #dropped: DroppedOutput;
  /** Of those that the next message tells. */
  #droppedBytes = 0;

  constructor(parts: ApiOutputParts) {
    this.#parts = parts;
    this.#dropped = new DroppedOutput(parts.name, parts.report);
  }

  /** The bytes are copied. */
  write(bytes: Uint8Array): void {
    const lost = this.#queue.push(bytes);
    this.#dropped.add(lost, "the program does not take it fast enough");
    this.#droppedBytes += lost;
    this.resume();
  }

  /** Sends what there is credit for: to be called when the doorbell has rung. */
  resume(): void {
    while (this.#queue.length > 0 && hasCredit(this.#parts.credit)) this.#sendSome();
    if (this.#queue.length === 0) this.#dropped.settle();
  }

  /** Sends everything, on credit that is not there: before something that comes after all output. */
  flush(): void {
    while (this.#queue.length > 0) this.#sendSome();
    this.#dropped.settle();
  }

  #sendSome(): void {
    const bytes = this.#queue.peek().slice(0, MESSAGE_BYTES);
    this.#queue.drop(bytes.length);
    takeCredit(this.#parts.credit);
    this.#parts.post(bytes, this.#droppedBytes);
    this.#droppedBytes = 0;
  }
}
