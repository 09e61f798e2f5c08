import { allOnes, type Halves, type Width } from "../../base/units.ts";

/*
 * The one synchronous call of the program: a vCPU thread sends the device thread a port or MMIO access and waits for
 * the answer.
 *
 * | word    | writer | meaning                                                                                       |
 * | request | vCPU   | sequence number of its latest access                                                          |
 * | reply   | device | sequence number of the latest answered access; equal to `request` when idle                   |
 * | kind    | vCPU   | ACCESS.*                                                                                      |
 * | width   | vCPU   | 1, 2 or 4                                                                                     |
 * | address | vCPU   | two words, low first                                                                          |
 * | data    | both   | the value written, or, before `reply` is stored, the value read                               |
 * | high    | both   | the upper half of an eight-byte access; `data` is the lower one                                |
 * | waits   | vCPU   | 1 while it is in Atomics.wait: only then the device thread notifies                           |
 *
 * Payload is stored before its sequence number and loaded after it; Atomics orders the two. Each vCPU has a line of its
 * own, so that two vCPUs never share a cache line.
 *
 * Falling asleep is the one race. The device thread stores `sleeping = 1`, looks at every mailbox once more, then
 * blocks in epoll_wait. A vCPU stores `request`, then loads `sleeping`. Both are sequentially consistent, so in either
 * order nothing is lost:
 *
 * - vCPU first: the device thread's last look sees the request, and it does not sleep.
 * - Device first: the vCPU sees `sleeping = 1` and signals the doorbell. The eventfd keeps the signal, so epoll_wait
 *   returns at once even if it is entered only afterwards.
 * - Both at once: both happen, and the spare signal costs one empty pass.
 */

/**
 * What an access does. A `memoryFault` has no address: KVM met memory that does not answer, and the reply is a count of
 * withdrawals. A wide access has eight bytes and is told as of four: the upper ones are `highHalf` of both ends.
 */
export const ACCESS = {
  portRead: 0,
  portWrite: 1,
  mmioRead: 2,
  mmioWrite: 3,
  memoryFault: 4,
  mmioReadWide: 5,
  mmioWriteWide: 6,
} as const;
export type Access = (typeof ACCESS)[keyof typeof ACCESS];

const WORDS_PER_LINE = 16; // 64 bytes
const REQUEST = 0;
const REPLY = 1;
const KIND = 2;
const WIDTH = 3;
const ADDRESS_LOW = 4;
const ADDRESS_HIGH = 5;
const DATA = 6;
const WAITS = 7;
const HIGH = 8;

/** Index of `sleeping` in the first line, which is the device thread's own. */
const SLEEPING = 0;

/** A shared buffer for so many vCPUs: one line for the device thread, one for each vCPU. */
export function createMailboxes(vcpuCount: number): SharedArrayBuffer {
  return new SharedArrayBuffer((vcpuCount + 1) * WORDS_PER_LINE * 4);
}

/** How often a vCPU looks for its answer before it sleeps, at most. */
export interface SpinLimits {
  /** While the device thread is at work or polling: the answer is a few hundred nanoseconds away. */
  readonly awake: number;
  /** While it has to be woken first: only worth it where a core is spare. */
  readonly asleep: number;
}

/** Loads that cost nothing worth saving: some two microseconds. */
const LEAST_SPINS = 100;
/** Every so many waits the whole of it is tried again: a processor may have become free. */
const PROBE_INTERVAL = 256;

/**
 * How often a waiting vCPU looks for its answer before it sleeps. It is the maximum while looks find answers. It is
 * hardly at all where they do not, because the device thread is not running. On a busy host it cannot run for as long
 * as this thread keeps looking.
 */
class SpinBudget {
  readonly #maximum: number;
  #spins: number;
  #waits = 0;

  /** @param maximum 0 for never looking. */
  constructor(maximum: number) {
    this.#maximum = maximum;
    this.#spins = maximum;
  }

  /** Loads for the next wait. */
  next(): number {
    this.#waits = (this.#waits + 1) % PROBE_INTERVAL;
    return this.#waits === 0 ? this.#maximum : this.#spins;
  }

  /** The answer came while this thread looked. */
  found(): void {
    if (this.#spins < this.#maximum) this.#spins = Math.min(this.#maximum, this.#spins * 2);
  }

  /** It did not. */
  missed(): void {
    this.#spins = Math.min(this.#maximum, Math.max(LEAST_SPINS, this.#spins >>> 1));
  }
}

/** Called when an answer takes longer than a second: with the access, once for each second. */
export type SlowAccess = (kind: Access, address: number, width: Width, seconds: number) => void;

/** The vCPU thread's end. */
export class MailboxClient {
  readonly #words: Int32Array;
  readonly #base: number;
  readonly #ringDoorbell: () => void;
  readonly #isStopping: () => boolean;
  readonly #onSlow: SlowAccess;
  readonly #awake: SpinBudget;
  readonly #asleep: SpinBudget;
  /** The last access was given up, and nothing has been asked since. */
  #hasGivenUp = false;
  /** The upper half of a wide access: set before a write, and by a read. */
  highHalf = 0xffff_ffff;

  /**
   * @param spins Loads of `reply` before this thread sleeps.
   * @param isStopping Ends a wait that will not be answered: the access then reads all ones.
   */
  constructor(
    shared: SharedArrayBuffer,
    vcpu: number,
    spins: SpinLimits,
    ringDoorbell: () => void,
    isStopping: () => boolean,
    onSlow: SlowAccess,
  ) {
    this.#words = new Int32Array(shared);
    this.#base = (vcpu + 1) * WORDS_PER_LINE;
    this.#awake = new SpinBudget(spins.awake);
    this.#asleep = new SpinBudget(spins.asleep);
    this.#ringDoorbell = ringDoorbell;
    this.#isStopping = isStopping;
    this.#onSlow = onSlow;
  }

  /** Does one access; answers what was read, unsigned (for a write, the value written). */
  access(kind: Access, address: number, width: Width, value: number): number {
    if (this.#hasGivenUp) {
      // A string instruction has thousands of accesses: each would wait as long as the last.
      if (this.#isStopping()) return allOnes(width);
      this.#hasGivenUp = false;
    }
    const words = this.#words;
    const base = this.#base;
    words[base + KIND] = kind;
    words[base + WIDTH] = width;
    words[base + ADDRESS_LOW] = address; // which keeps the low 32 bits
    words[base + ADDRESS_HIGH] = address / 0x1_0000_0000;
    words[base + DATA] = value;
    words[base + HIGH] = this.highHalf;
    const sequence = (Atomics.load(words, base + REQUEST) + 1) | 0;
    Atomics.store(words, base + REQUEST, sequence);
    const isAsleep = Atomics.load(words, SLEEPING) === 1;
    if (isAsleep) this.#ringDoorbell();
    const budget = isAsleep ? this.#asleep : this.#awake;
    for (let spin = budget.next(); spin > 0; spin--) {
      if (Atomics.load(words, base + REPLY) !== sequence) continue;
      budget.found();
      this.highHalf = (words[base + HIGH] ?? 0) >>> 0;
      return Atomics.load(words, base + DATA) >>> 0;
    }
    budget.missed();
    Atomics.store(words, base + WAITS, 1);
    for (let seconds = 1; ; seconds++) {
      // The condition is checked after `waits` was stored, and Atomics.wait checks it once more. An answer stored
      // before either check is seen. One stored after both notifies.
      const reply = Atomics.load(words, base + REPLY);
      if (reply === sequence) break;
      const outcome = Atomics.wait(words, base + REPLY, reply, 1000);
      if (outcome !== "timed-out") {
        seconds--;
        continue;
      }
      if (this.#isStopping()) {
        Atomics.store(words, base + WAITS, 0);
        this.#hasGivenUp = true;
        return allOnes(width);
      }
      this.#onSlow(kind, address, width, seconds);
    }
    Atomics.store(words, base + WAITS, 0);
    this.highHalf = (words[base + HIGH] ?? 0) >>> 0;
    return Atomics.load(words, base + DATA) >>> 0;
  }

  /** Reads eight bytes. */
  readWide(address: number): Halves {
    this.highHalf = 0xffff_ffff; // also what a read that is given up answers
    const low = this.access(ACCESS.mmioReadWide, address, 4, 0);
    return { low, high: this.highHalf };
  }

  /** Writes eight bytes. */
  writeWide(address: number, value: Halves): void {
    this.highHalf = value.high;
    this.access(ACCESS.mmioWriteWide, address, 4, value.low);
  }
}

/** Does one access on the buses; answers the value read. */
export type AccessHandler = (vcpu: number, kind: Access, address: number, width: Width, value: number) => number;

/** The device thread's end. */
export class MailboxServer {
  readonly #words: Int32Array;
  readonly vcpuCount: number;
  /** The upper half of the wide access that is being done: the one written, or all ones for the handler to replace. */
  highHalf = 0xffff_ffff;

  constructor(shared: SharedArrayBuffer) {
    this.#words = new Int32Array(shared);
    this.vcpuCount = shared.byteLength / (WORDS_PER_LINE * 4) - 1;
  }

  /** True when some vCPU waits for an answer. */
  get hasRequests(): boolean {
    for (let base = WORDS_PER_LINE; base < this.#words.length; base += WORDS_PER_LINE) {
      if (Atomics.load(this.#words, base + REQUEST) !== Atomics.load(this.#words, base + REPLY)) return true;
    }
    return false;
  }

  /** Answers every waiting access once; how many there were. */
  serve(handle: AccessHandler): number {
    const words = this.#words;
    let served = 0;
    for (let vcpu = 0; vcpu < this.vcpuCount; vcpu++) {
      const base = (vcpu + 1) * WORDS_PER_LINE;
      const sequence = Atomics.load(words, base + REQUEST);
      if (sequence === Atomics.load(words, base + REPLY)) continue;
      // Casts: the client stores only an Access and a Width there, and every index lies inside the buffer.
      const kind = words[base + KIND] as Access;
      const width = words[base + WIDTH] as Width;
      const low = (words[base + ADDRESS_LOW] as number) >>> 0;
      const high = (words[base + ADDRESS_HIGH] as number) >>> 0;
      const value = (words[base + DATA] as number) >>> 0;
      this.highHalf = (words[base + HIGH] as number) >>> 0;
      words[base + DATA] = handle(vcpu, kind, high * 0x1_0000_0000 + low, width, value);
      words[base + HIGH] = this.highHalf;
      Atomics.store(words, base + REPLY, sequence);
      if (Atomics.load(words, base + WAITS) === 1) Atomics.notify(words, base + REPLY);
      served++;
    }
    return served;
  }

  /** Says that the thread is about to block; the caller looks at {@link hasRequests} once more before it does. */
  fallAsleep(): void {
    Atomics.store(this.#words, SLEEPING, 1);
  }

  wakeUp(): void {
    Atomics.store(this.#words, SLEEPING, 0);
  }
}
