import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import { KIB, MIB } from "../../base/units.ts";
import { closeAll } from "../../host/descriptor-socket.ts";
import { setU64 } from "../../vfio/calls.ts";
import {
  DEFAULT_MAX_DATA_XFER_SIZE,
  USER_DMA_ACCESS,
  VFIO_USER_DMA_READ,
  VFIO_USER_DMA_WRITE,
} from "../protocol/abi.ts";
import type { UserMessage, UserWire } from "../protocol/wire.ts";
import type { RemoteMemory } from "./client-memory.ts";
import { Commands, type CommandTargets } from "./commands.ts";

export interface ConnectionParts extends CommandTargets {
  readonly wire: Pick<UserWire, "hasBacklog" | "receive" | "send" | "close">;
  readonly report: Report;
  /** The clock of the wire's deadlines; `performance.now()` when absent. */
  readonly now?: () => number;
  /** The client has hung up, or was hung up on. Called once. */
  readonly onClosed: () => void;
}

/**
 * How long a client may leave the server's messages unread and DMA requests unanswered, in milliseconds. It is the sum
 * of a turn of the event loop, which serves nothing else meanwhile, not even a signal.
 */
const PATIENCE_MS = 5000;
const MESSAGES_PER_PUMP = 64;
/** What a client may send while it owes an answer. QEMU posts a guest's writes meanwhile. */
const MAX_DEFERRED = 1024;
const MAX_DEFERRED_BYTES: number = 16 * MIB;
/** What a descriptor counts as: the process may have some thousand. */
const DESCRIPTOR_BYTES: number = 64 * KIB;

/**
 * One client: its commands in their order, each answered before the next is looked at. A client that breaks the
 * protocol is refused with an errno, or hung up on where nothing can be understood any more.
 */
export class Connection implements RemoteMemory, Disposable {
  readonly #parts: ConnectionParts;
  readonly #commands: Commands;
  readonly #now: () => number;
  /** Commands that came while we waited for a reply. */
  readonly #deferred: UserMessage[] = [];
  #deferredBytes = 0;
  /** Milliseconds that this turn of the event loop has waited for the client. */
  #waitedMs = 0;
  /** It is going to be hung up on. */
  #isLost = false;
  #isClosed = false;
  #nextId = 0;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    this.#commands = new Commands(parts);
    this.#now = parts.now ?? (() => performance.now());
  }

  /** Answers what has come. To be called when the socket is readable. */
  pump(): void {
    try {
      for (let taken = 0; taken < MESSAGES_PER_PUMP && !this.#isClosed && !this.#isLost; taken++) {
        const arrival = this.#takeDeferred() ?? this.#parts.wire.receive(0);
        if (arrival === "nothing") return;
        if (arrival === "closed") return this.close();
        if (arrival.isReply) {
          closeAll(arrival.descriptors);
          throw new HostError(
            "TSVMM_USER_DEVICE_PROTOCOL",
            "Cannot go on with the client: it answers a request that was not made",
          );
        }
        this.#serve(arrival);
      }
      // What is no longer in the socket rings no bell.
      if (this.#deferred.length > 0 || this.#parts.wire.hasBacklog) setImmediate(() => this.pump());
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#parts.report("warn", error.message);
      this.close();
    }
  }

  /** Hangs up; calling it twice is harmless. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const { descriptors } of this.#deferred.splice(0)) closeAll(descriptors);
    this.#parts.wire.close();
    this.#parts.onClosed();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  // RemoteMemory: bytes that the client does not share

  read(address: number, sizeBytes: number): Uint8Array | undefined {
    const bytes = new Uint8Array(sizeBytes);
    for (let done = 0; done < sizeBytes; ) {
      const count = Math.min(sizeBytes - done, this.#maxTransferBytes);
      const reply = this.#ask(VFIO_USER_DMA_READ, dmaAccess(address + done, count));
      const data = reply?.subarray(USER_DMA_ACCESS.size);
      if (data?.length !== count) return undefined;
      bytes.set(data, done);
      done += count;
    }
    return bytes;
  }

  write(address: number, bytes: Uint8Array): boolean {
    for (let done = 0; done < bytes.length; ) {
      const count = Math.min(bytes.length - done, this.#maxTransferBytes);
      const request = dmaAccess(address + done, count, bytes.subarray(done, done + count));
      if (this.#ask(VFIO_USER_DMA_WRITE, request) === undefined) return false;
      done += count;
    }
    return true;
  }

  /** Nothing is mapped before VERSION, so nothing is asked for either. */
  get #maxTransferBytes(): number {
    return this.#commands.agreement?.maxTransferBytes ?? DEFAULT_MAX_DATA_XFER_SIZE;
  }

  #serve(message: UserMessage): void {
    const { id, command, wantsNoReply } = message;
    const answer = this.#commands.answer(message);
    if (this.#isClosed || wantsNoReply) return;
    const outcome = typeof answer === "number" ? { error: answer } : answer;
    this.#patiently((deadline) => this.#parts.wire.send({ id, command, isReply: true, ...outcome }, deadline));
  }

  /** Does what may wait for the client, until a deadline of `performance.now()`, and counts how long it took. */
  #patiently<Result>(work: (deadline: number) => Result): Result {
    const start = this.#now();
    try {
      return work(start + PATIENCE_MS - this.#waitedMs);
    } finally {
      if (this.#waitedMs === 0) {
        setImmediate(() => {
          this.#waitedMs = 0;
        });
      }
      this.#waitedMs += this.#now() - start;
    }
  }

  #takeDeferred(): UserMessage | undefined {
    const message = this.#deferred.shift();
    if (message !== undefined) this.#deferredBytes -= weight(message);
    return message;
  }

  /** @throws HostError when there are too many. */
  #defer(message: UserMessage): void {
    this.#deferredBytes += weight(message);
    // With nothing on its way into the machine, the client's next message may be all that wakes us.
    if (this.#deferred.push(message) === 1) setImmediate(() => this.pump());
    if (this.#deferred.length > MAX_DEFERRED || this.#deferredBytes > MAX_DEFERRED_BYTES) {
      throw new HostError("TSVMM_USER_DEVICE_SILENT", "Cannot reach the client's memory: it sends and does not answer");
    }
  }

  /**
   * Asks the client and waits; its commands meanwhile are kept for later. @returns `undefined` when it refuses or is
   * gone.
   */
  #ask(command: number, payload: Uint8Array): Uint8Array | undefined {
    if (this.#isClosed || this.#isLost) return undefined;
    this.#nextId = (this.#nextId + 1) & 0xffff;
    const id = this.#nextId;
    try {
      return this.#patiently((deadline) => {
        this.#parts.wire.send({ id, command, isReply: false, payload }, deadline);
        for (;;) {
          const arrival = this.#parts.wire.receive(deadline);
          if (typeof arrival === "string")
            throw new HostError("TSVMM_USER_DEVICE_SILENT", "Cannot reach the client's memory: it does not answer");
          if (!arrival.isReply) {
            this.#defer(arrival);
            continue;
          }
          closeAll(arrival.descriptors);
          if (arrival.id !== id || arrival.command !== command) {
            throw new HostError(
              "TSVMM_USER_DEVICE_PROTOCOL",
              "Cannot reach the client's memory: it answers something else",
            );
          }
          return arrival.error === 0 ? arrival.payload : undefined;
        }
      });
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#parts.report("warn", error.message);
      // Later: a device is at work further up, and its memory must not go under its hands. It asks no more meanwhile.
      this.#isLost = true;
      setImmediate(() => this.close());
      return undefined;
    }
  }
}

const weight = ({ payload, descriptors }: UserMessage): number =>
  payload.length + descriptors.length * DESCRIPTOR_BYTES;

function dmaAccess(address: number, count: number, data?: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(USER_DMA_ACCESS.size + (data?.length ?? 0));
  const view = new DataView(bytes.buffer);
  setU64(view, USER_DMA_ACCESS.address, address);
  setU64(view, USER_DMA_ACCESS.count, count);
  if (data !== undefined) bytes.set(data, USER_DMA_ACCESS.size);
  return bytes;
}
