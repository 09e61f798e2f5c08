import { type Gpa, gpa } from "../../base/units.ts";
import type { DeviceMemory } from "../server/device.ts";
import { CQE, SQE } from "./nvme-abi.ts";

/** What a command ends with. */
export interface Completion {
  readonly status: number;
  /** Dword 0 of the entry; 0 when absent. */
  readonly result?: number;
}

/**
 * A ring of completions in guest memory. The phase bit of each entry says in which round it was written. NVMe 1.4 §4.1
 */
export class CompletionQueue {
  readonly id: number;
  readonly entries: number;
  /** Interrupt vector; `undefined` for a queue that the host polls. */
  readonly vector: number | undefined;
  readonly #base: Gpa;
  #head = 0;
  #tail = 0;
  #phase = 1;

  constructor(id: number, base: Gpa, entries: number, vector: number | undefined) {
    this.id = id;
    this.#base = base;
    this.entries = entries;
    this.vector = vector;
  }

  /** Entries that can be posted; one place always stays empty. */
  get free(): number {
    return (this.#head - this.#tail - 1 + this.entries) % this.entries;
  }

  get isFull(): boolean {
    return this.free === 0;
  }

  /** The host has taken entries up to `head`. @returns False for a value that the queue does not have. */
  moveHead(head: number): boolean {
    if (head >= this.entries) return false;
    this.#head = head;
    return true;
  }

  /**
   * Writes an entry, its last dword, with the phase, at the end. The queue must not be full. @returns False where
   * memory is not there.
   */
  post(memory: DeviceMemory, from: SubmissionQueue, cid: number, { status, result = 0 }: Completion): boolean {
    const at = this.#base + this.#tail * CQE.size;
    const flags = ((status << 1) | this.#phase) & 0xffff;
    const isWritten =
      memory.writeU32(gpa(at), result) &&
      memory.writeU32(gpa(at + 4), 0) &&
      memory.writeU32(gpa(at + CQE.sqHead), ((from.id << 16) | from.head) >>> 0) &&
      memory.writeU32(gpa(at + CQE.cid), ((flags << 16) | cid) >>> 0);
    this.#tail = (this.#tail + 1) % this.entries;
    if (this.#tail === 0) this.#phase ^= 1;
    return isWritten;
  }
}

/** A ring of commands in guest memory. */
export class SubmissionQueue {
  readonly id: number;
  readonly entries: number;
  readonly completions: CompletionQueue;
  readonly #base: Gpa;
  #head = 0;
  #tail = 0;

  constructor(id: number, base: Gpa, entries: number, completions: CompletionQueue) {
    this.id = id;
    this.#base = base;
    this.entries = entries;
    this.completions = completions;
  }

  get head(): number {
    return this.#head;
  }

  get isEmpty(): boolean {
    return this.#head === this.#tail;
  }

  /** The host has put commands up to `tail`. @returns False for a value that the queue does not have. */
  moveTail(tail: number): boolean {
    if (tail >= this.entries) return false;
    this.#tail = tail;
    return true;
  }

  /** Copies the next command out; the queue must not be empty. @returns `undefined` where memory is not there. */
  take(memory: DeviceMemory): DataView | undefined {
    const bytes = new Uint8Array(SQE.size);
    const isRead = memory.read(gpa(this.#base + this.#head * SQE.size), bytes);
    this.#head = (this.#head + 1) % this.entries;
    return isRead ? new DataView(bytes.buffer) : undefined;
  }
}
