import type { GuestMemory } from "../base/guest-memory.ts";
import { type Gpa, gpa } from "../base/units.ts";
import { type Chain, type DescriptorTable, readChain, VIRTQ_DESC_BYTES } from "./chain.ts";

/** Bits of the rings' flags, used without VIRTIO_F_EVENT_IDX. VIRTIO 1.2 §2.7.6, §2.7.8 */
const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
const VIRTQ_USED_F_NO_NOTIFY = 1;

/** Rounds of one drain before it lets the rest of the device thread run. */
const ROUNDS_PER_TURN = 8;
/** Buffers of one drain, likewise: finding one takes some 100 ns, and a chain may have as many as the queue. */
const BUFFERS_PER_TURN = 4096;

/** Where the three parts of a split virtqueue are. VIRTIO 1.2 §2.7 */
export interface VirtqueueAddresses {
  /** Descriptor table: 16 bytes a descriptor, aligned to 16. */
  readonly descriptors: Gpa;
  /** Available ring, the driver's: flags, idx, ring[size], used_event; aligned to 2. */
  readonly available: Gpa;
  /** Used ring, the device's: flags, idx, { id, len }[size], avail_event; aligned to 4. */
  readonly used: Gpa;
}

/** Where a queue's two sides are. Indices run free over 16 bits. */
export interface QueueIndices {
  /** False after the driver broke the rules of the ring. */
  readonly isLive: boolean;
  /** The driver has made chains available up to here. */
  readonly available: number;
  /** The device has taken chains up to here. */
  readonly nextAvailable: number;
  /** The device has given chains back up to here, as the driver sees it. */
  readonly used: number;
  /** Chains taken and not given back. */
  readonly inFlight: number;
}

/** What a queue is made of. */
export interface VirtqueueOptions {
  readonly memory: GuestMemory;
  /** Descriptors, a power of two. */
  readonly size: number;
  /** See {@link DescriptorTable.maxChainLength}. */
  readonly maxChainLength: number;
  readonly addresses: VirtqueueAddresses;
  readonly hasEventIndex: boolean;
  readonly hasIndirect: boolean;
  /** Sends the driver a used buffer notification. */
  readonly interrupt: () => void;
  /** The driver broke the rules; called once, the queue is dead when it is. `reason` holds no numbers. */
  readonly failed: (reason: string) => void;
  /** Runs `work` in the device thread's next turn. Without it a drain goes on until the queue is empty. */
  readonly defer?: ((work: () => void) => void) | undefined;
}

/**
 * Judges where a driver wants its queue.
 *
 * @returns What is wrong, without numbers; `undefined` when all three parts are aligned and lie in RAM.
 */
export function checkQueueAddresses(
  memory: GuestMemory,
  size: number,
  { descriptors, available, used }: VirtqueueAddresses,
): string | undefined {
  if (descriptors % 16 !== 0 || !memory.contains(descriptors, VIRTQ_DESC_BYTES * size)) {
    return "the descriptor table is misaligned or outside RAM";
  }
  if (available % 2 !== 0 || !memory.contains(available, 6 + 2 * size)) {
    return "the available ring is misaligned or outside RAM";
  }
  if (used % 4 !== 0 || !memory.contains(used, 6 + 8 * size)) return "the used ring is misaligned or outside RAM";
  return undefined;
}

/**
 * The device's side of a split virtqueue, for one activation. VIRTIO 1.2 §2.7
 *
 * Who writes what: the driver the descriptor table and the available ring, the device the used ring. Indices run free
 * over 16 bits; the slot is the index modulo the size. Loads and stores of the rings are in program order on x86-64,
 * except a store followed by a load of another address. Those two places have a fence and tell the race.
 */
export class Virtqueue implements Disposable {
  readonly size: number;
  readonly #memory: GuestMemory;
  readonly #table: DescriptorTable;
  readonly #available: number;
  readonly #used: number;
  readonly #options: VirtqueueOptions;
  #nextAvailable = 0; // the chain to take next
  #seenAvailable = 0; // the driver's idx when we last looked
  #nextUsed = 0; // where the next completion goes
  #publishedUsed = 0; // the idx the driver sees
  #inFlight = 0;
  #isLive = true;
  #isDraining = false;
  #isPutOff = false; // a drain waits for the next turn

  /** The addresses must have passed {@link checkQueueAddresses}. */
  constructor(options: VirtqueueOptions) {
    const { memory, size, maxChainLength, addresses, hasIndirect } = options;
    this.size = size;
    this.#memory = memory;
    this.#table = { memory, address: addresses.descriptors, size, maxChainLength, hasIndirect };
    this.#available = addresses.available;
    this.#used = addresses.used;
    this.#options = options;
  }

  /**
   * False after {@link close} and after the driver broke the rules: the guest's memory is then no longer this queue's.
   */
  get isLive(): boolean {
    return this.#isLive;
  }

  /** Where device and driver are in the rings; plain data. */
  inspect(): QueueIndices {
    return {
      isLive: this.#isLive,
      // The driver's own idx, as it is in guest memory now; a queue that is dead is not looked at.
      available: this.#isLive ? (this.#memory.readU16(gpa(this.#available + 2)) ?? 0) : this.#seenAvailable,
      nextAvailable: this.#nextAvailable,
      used: this.#publishedUsed,
      inFlight: this.#inFlight,
    };
  }

  get memory(): GuestMemory {
    return this.#memory;
  }

  /** Ends this queue: nothing is taken from it or put in it any more, even by a holder of a reference. */
  close(): void {
    this.#isLive = false;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * The driver broke the rules (of the ring, or of a request's form where there is no way to answer): the device needs
   * a reset.
   */
  fail(reason: string): void {
    if (!this.#isLive) return;
    this.#isLive = false;
    this.#options.failed(reason);
  }

  /**
   * Takes the next chain; `undefined` when there is none or the queue is dead. Each is to be given back by
   * {@link complete}.
   */
  pop(): Chain | undefined {
    if (!this.#isLive) return undefined;
    if (this.#nextAvailable === this.#seenAvailable && !this.#look()) return undefined;
    if (this.#inFlight >= this.size) {
      this.fail("more chains are in flight than the queue holds");
      return undefined;
    }
    const slot = this.#nextAvailable % this.size;
    const head = this.#memory.readU16(gpa(this.#available + 4 + 2 * slot)) ?? this.size;
    const chain = readChain(this.#table, head);
    if (chain.kind === "malformed") {
      this.fail(chain.reason);
      return undefined;
    }
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    this.#inFlight++;
    return chain;
  }

  /**
   * Gives a chain back. During {@link drain} the driver sees it at the end of the round, with all others of the round;
   * otherwise now.
   *
   * @param writtenBytes How much of the writable part was written, from its start.
   */
  complete(chain: Chain, writtenBytes: number): void {
    if (!this.#isLive) return;
    this.#inFlight--;
    const element = this.#used + 4 + 8 * (this.#nextUsed % this.size);
    this.#memory.writeU32(gpa(element), chain.head);
    this.#memory.writeU32(gpa(element + 4), writtenBytes);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    if (!this.#isDraining) this.publish();
  }

  /** Shows the driver what was completed, and interrupts it if it asked for that. */
  publish(): void {
    if (!this.#isLive || this.#nextUsed === this.#publishedUsed) return;
    const old = this.#publishedUsed;
    this.#publishedUsed = this.#nextUsed;
    this.#memory.writeU16(gpa(this.#used + 2), this.#publishedUsed);
    // The driver, about to sleep, writes used_event (or clears its flag), fences and looks at idx; we have written idx,
    // fence and look at used_event. If its write is first, we see it and interrupt. If our idx is first, it sees the
    // idx and does not sleep. Without the two fences both could read the old value and the completion would lie there
    // unseen.
    this.#memory.fence();
    if (this.#wantsInterrupt(old, this.#publishedUsed)) this.#options.interrupt();
  }

  /**
   * Asks for a notification of the next chain.
   *
   * @returns True when there is a chain already: take it, for it no notification comes.
   */
  requestNotification(): boolean {
    if (!this.#isLive) return false;
    if (this.#options.hasEventIndex) {
      this.#memory.writeU16(gpa(this.#used + 4 + 8 * this.size), this.#nextAvailable);
    } else {
      this.#memory.writeU16(gpa(this.#used), 0);
    }
    // The driver writes idx, fences and looks at avail_event (or the flag); we have written avail_event, fence and look
    // at idx. If its idx is first, we see the chain here. If our avail_event is first, it sees that and notifies.
    // Without the fences both could miss.
    this.#memory.fence();
    return this.#nextAvailable !== this.#seenAvailable || this.#look();
  }

  /**
   * Takes chains until there are none, with notifications off meanwhile and on afterwards, and publishes what was
   * completed once a round.
   *
   * A round takes at most `size` chains. A turn of the device thread takes at most {@link ROUNDS_PER_TURN} rounds,
   * {@link BUFFERS_PER_TURN} buffers and the bytes given here. It may exceed the last two by one chain. Then other
   * devices have their turn. One further turn at most is asked for, however often the guest notifies meanwhile: it
   * finds what was made available until then.
   *
   * @param bytesPerTurn How many bytes chains may move in one turn.
   * @param handle Answers how many bytes it has moved now.
   */
  drain(bytesPerTurn: number, handle: (chain: Chain) => number): void {
    if (this.#isPutOff) return;
    const { defer } = this.#options;
    let bytes = bytesPerTurn;
    let buffers = BUFFERS_PER_TURN;
    for (let round = 1; this.#isLive; round++) {
      // With EVENT_IDX the flag must stay 0; an avail_event that we leave behind has the same effect (§2.7.10.1).
      if (!this.#options.hasEventIndex) this.#memory.writeU16(gpa(this.#used), VIRTQ_USED_F_NO_NOTIFY);
      this.#isDraining = true;
      for (let taken = 0; taken < this.size; taken++) {
        const chain = this.pop();
        if (chain === undefined) break;
        bytes -= handle(chain);
        buffers -= chain.readable.length + chain.writable.length;
        if ((bytes <= 0 || buffers <= 0) && defer !== undefined) break;
      }
      this.#isDraining = false;
      this.publish();
      if (!this.requestNotification()) return;
      if (defer !== undefined && (round >= ROUNDS_PER_TURN || bytes <= 0 || buffers <= 0)) {
        this.#isPutOff = true;
        defer(() => {
          this.#isPutOff = false;
          this.drain(bytesPerTurn, handle);
        });
        return;
      }
    }
  }

  /** Looks at the driver's idx; true when there is something to take. */
  #look(): boolean {
    const index = this.#memory.readU16(gpa(this.#available + 2)) ?? this.#nextAvailable;
    if (((index - this.#nextAvailable) & 0xffff) > this.size) {
      this.fail("the available index is further ahead than the queue is long");
      return false;
    }
    this.#seenAvailable = index;
    return index !== this.#nextAvailable;
  }

  /** VIRTIO 1.2 §2.7.7.2; `old` to `now` (exclusive) are the slots published by this step. */
  #wantsInterrupt(old: number, now: number): boolean {
    if (this.#options.hasEventIndex) {
      const usedEvent = this.#memory.readU16(gpa(this.#available + 4 + 2 * this.size)) ?? 0;
      return ((now - usedEvent - 1) & 0xffff) < ((now - old) & 0xffff);
    }
    const flags = this.#memory.readU16(gpa(this.#available)) ?? 0;
    return (flags & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
  }
}
