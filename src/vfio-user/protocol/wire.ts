import { HostError } from "../../base/errors.ts";
import type { Fd } from "../../base/units.ts";
import { closeAll, type DescriptorSocket, HUNG_UP } from "../../host/descriptor-socket.ts";
import { SyscallError } from "../../host/errors.ts";
import { MAX_DESCRIPTORS } from "../../host/rights.ts";
import {
  commandName,
  DEFAULT_MAX_DATA_XFER_SIZE,
  USER_HEADER,
  VFIO_USER_FLAG_ERROR,
  VFIO_USER_FLAG_NO_REPLY,
  VFIO_USER_FLAG_TYPE,
  VFIO_USER_TYPE_COMMAND,
  VFIO_USER_TYPE_REPLY,
} from "./abi.ts";

/** A whole message. The receiver owns the descriptors. */
export interface UserMessage {
  readonly id: number;
  readonly command: number;
  readonly isReply: boolean;
  /** Set in commands whose sender does not want to know. */
  readonly wantsNoReply: boolean;
  /** An errno; 0 in replies that are none of failure, and in commands. */
  readonly error: number;
  readonly payload: Uint8Array;
  readonly descriptors: readonly Fd[];
}

/** A message on its way out. */
export type OutgoingMessage = Pick<UserMessage, "id" | "command" | "isReply"> &
  Partial<Pick<UserMessage, "wantsNoReply" | "error" | "payload" | "descriptors">>;

/** What a receive found: a message, nothing in time, or the end of the connection. */
export type Arrival = UserMessage | "nothing" | "closed";

/** Room for the structs around a transfer. */
const MAX_PAYLOAD: number = DEFAULT_MAX_DATA_XFER_SIZE + 4096;
/** Waits are cut into pieces of so many milliseconds, between which the cut-off is looked at. */
const WAIT_SLICE_MS = 100;
/** Messages that may pile up while this side cannot send. */
const MAX_BACKLOG = 64;
const NO_BYTES: Uint8Array = new Uint8Array(0);

/**
 * vfio-user messages over a socket, for both sides. Headers and payloads are received one by one, never beyond a
 * message's end: so descriptors belong to the message they came with. Nothing waits longer than its deadline, a time of
 * `performance.now()`.
 *
 * Malformed input throws a HostError; the connection cannot be used afterwards.
 */
export class UserWire implements Disposable {
  readonly #socket: DescriptorSocket;
  readonly #cutOff: () => number;
  readonly #header: DataView = new DataView(new ArrayBuffer(USER_HEADER.size));
  readonly #headerBytes: Uint8Array = new Uint8Array(this.#header.buffer);
  #payload: Uint8Array | undefined; // of the message under way, once its header is there
  #filled = 0;
  #descriptors: Fd[] = [];
  readonly #backlog: UserMessage[] = [];

  /**
   * Owns the socket from now on.
   *
   * @param cutOff A time of `performance.now()` after which nothing waits any more, whatever its deadline; it may
   *   change.
   */
  constructor(socket: DescriptorSocket, cutOff: () => number = () => Number.POSITIVE_INFINITY) {
    this.#socket = socket;
    this.#cutOff = cutOff;
  }

  /** For watching. */
  get fd(): Fd {
    return this.#socket.fd;
  }

  /** Whether messages have arrived that no watch of the socket will tell of. */
  get hasBacklog(): boolean {
    return this.#backlog.length > 0;
  }

  /** @throws HostError for a malformed message. */
  receive(deadline: number): Arrival {
    const waiting = this.#backlog.shift();
    if (waiting !== undefined) return waiting;
    for (;;) {
      const arrival = this.#take();
      if (arrival !== "nothing") return arrival;
      const left = this.#left(deadline);
      if (left <= 0) return "nothing";
      this.#socket.wait("input", Math.min(left, WAIT_SLICE_MS));
    }
  }

  /**
   * Sends a whole message. While there is no room it takes in what the other side sends, which may be waiting for just
   * that.
   *
   * @throws HostError when the other side has hung up, does not take it in time, or sends a malformed message
   *   meanwhile.
   */
  send(message: OutgoingMessage, deadline: number): void {
    let left: Uint8Array = encode(message);
    let descriptors = message.descriptors ?? [];
    for (;;) {
      const count = this.#socket.send(left, descriptors);
      if (count > 0) descriptors = [];
      if (count === left.length) return;
      left = left.subarray(count);
      const time = this.#left(deadline);
      if (time <= 0)
        throw new HostError(
          "TSVMM_USER_DEVICE_SILENT",
          "Cannot send a vfio-user message: the other side does not read",
        );
      if (this.#socket.wait("both", Math.min(time, WAIT_SLICE_MS)).isReadable) this.#keep();
    }
  }

  /** Closes the socket, and descriptors of messages that were not taken. */
  close(): void {
    closeAll(this.#descriptors);
    this.#descriptors = [];
    for (const { descriptors } of this.#backlog.splice(0)) closeAll(descriptors);
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #left(deadline: number): number {
    return Math.min(deadline, this.#cutOff()) - performance.now();
  }

  #keep(): void {
    const arrival = this.#take();
    if (arrival === "closed") throw new SyscallError(HUNG_UP, "send a vfio-user message", "sendmsg", "EPIPE");
    if (arrival === "nothing") return;
    this.#backlog.push(arrival);
    if (this.#backlog.length > MAX_BACKLOG) {
      throw new HostError(
        "TSVMM_USER_DEVICE_SILENT",
        "Cannot send a vfio-user message: the other side sends and does not read",
      );
    }
  }

  /** Takes in what is there, up to the end of one message. */
  #take(): Arrival {
    for (;;) {
      const target: Uint8Array = this.#payload ?? this.#headerBytes;
      if (this.#filled < target.length) {
        const received = this.#socket.receive(target.subarray(this.#filled));
        if (received.kind === "closed") return "closed";
        if (received.kind === "nothing") return "nothing";
        this.#filled += received.count;
        this.#descriptors.push(...received.descriptors);
        if (this.#descriptors.length > MAX_DESCRIPTORS) throw malformed("it brings too many descriptors");
        if (this.#filled < target.length) continue;
      }
      if (this.#payload !== undefined) return this.#finish(this.#payload);
      this.#payload = this.#makePayload();
      this.#filled = 0;
    }
  }

  #makePayload(): Uint8Array {
    const sizeBytes = this.#header.getUint32(USER_HEADER.message_size, true) - USER_HEADER.size;
    if (sizeBytes < 0 || sizeBytes > MAX_PAYLOAD) throw malformed(`its size is ${sizeBytes + USER_HEADER.size} bytes`);
    const type = this.#header.getUint32(USER_HEADER.flags, true) & VFIO_USER_FLAG_TYPE;
    if (type > VFIO_USER_TYPE_REPLY) throw malformed(`its type is ${type}`);
    // A buffer of its own: small typed arrays without one can be moved by V8, and the kernel writes to an address.
    return sizeBytes === 0 ? NO_BYTES : new Uint8Array(new ArrayBuffer(sizeBytes));
  }

  #finish(payload: Uint8Array): UserMessage {
    const flags = this.#header.getUint32(USER_HEADER.flags, true);
    // Only replies have errors. rust-vmm's vfio-user sends those without the reply's type.
    const isReply = (flags & (VFIO_USER_FLAG_TYPE | VFIO_USER_FLAG_ERROR)) !== VFIO_USER_TYPE_COMMAND;
    const error = isReply && (flags & VFIO_USER_FLAG_ERROR) !== 0 ? this.#header.getUint32(USER_HEADER.error, true) : 0;
    const message: UserMessage = {
      id: this.#header.getUint16(USER_HEADER.message_id, true),
      command: this.#header.getUint16(USER_HEADER.command, true),
      isReply,
      wantsNoReply: (flags & VFIO_USER_FLAG_NO_REPLY) !== 0,
      // An error without a number is one all the same: EIO.
      error: isReply && (flags & VFIO_USER_FLAG_ERROR) !== 0 && error === 0 ? 5 : error,
      payload,
      descriptors: this.#descriptors,
    };
    this.#payload = undefined;
    this.#filled = 0;
    this.#descriptors = [];
    return message;
  }
}

function encode(message: OutgoingMessage): Uint8Array {
  const payload = message.payload ?? NO_BYTES;
  const error = message.error ?? 0;
  const view = new DataView(new ArrayBuffer(USER_HEADER.size + payload.length));
  view.setUint16(USER_HEADER.message_id, message.id, true);
  view.setUint16(USER_HEADER.command, message.command, true);
  view.setUint32(USER_HEADER.message_size, view.byteLength, true);
  const type = message.isReply ? VFIO_USER_TYPE_REPLY : VFIO_USER_TYPE_COMMAND;
  const noReply = message.wantsNoReply === true ? VFIO_USER_FLAG_NO_REPLY : 0;
  view.setUint32(USER_HEADER.flags, type | noReply | (error === 0 ? 0 : VFIO_USER_FLAG_ERROR), true);
  view.setUint32(USER_HEADER.error, error, true);
  const bytes = new Uint8Array(view.buffer);
  bytes.set(payload, USER_HEADER.size);
  return bytes;
}

function malformed(what: string): HostError {
  return new HostError("TSVMM_USER_DEVICE_PROTOCOL", `Cannot understand a vfio-user message: ${what}`);
}

/** Says what an unexpected message is. */
export const describeMessage = ({ id, command, isReply }: UserMessage): string =>
  `${isReply ? "a reply to" : "a"} ${commandName(command)} with id ${id}`;
