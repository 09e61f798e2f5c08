import { type Fd, highHalf, lowHalf, TWO_POW_32 } from "../../base/units.ts";

/** What a storage worker is asked to do; ranges in bytes. */
export type StorageJob =
  | { readonly kind: "flush" }
  | { readonly kind: "discard"; readonly offset: number; readonly sizeBytes: number }
  | { readonly kind: "writeZeroes"; readonly offset: number; readonly sizeBytes: number; readonly mayUnmap: boolean };

/** A file or block device whose slow calls a storage worker makes. Plain data. */
export interface StorageTarget {
  readonly fd: number;
  readonly isBlockDevice: boolean;
  /** A block device's logical block size, which its ioctls want ranges in; 1 for a file, whose calls take any. */
  readonly deviceBlockBytes: number;
  /** What direct I/O takes; 1 through the page cache. */
  readonly transferBlockBytes: number;
}

/** The memory both sides use; plain data for `workerData` and messages. */
export type StorageRingMemory = SharedArrayBuffer;

/** What the device thread needs of a storage worker. Plain data. */
export interface StoragePort {
  readonly ring: StorageRingMemory;
  /**
   * Eventfd that is signalled after each finished job and when the worker has ended. The starter of the worker owns it.
   */
  readonly completion: Fd;
}

/** How far a worker is. It only grows. */
export const STORAGE_STAGE = { loading: 0, serving: 1, ended: 2 } as const;
export type StorageStage = keyof typeof STORAGE_STAGE;

const CAPACITY = 64;
/** Words of a slot: kind, offset low and high, size low and high, errno. */
const SLOT = { kind: 0, offsetLow: 1, offsetHigh: 2, sizeLow: 3, sizeHigh: 4, errno: 5, words: 8 } as const;
/**
 * Words before the slots. Four only grow, modulo 2^32. The device thread writes `submitted`, the worker `completed`.
 * Each side waits on its own bell, which counts the other side's changes. So no change is lost between a look and the
 * wait. The target's words are written before the first job.
 */
const HEADER = {
  submitted: 0,
  completed: 1,
  workerBell: 2,
  deviceBell: 3,
  stage: 4,
  isStopping: 5,
  targetFd: 6,
  targetIsBlockDevice: 7,
  targetBlockBytes: 8,
  targetTransferBytes: 9,
  words: 16,
} as const;
const KINDS = ["flush", "discard", "writeZeroes", "writeZeroesMayUnmap"] as const;

/**
 * Requests from one thread to one worker and their results, in order, in shared memory.
 *
 * Each side writes its payload first, then its counter, then rings the other's bell; the other looks at the bell, the
 * counter, the payload. Jobs are done in the order they came, so one slot serves a job there and back.
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

  /** How far the worker is; any thread may ask. */
  get stage(): number {
    return Atomics.load(this.#words, HEADER.stage);
  }

  /** Device thread, before the first job: what the worker's calls are made on. */
  setTarget({ fd: file, isBlockDevice, deviceBlockBytes, transferBlockBytes }: StorageTarget): void {
    this.#words[HEADER.targetFd] = file;
    this.#words[HEADER.targetIsBlockDevice] = isBlockDevice ? 1 : 0;
    this.#words[HEADER.targetBlockBytes] = deviceBlockBytes;
    this.#words[HEADER.targetTransferBytes] = transferBlockBytes;
  }

  /** Device thread: hands over a job and wakes the worker; false when the ring is full. */
  submit(job: StorageJob): boolean {
    const submitted = Atomics.load(this.#words, HEADER.submitted);
    if (((submitted - this.#reaped) | 0) >= CAPACITY) return false;
    const slot = this.#slot(submitted);
    const offset = job.kind === "flush" ? 0 : job.offset;
    const sizeBytes = job.kind === "flush" ? 0 : job.sizeBytes;
    const kind = job.kind === "writeZeroes" && job.mayUnmap ? "writeZeroesMayUnmap" : job.kind;
    this.#words[slot + SLOT.kind] = KINDS.indexOf(kind);
    this.#words[slot + SLOT.offsetLow] = lowHalf(offset);
    this.#words[slot + SLOT.offsetHigh] = highHalf(offset);
    this.#words[slot + SLOT.sizeLow] = lowHalf(sizeBytes);
    this.#words[slot + SLOT.sizeHigh] = highHalf(sizeBytes);
    Atomics.store(this.#words, HEADER.submitted, (submitted + 1) | 0);
    this.#ring(HEADER.workerBell);
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
   * @returns False after `timeoutMs`, and when the worker has ended without finishing one.
   */
  waitForCompletion(timeoutMs: number): boolean {
    return this.#waitUntil(timeoutMs, () => Atomics.load(this.#words, HEADER.completed) !== this.#reaped);
  }

  /** Any thread: asks the worker to end when it has done all jobs. */
  stop(): void {
    Atomics.store(this.#words, HEADER.isStopping, 1);
    this.#ring(HEADER.workerBell);
  }

  /**
   * Blocks the calling thread until the worker has ended, which {@link stop} asks for.
   *
   * @returns False after `timeoutMs`.
   */
  waitForEnd(timeoutMs: number): boolean {
    this.#waitUntil(timeoutMs, () => false);
    return this.stage === STORAGE_STAGE.ended;
  }

  /** Worker, and its starter when the worker cannot say it any more. */
  enter(stage: StorageStage): void {
    Atomics.store(this.#words, HEADER.stage, STORAGE_STAGE[stage]);
    this.#ring(HEADER.deviceBell);
  }

  /** Worker: what jobs are done on. */
  get target(): StorageTarget {
    return {
      fd: this.#words[HEADER.targetFd] ?? -1,
      isBlockDevice: this.#words[HEADER.targetIsBlockDevice] === 1,
      deviceBlockBytes: this.#word(HEADER.targetBlockBytes),
      transferBlockBytes: this.#word(HEADER.targetTransferBytes),
    };
  }

  /**
   * Worker: blocks until there is a job, which stays in its slot until {@link complete}; `undefined` when it should
   * end.
   */
  next(): StorageJob | undefined {
    for (;;) {
      // Rung before this look: what it rang for is seen below. Rung later: the bell differs and the wait returns at
      // once.
      const bell = Atomics.load(this.#words, HEADER.workerBell);
      const job = this.peek();
      if (job !== undefined) return job;
      if (Atomics.load(this.#words, HEADER.isStopping) === 1) return undefined;
      Atomics.wait(this.#words, HEADER.workerBell, bell);
    }
  }

  /** The next job that is not done, without waiting; `undefined` when there is none. Any thread may look. */
  peek(): StorageJob | undefined {
    const completed = Atomics.load(this.#words, HEADER.completed);
    if (Atomics.load(this.#words, HEADER.submitted) === completed) return undefined;
    const slot = this.#slot(completed);
    const kind = KINDS[this.#word(slot + SLOT.kind)] ?? "flush";
    if (kind === "flush") return { kind };
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
    this.#ring(HEADER.deviceBell);
  }

  /** Blocks until `isThere`; false after `timeoutMs` and when the worker has ended without it. */
  #waitUntil(timeoutMs: number, isThere: () => boolean): boolean {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const bell = Atomics.load(this.#words, HEADER.deviceBell);
      // The stage first: a worker finishes its jobs, then ends.
      const hasEnded = this.stage === STORAGE_STAGE.ended;
      if (isThere()) return true;
      const left = deadline - performance.now();
      if (hasEnded || left <= 0) return false;
      Atomics.wait(this.#words, HEADER.deviceBell, bell, left);
    }
  }

  #ring(bell: number): void {
    Atomics.add(this.#words, bell, 1);
    Atomics.notify(this.#words, bell);
  }

  #slot(counter: number): number {
    return HEADER.words + ((counter >>> 0) % CAPACITY) * SLOT.words;
  }

  #word(index: number): number {
    return (this.#words[index] ?? 0) >>> 0;
  }
}
