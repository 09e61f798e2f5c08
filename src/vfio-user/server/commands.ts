import type { Fd } from "../../base/units.ts";
import { closeAll } from "../../host/descriptor-socket.ts";
import { ERRNO } from "../../host/errors.ts";
import {
  DEVICE_INFO,
  IRQ_INFO,
  IRQ_SET,
  REGION_INFO,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
} from "../../vfio/abi.ts";
import { getU64, vfioStruct } from "../../vfio/calls.ts";
import {
  USER_DMA_MAP,
  USER_DMA_UNMAP,
  USER_REGION_ACCESS,
  USER_REGION_IO_FDS,
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_DEVICE_GET_IRQ_INFO,
  VFIO_USER_DEVICE_GET_REGION_INFO,
  VFIO_USER_DEVICE_GET_REGION_IO_FDS,
  VFIO_USER_DEVICE_RESET,
  VFIO_USER_DEVICE_SET_IRQS,
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_REGION_READ,
  VFIO_USER_REGION_WRITE,
  VFIO_USER_VERSION,
} from "../protocol/abi.ts";
import type { UserMessage } from "../protocol/wire.ts";
import { type Agreement, agree } from "./agreement.ts";
import type { ClientMemory } from "./client-memory.ts";
import type { ClientInterrupts } from "./interrupts.ts";
import type { DeviceModel } from "./model.ts";

/** What a client's commands act on. */
export interface CommandTargets {
  readonly model: DeviceModel;
  readonly memory: ClientMemory;
  readonly interrupts: ClientInterrupts;
}

/** A reply: its payload, and descriptors that go along, which stay ours. */
export interface Answer {
  readonly payload: Uint8Array;
  readonly descriptors?: readonly Fd[];
}

const EMPTY: Answer = { payload: new Uint8Array(0) };

/**
 * The commands of one client, from VERSION on. Nothing here throws for a client's sake: what is malformed or impossible
 * is answered with an errno, and the connection goes on.
 */
export class Commands {
  readonly #targets: CommandTargets;
  #agreement: Agreement | undefined;

  constructor(targets: CommandTargets) {
    this.#targets = targets;
  }

  /** What VERSION has settled; `undefined` before it. */
  get agreement(): Agreement | undefined {
    return this.#agreement;
  }

  /** @returns A reply, or an errno. Descriptors of the message are taken over or closed. */
  answer({ command, payload, descriptors }: UserMessage): Answer | number {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const agreement = this.#agreement;
    const isWithin = descriptors.length <= (agreement?.descriptorsFromClient ?? 0);
    if (command === VFIO_USER_DEVICE_SET_IRQS && isWithin && agreement !== undefined) {
      return this.#setIrqs(view, descriptors);
    }
    try {
      if (!isWithin) return ERRNO.EINVAL;
      if (agreement === undefined) return command === VFIO_USER_VERSION ? this.#agree(payload) : ERRNO.EINVAL;
      switch (command) {
        case VFIO_USER_VERSION:
          return ERRNO.EINVAL; // twice
        case VFIO_USER_DMA_MAP:
          return this.#mapDma(view, descriptors);
        case VFIO_USER_DMA_UNMAP:
          return this.#unmapDma(view);
        case VFIO_USER_DEVICE_GET_INFO:
          return hasRoom(view, DEVICE_INFO.size) ? describeDevice() : ERRNO.EINVAL;
        case VFIO_USER_DEVICE_GET_REGION_INFO:
          return this.#describeRegion(view, agreement);
        case VFIO_USER_DEVICE_GET_REGION_IO_FDS:
          return this.#describeEventFds(view, agreement);
        case VFIO_USER_DEVICE_GET_IRQ_INFO:
          return this.#describeInterrupt(view);
        case VFIO_USER_REGION_READ:
        case VFIO_USER_REGION_WRITE:
          return this.#accessRegion(view, command === VFIO_USER_REGION_WRITE, agreement);
        case VFIO_USER_DEVICE_RESET:
          this.#targets.model.reset();
          return EMPTY;
        default:
          return ERRNO.ENOSYS;
      }
    } finally {
      closeAll(descriptors);
    }
  }

  #agree(payload: Uint8Array): Answer | number {
    this.#agreement = agree(payload);
    return this.#agreement === undefined ? ERRNO.EINVAL : { payload: this.#agreement.answer };
  }

  #mapDma(view: DataView, descriptors: readonly Fd[]): Answer | number {
    if (!hasRoom(view, USER_DMA_MAP.size) || descriptors.length > 1) return ERRNO.EINVAL;
    const error = this.#targets.memory.map({
      address: getU64(view, USER_DMA_MAP.address),
      sizeBytes: getU64(view, USER_DMA_MAP.map_size),
      fileOffset: getU64(view, USER_DMA_MAP.offset),
      flags: view.getUint32(USER_DMA_MAP.flags, true),
      file: descriptors[0],
    });
    return error === 0 ? EMPTY : error;
  }

  #unmapDma(view: DataView): Answer | number {
    if (!hasRoom(view, USER_DMA_UNMAP.size)) return ERRNO.EINVAL;
    const error = this.#targets.memory.unmap({
      address: Number(view.getBigUint64(USER_DMA_UNMAP.address, true)),
      sizeBytes: Number(view.getBigUint64(USER_DMA_UNMAP.unmap_size, true)),
      flags: view.getUint32(USER_DMA_UNMAP.flags, true),
    });
    if (error !== 0) return error;
    const reply = vfioStruct(USER_DMA_UNMAP.size); // argsz, and the request's own fields
    reply.bytes.set(new Uint8Array(view.buffer, view.byteOffset + 4, USER_DMA_UNMAP.size - 4), 4);
    return { payload: reply.bytes };
  }

  #describeRegion(view: DataView, { descriptorsToClient }: Agreement): Answer | number {
    if (!hasRoom(view, REGION_INFO.size)) return ERRNO.EINVAL;
    const index = view.getUint32(REGION_INFO.index, true);
    if (index >= VFIO_PCI_NUM_REGIONS) return ERRNO.EINVAL;
    const room = view.getUint32(REGION_INFO.argsz, true);
    const { bytes, memory } = this.#targets.model.describe(index, room, descriptorsToClient > 0);
    return memory === undefined ? { payload: bytes } : { payload: bytes, descriptors: [memory.share()] };
  }

  /**
   * No part of a region is reached by eventfds: the answer is an empty list, as libvfio-user gives for such a region.
   */
  #describeEventFds(view: DataView, { maxTransferBytes }: Agreement): Answer | number {
    if (!hasRoom(view, USER_REGION_IO_FDS.size)) return ERRNO.EINVAL;
    const index = view.getUint32(USER_REGION_IO_FDS.index, true);
    const isZero = [USER_REGION_IO_FDS.flags, USER_REGION_IO_FDS.count].every((at) => view.getUint32(at, true) === 0);
    const isTooLarge = view.getUint32(USER_REGION_IO_FDS.argsz, true) > maxTransferBytes;
    if (!isZero || isTooLarge || this.#targets.model.sizeBytes(index) === 0) return ERRNO.EINVAL;
    const reply = vfioStruct(USER_REGION_IO_FDS.size);
    reply.view.setUint32(USER_REGION_IO_FDS.index, index, true);
    return { payload: reply.bytes };
  }

  #describeInterrupt(view: DataView): Answer | number {
    if (!hasRoom(view, IRQ_INFO.size)) return ERRNO.EINVAL;
    const index = view.getUint32(IRQ_INFO.index, true);
    if (index >= VFIO_PCI_NUM_IRQS) return ERRNO.EINVAL;
    const count = this.#targets.interrupts.count(index);
    const pin = index === VFIO_PCI_INTX_IRQ_INDEX ? VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED : 0;
    const reply = vfioStruct(IRQ_INFO.size);
    reply.view.setUint32(IRQ_INFO.flags, count === 0 ? 0 : VFIO_IRQ_INFO_EVENTFD | pin, true);
    reply.view.setUint32(IRQ_INFO.index, index, true);
    reply.view.setUint32(IRQ_INFO.count, count, true);
    return { payload: reply.bytes };
  }

  #setIrqs(view: DataView, descriptors: readonly Fd[]): Answer | number {
    if (!hasRoom(view, IRQ_SET.size)) {
      closeAll(descriptors);
      return ERRNO.EINVAL;
    }
    const error = this.#targets.interrupts.set({
      index: view.getUint32(IRQ_SET.index, true),
      flags: view.getUint32(IRQ_SET.flags, true),
      start: view.getUint32(IRQ_SET.start, true),
      count: view.getUint32(IRQ_SET.count, true),
      data: new Uint8Array(view.buffer, view.byteOffset + IRQ_SET.size, view.byteLength - IRQ_SET.size),
      descriptors,
    });
    return error === 0 ? EMPTY : error;
  }

  #accessRegion(view: DataView, isWrite: boolean, { maxTransferBytes }: Agreement): Answer | number {
    if (view.byteLength < USER_REGION_ACCESS.size) return ERRNO.EINVAL;
    const { model } = this.#targets;
    const offset = getU64(view, USER_REGION_ACCESS.offset);
    const index = view.getUint32(USER_REGION_ACCESS.region, true);
    const count = view.getUint32(USER_REGION_ACCESS.count, true);
    const isPossible = index < VFIO_PCI_NUM_REGIONS && count <= maxTransferBytes;
    if (!isPossible || offset + count > model.sizeBytes(index)) return ERRNO.EINVAL;
    if (isWrite && view.byteLength - USER_REGION_ACCESS.size !== count) return ERRNO.EINVAL;
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
}

/** Whether a struct is whole and its `argsz`, the first word, leaves room for the fixed part of an answer. */
const hasRoom = (view: DataView, sizeBytes: number): boolean =>
  view.byteLength >= sizeBytes && view.getUint32(0, true) >= sizeBytes;

function describeDevice(): Answer {
  const { bytes, view } = vfioStruct(DEVICE_INFO.size);
  view.setUint32(DEVICE_INFO.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET, true);
  view.setUint32(DEVICE_INFO.num_regions, VFIO_PCI_NUM_REGIONS, true);
  view.setUint32(DEVICE_INFO.num_irqs, VFIO_PCI_NUM_IRQS, true);
  return { payload: bytes };
}
