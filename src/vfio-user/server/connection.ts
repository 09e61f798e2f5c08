import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import type { Fd } from "../../base/units.ts";
import { closeAll } from "../../host/descriptor-socket.ts";
import { ERRNO } from "../../host/errors.ts";
import { MAX_DESCRIPTORS } from "../../host/rights.ts";
import { VFIO_PCI_CONFIG_REGION_INDEX } from "../../passthrough/backend.ts";
import {
  DEVICE_INFO,
  IRQ_INFO,
  IRQ_SET,
  REGION_INFO,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
} from "../../vfio/abi.ts";
import { getU64, setU64, vfioStruct } from "../../vfio/calls.ts";
import {
  DEFAULT_MAX_DATA_XFER_SIZE,
  USER_DMA_ACCESS,
  USER_DMA_MAP,
  USER_DMA_UNMAP,
  USER_REGION_ACCESS,
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DEVICE_GET_IRQ_INFO,
  VFIO_USER_DEVICE_GET_REGION_INFO,
  VFIO_USER_DEVICE_RESET,
  VFIO_USER_DEVICE_SET_IRQS,
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_READ,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_DMA_WRITE,
  VFIO_USER_MAJOR,
  VFIO_USER_REGION_READ,
  VFIO_USER_REGION_WRITE,
  VFIO_USER_VERSION,
} from "../protocol/abi.ts";
import { decodeVersion, encodeVersion } from "../protocol/version.ts";
import type { UserMessage, UserWire } from "../protocol/wire.ts";
import type { ClientMemory, RemoteMemory } from "./client-memory.ts";
import type { ClientInterrupts } from "./interrupts.ts";
import type { DeviceModel } from "./model.ts";

export interface ConnectionParts {
  readonly wire: UserWire;
  readonly model: DeviceModel;
  readonly memory: ClientMemory;
  readonly interrupts: ClientInterrupts;
  readonly report: Report;
  /** The client has hung up, or was hung up on. Called once. */
  readonly onClosed: () => void;
}

/** A reply: its payload, and descriptors that go along, which stay ours. */
interface Answer {
  readonly payload: Uint8Array;
  readonly descriptors?: readonly Fd[];
}

/** How long a client may leave a message of ours unread or a DMA request unanswered, in milliseconds. */
const PATIENCE_MS = 5000;
const MESSAGES_PER_PUMP = 64;
const EMPTY: Answer = { payload: new Uint8Array(0) };

/**
 * One client: its commands in their order, each answered before the next is looked at. A client that breaks the protocol is refused with
 * an errno, or hung up on where nothing can be understood any more.
 */
export class Connection implements RemoteMemory {
  readonly #parts: ConnectionParts;
  /** Commands that came while we waited for a reply. */
  readonly #deferred: UserMessage[] = [];
  #hasVersion = false;
  #isClosed = false;
  #nextId = 0;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
  }

  /** Answers what has come. To be called when the socket is readable. */
  pump(): void {
    try {
      for (let taken = 0; taken < MESSAGES_PER_PUMP && !this.#isClosed; taken++) {
        const arrival = this.#deferred.shift() ?? this.#parts.wire.receive(0);
        if (arrival === "nothing") return;
        if (arrival === "closed") return this.close();
        if (arrival.isReply) {
          closeAll(arrival.descriptors);
          throw new HostError("Cannot go on with the client: it answers what nobody asked");
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

  // RemoteMemory: bytes that the client does not share

  read(address: number, sizeBytes: number): Uint8Array | undefined {
    const bytes = new Uint8Array(sizeBytes);
    for (let done = 0; done < sizeBytes; ) {
      const count = Math.min(sizeBytes - done, DEFAULT_MAX_DATA_XFER_SIZE);
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
      const count = Math.min(bytes.length - done, DEFAULT_MAX_DATA_XFER_SIZE);
      const request = dmaAccess(address + done, count, bytes.subarray(done, done + count));
      if (this.#ask(VFIO_USER_DMA_WRITE, request) === undefined) return false;
      done += count;
    }
    return true;
  }

  #serve(message: UserMessage): void {
    const { id, command, wantsNoReply } = message;
    const answer = this.#answer(message);
    if (this.#isClosed || wantsNoReply) return;
    const outcome = typeof answer === "number" ? { error: answer } : answer;
    this.#parts.wire.send({ id, command, isReply: true, ...outcome }, performance.now() + PATIENCE_MS);
  }

  /** @returns A reply, or an errno. Descriptors of the message are taken over or closed. */
  #answer({ command, payload, descriptors }: UserMessage): Answer | number {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    if (command === VFIO_USER_DEVICE_SET_IRQS && this.#hasVersion) return this.#setIrqs(view, descriptors);
    try {
      if (command === VFIO_USER_VERSION) return this.#agree(payload);
      if (!this.#hasVersion) return ERRNO.EINVAL;
      switch (command) {
        case VFIO_USER_DMA_MAP:
          return this.#mapDma(view, descriptors);
        case VFIO_USER_DMA_UNMAP:
          return this.#unmapDma(view);
        case VFIO_USER_DEVICE_GET_INFO:
          return payload.length < DEVICE_INFO.size ? ERRNO.EINVAL : describeDevice();
        case VFIO_USER_DEVICE_GET_REGION_INFO:
          return this.#describeRegion(view);
        case VFIO_USER_DEVICE_GET_IRQ_INFO:
          return this.#describeInterrupt(view);
        case VFIO_USER_REGION_READ:
        case VFIO_USER_REGION_WRITE:
          return this.#accessRegion(view, command === VFIO_USER_REGION_WRITE);
        case VFIO_USER_DEVICE_RESET:
          this.#parts.model.reset();
          return EMPTY;
        default:
          return ERRNO.ENOSYS;
      }
    } finally {
      closeAll(descriptors);
    }
  }

  #agree(payload: Uint8Array): Answer | number {
    const offer = decodeVersion(payload);
    if (offer?.major !== VFIO_USER_MAJOR || this.#hasVersion) return ERRNO.EINVAL;
    this.#hasVersion = true;
    return {
      payload: encodeVersion({
        maxMessageDescriptors: MAX_DESCRIPTORS,
        maxTransferBytes: DEFAULT_MAX_DATA_XFER_SIZE,
      }),
    };
  }

  #mapDma(view: DataView, descriptors: readonly Fd[]): Answer | number {
    if (view.byteLength < USER_DMA_MAP.size || descriptors.length > 1) return ERRNO.EINVAL;
    const error = this.#parts.memory.map({
      address: getU64(view, USER_DMA_MAP.address),
      sizeBytes: getU64(view, USER_DMA_MAP.map_size),
      fileOffset: getU64(view, USER_DMA_MAP.offset),
      flags: view.getUint32(USER_DMA_MAP.flags, true),
      file: descriptors[0],
    });
    return error === 0 ? EMPTY : error;
  }

  #unmapDma(view: DataView): Answer | number {
    if (view.byteLength < USER_DMA_UNMAP.size) return ERRNO.EINVAL;
    const [address, sizeBytes] = [getU64(view, USER_DMA_UNMAP.address), getU64(view, USER_DMA_UNMAP.unmap_size)];
    const error = this.#parts.memory.unmap(address, sizeBytes);
    if (error !== 0) return error;
    const reply = vfioStruct(USER_DMA_UNMAP.size);
    setU64(reply.view, USER_DMA_UNMAP.address, address);
    setU64(reply.view, USER_DMA_UNMAP.unmap_size, sizeBytes);
    return { payload: reply.bytes };
  }

  #describeRegion(view: DataView): Answer | number {
    if (view.byteLength < REGION_INFO.size) return ERRNO.EINVAL;
    const index = view.getUint32(REGION_INFO.index, true);
    if (index > VFIO_PCI_CONFIG_REGION_INDEX) return ERRNO.EINVAL;
    const { bytes, memory } = this.#parts.model.describe(index, view.getUint32(REGION_INFO.argsz, true));
    return memory === undefined ? { payload: bytes } : { payload: bytes, descriptors: [memory.fd] };
  }

  #describeInterrupt(view: DataView): Answer | number {
    if (view.byteLength < IRQ_INFO.size) return ERRNO.EINVAL;
    const index = view.getUint32(IRQ_INFO.index, true);
    if (index > VFIO_PCI_REQ_IRQ_INDEX) return ERRNO.EINVAL;
    const count = this.#parts.interrupts.count(index);
    const flags = count === 0 ? 0 : VFIO_IRQ_INFO_EVENTFD;
    const reply = vfioStruct(IRQ_INFO.size);
    reply.view.setUint32(
      IRQ_INFO.flags,
      flags | (index === VFIO_PCI_INTX_IRQ_INDEX && count > 0 ? VFIO_IRQ_INFO_AUTOMASKED : 0),
      true,
    );
    reply.view.setUint32(IRQ_INFO.index, index, true);
    reply.view.setUint32(IRQ_INFO.count, count, true);
    return { payload: reply.bytes };
  }

  #setIrqs(view: DataView, descriptors: readonly Fd[]): Answer | number {
    if (view.byteLength < IRQ_SET.size) {
      closeAll(descriptors);
      return ERRNO.EINVAL;
    }
    const error = this.#parts.interrupts.set({
      index: view.getUint32(IRQ_SET.index, true),
      flags: view.getUint32(IRQ_SET.flags, true),
      start: view.getUint32(IRQ_SET.start, true),
      count: view.getUint32(IRQ_SET.count, true),
      descriptors,
    });
    return error === 0 ? EMPTY : error;
  }

  #accessRegion(view: DataView, isWrite: boolean): Answer | number {
    if (view.byteLength < USER_REGION_ACCESS.size) return ERRNO.EINVAL;
    const { model } = this.#parts;
    const offset = getU64(view, USER_REGION_ACCESS.offset);
    const index = view.getUint32(USER_REGION_ACCESS.region, true);
    const count = view.getUint32(USER_REGION_ACCESS.count, true);
    const isPossible = count > 0 && count <= DEFAULT_MAX_DATA_XFER_SIZE && offset + count <= model.sizeBytes(index);
    if (!isPossible || (isWrite && view.byteLength - USER_REGION_ACCESS.size !== count)) return ERRNO.EINVAL;
    const header = new Uint8Array(view.buffer, view.byteOffset, USER_REGION_ACCESS.size);
    if (isWrite) {
      model.write(index, offset, new Uint8Array(view.buffer, view.byteOffset + USER_REGION_ACCESS.size, count));
      return { payload: header.slice() };
    }
    const reply = new Uint8Array(USER_REGION_ACCESS.size + count);
    reply.set(header);
    reply.set(model.read(index, offset, count), USER_REGION_ACCESS.size);
    return { payload: reply };
  }

  /** Asks the client and waits; its commands meanwhile are kept for later. @returns `undefined` when it refuses or is gone. */
  #ask(command: number, payload: Uint8Array): Uint8Array | undefined {
    if (this.#isClosed) return undefined;
    this.#nextId = (this.#nextId + 1) & 0xffff;
    const id = this.#nextId;
    const deadline = performance.now() + PATIENCE_MS;
    try {
      this.#parts.wire.send({ id, command, isReply: false, payload }, deadline);
      for (;;) {
        const arrival = this.#parts.wire.receive(deadline);
        if (typeof arrival === "string") throw new HostError("Cannot reach the client's memory: it does not answer");
        if (!arrival.isReply) {
          // With nothing on its way into the machine, the client's next message may be all that wakes us.
          if (this.#deferred.push(arrival) === 1) setImmediate(() => this.pump());
          continue;
        }
        closeAll(arrival.descriptors);
        if (arrival.id !== id || arrival.command !== command) {
          throw new HostError("Cannot reach the client's memory: it answers something else");
        }
        return arrival.error === 0 ? arrival.payload : undefined;
      }
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#parts.report("warn", error.message);
      // Later: a device is at work further up, and its memory must not go under its hands.
      setImmediate(() => this.close());
      return undefined;
    }
  }
}

function describeDevice(): Answer {
  const { bytes, view } = vfioStruct(DEVICE_INFO.size);
  view.setUint32(DEVICE_INFO.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET, true);
  view.setUint32(DEVICE_INFO.num_regions, VFIO_PCI_CONFIG_REGION_INDEX + 1, true);
  view.setUint32(DEVICE_INFO.num_irqs, VFIO_PCI_REQ_IRQ_INDEX + 1, true);
  return { payload: bytes };
}

function dmaAccess(address: number, count: number, data?: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(USER_DMA_ACCESS.size + (data?.length ?? 0));
  const view = new DataView(bytes.buffer);
  setU64(view, USER_DMA_ACCESS.address, address);
  setU64(view, USER_DMA_ACCESS.count, count);
  if (data !== undefined) bytes.set(data, USER_DMA_ACCESS.size);
  return bytes;
}
