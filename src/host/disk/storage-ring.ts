import { highHalf, lowHalf, TWO_POW_32 } from "../../base/units.ts";

/** What a storage worker is asked to do; ranges in bytes. */
export type StorageJob =
  | { readonly kind: "flush" }
  | { readonly kind: "discard"; readonly offset: number; readonly sizeBytes: number }
  | { readonly kind: "writeZeroes"; readonly offset: number; readonly sizeBytes: number; readonly mayUnmap: boolean }
  | { readonly kind: "stop" };

/** The memory both sides use; plain data for `workerData`. */
export type StorageRingMemory = SharedArrayBuffer;

const CAPACITY = 64;
/** Words of a slot: kind, offset low and high, size low and high, errno. */
const SLOT = { kind: 0, offsetLow: 1, offsetHigh: 2, sizeLow: 3, sizeHigh: 4, errno: 5, words: 8 } as const;
/** Words before the slots. Both only grow, modulo 2^32; `submitted` is the device thread's, `completed` the worker's. */
const HEADER = { submitted: 0, completed: 1, words: 8 } as const;
const KINDS = ["flush", "discard", "writeZeroes", "writeZeroesMayUnmap", "stop"] as const;

/**
 * Requests from one thread to one worker and their results, in order, in shared memory.
 *
 * Each side writes its payload first and its counter afterwards; the other loads the counter first. Jobs are done in the order they
 * came, so one slot serves a job there and back.
 */
export class StorageRing {
  readonly memory: StorageRingMemory;
  readonly #words: Int32Array;
  #reaped = 0; // device thread: how many results it has taken

  /** @param memory What the other side has; new memory when absent. */
  constructor(memory: StorageRingMemory = new SharedArrayBuffer((HEADER.words + CAPACITY * SLOT.words) * 4)) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
  }

  /** Device thread: hands over a job and wakes the worker; false when the ring is full. */
  submit(job: StorageJob): boolean {
    const submitted = Atomics.load(this.#words, HEADER.submitted);
    if (((submitted - this.#reaped) | 0) >= CAPACITY) return false;
    const slot = this.#slot(submitted);
    const hasRange = job.kind === "discard" || job.kind === "writeZeroes";
    const offset = hasRange ? job.offset : 0;
    const sizeBytes = hasRange ? job.sizeBytes : 0;
    const kind = job.kind === "writeZeroes" && job.mayUnmap ? "writeZeroesMayUnmap" : job.kind;
    this.#words[slot + SLOT.kind] = KINDS.indexOf(kind);
    this.#words[slot + SLOT.offsetLow] = lowHalf(offset);
    this.#words[slot + SLOT.offsetHigh] = highHalf(offset);
    this.#words[slot + SLOT.sizeLow] = lowHalf(sizeBytes);
    this.#words[slot + SLOT.sizeHigh] = highHalf(sizeBytes);
    Atomics.store(this.#words, HEADER.submitted, (submitted + 1) | 0);
    Atomics.notify(this.#words, HEADER.submitted);
    return true;
  }

  /** Device thread: the errno of the next finished job, 0 for success; `undefined` when none has finished since. */
  reap(): number | undefined {
    if (Atomics.load(this.#words, HEADER.completed) === this.#reaped) return undefined;
    const errno = this.#words[this.#slot(this.#reaped) + SLOT.errno];
    this.#reaped = (this.#reaped + 1) | 0;
    return errno;
  }

  /**
   * Device thread: blocks until a job finishes that has not been taken.
   *
   * @returns False after `timeoutMs`.
   */
  waitForCompletion(timeoutMs: number): boolean {
    const deadline = Date.now() + timeoutMs;
    while (Atomics.load(this.#words, HEADER.completed) === this.#reaped) {
      const left = deadline - Date.now();
      if (left <= 0) return false;
      Atomics.wait(this.#words, HEADER.completed, this.#reaped, left);
    }
    return true;
  }

  /** Worker: blocks until there is a job. It stays in its slot until {@link complete}. */
  next(): StorageJob {
    const completed = Atomics.load(this.#words, HEADER.completed);
    // Submitted before the wait: the values differ and wait returns at once. Submitted during it: notify wakes us. Neither is lost.
    while (Atomics.load(this.#words, HEADER.submitted) === completed) {
      Atomics.wait(this.#words, HEADER.submitted, completed);
    }
    const slot = this.#slot(completed);
    const kind = KINDS[this.#word(slot + SLOT.kind)] ?? "stop";
    if (kind === "flush" || kind === "stop") return { kind };
    const offset = this.#word(slot + SLOT.offsetHigh) * TWO_POW_32 + this.#word(slot + SLOT.offsetLow);
    const sizeBytes = this.#word(slot + SLOT.sizeHigh) * TWO_POW_32 + this.#word(slot + SLOT.sizeLow);
    if (kind === "discard") return { kind, offset, sizeBytes };
    return { kind: "writeZeroes", offset, sizeBytes, mayUnmap: kind === "writeZeroesMayUnmap" };
  }

  /** Worker: the result of the job that {@link next} gave. */
  complete(errno: number): void {
    const completed = Atomics.load(this.#words, HEADER.completed);
    this.#words[this.#slot(completed) + SLOT.errno] = errno;
    Atomics.store(this.#words, HEADER.completed, (completed + 1) | 0);
    Atomics.notify(this.#words, HEADER.completed);
  }

  #slot(counter: number): number {
    return HEADER.words + ((counter >>> 0) % CAPACITY) * SLOT.words;
  }

  #word(index: number): number {
    return (this.#words[index] ?? 0) >>> 0;
  }
}
