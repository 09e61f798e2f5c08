/*
 * The words a vCPU thread shares with the control thread: one line of 64 bytes each.
 *
 * | word     | writer  | meaning                                                        |
 * | stop     | control | 1: leave the run loop at the next exit                         |
 * | tid      | vCPU    | its thread id, published once the kick signal is blocked; 0 before |
 * | counters | vCPU    | exits by kind, only ever growing                               |
 */

/** Why KVM_RUN came back, as counted. */
export const EXIT_KINDS = ["portRead", "portWrite", "mmioRead", "mmioWrite", "halt", "interrupted", "other"] as const;
export type ExitKind = (typeof EXIT_KINDS)[number];

const WORDS_PER_LINE = 16;
const STOP = 0;
const TID = 1;
const COUNTERS = 2;

export const COUNT_PORT_READ = 0;
export const COUNT_PORT_WRITE = 1;
export const COUNT_MMIO_READ = 2;
export const COUNT_MMIO_WRITE = 3;
export const COUNT_HALT = 4;
export const COUNT_INTERRUPTED = 5;
export const COUNT_OTHER = 6;

export function createVcpuControls(vcpuCount: number): SharedArrayBuffer {
  return new SharedArrayBuffer(vcpuCount * WORDS_PER_LINE * 4);
}

/** One vCPU's line. */
export class VcpuControl {
  readonly #words: Int32Array;

  constructor(shared: SharedArrayBuffer, vcpu: number) {
    this.#words = new Int32Array(shared, vcpu * WORDS_PER_LINE * 4, WORDS_PER_LINE);
  }

  get isStopping(): boolean {
    return Atomics.load(this.#words, STOP) === 1;
  }

  setStopping(isStopping: boolean): void {
    Atomics.store(this.#words, STOP, isStopping ? 1 : 0);
  }

  /** 0 until the thread can be kicked without harm. */
  get tid(): number {
    return Atomics.load(this.#words, TID);
  }

  publishTid(tid: number): void {
    Atomics.store(this.#words, TID, tid);
  }

  /** Only the vCPU thread calls it, so a plain increment does. */
  count(kind: number): void {
    const index = COUNTERS + kind;
    this.#words[index] = (this.#words[index] ?? 0) + 1;
  }

  /** Exits so far, by kind; unsigned, wrapping at 2^32. */
  counts(): Record<ExitKind, number> {
    const read = (kind: number): number => Atomics.load(this.#words, COUNTERS + kind) >>> 0;
    return {
      portRead: read(COUNT_PORT_READ),
      portWrite: read(COUNT_PORT_WRITE),
      mmioRead: read(COUNT_MMIO_READ),
      mmioWrite: read(COUNT_MMIO_WRITE),
      halt: read(COUNT_HALT),
      interrupted: read(COUNT_INTERRUPTED),
      other: read(COUNT_OTHER),
    };
  }
}
