import type { GuestMemory } from "../../base/guest-memory.ts";
import { type Fd, gpa } from "../../base/units.ts";
import { ERRNO } from "../../host/errors.ts";
import { VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE } from "../../vfio/abi.ts";
import { setU64, vfioStruct } from "../../vfio/calls.ts";
import {
  DEFAULT_MAX_DATA_XFER_SIZE,
  USER_DMA_ACCESS,
  USER_DMA_MAP,
  USER_DMA_UNMAP,
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_READ,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_DMA_WRITE,
} from "../protocol/abi.ts";
import type { UserChannel } from "./channel.ts";

/** Guest RAM that other processes can map. */
export interface SharedMemory extends GuestMemory {
  /** The file behind it. */
  readonly fd: Fd;
}

/**
 * Gives a server all of guest RAM, each region by the file's descriptor. Identity: a device's DMA address is the
 * guest's physical address.
 *
 * @param byFile False for a server that takes no descriptors: it asks for each transfer by message.
 * @throws HostError
 */
export function shareMemory(channel: UserChannel, memory: SharedMemory, byFile: boolean): void {
  for (const region of memory.regions) {
    const { bytes, view } = vfioStruct(USER_DMA_MAP.size);
    view.setUint32(USER_DMA_MAP.flags, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE, true);
    if (byFile) setU64(view, USER_DMA_MAP.offset, region.fileOffset);
    setU64(view, USER_DMA_MAP.address, region.gpa);
    setU64(view, USER_DMA_MAP.map_size, region.sizeBytes);
    channel.request(VFIO_USER_DMA_MAP, bytes, byFile ? [memory.fd] : []);
  }
}

/** Takes guest RAM back: when the server has answered it uses it no more. @throws HostError */
export function unshareMemory(channel: UserChannel, memory: SharedMemory): void {
  for (const region of memory.regions) {
    const { bytes, view } = vfioStruct(USER_DMA_UNMAP.size);
    setU64(view, USER_DMA_UNMAP.address, region.gpa);
    setU64(view, USER_DMA_UNMAP.unmap_size, region.sizeBytes);
    channel.request(VFIO_USER_DMA_UNMAP, bytes);
  }
}

/**
 * Answers a server that reads or writes guest RAM by messages, because it cannot or will not map it. Pure but for guest
 * RAM.
 *
 * @returns The reply's payload, or an errno: EINVAL for what is malformed, EFAULT outside RAM, ENOSYS for other
 *   commands.
 */
export function answerDma(memory: GuestMemory, command: number, payload: Uint8Array): Uint8Array | number {
  if (command !== VFIO_USER_DMA_READ && command !== VFIO_USER_DMA_WRITE) return ERRNO.ENOSYS;
  if (payload.length < USER_DMA_ACCESS.size) return ERRNO.EINVAL;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const address = Number(view.getBigUint64(USER_DMA_ACCESS.address, true));
  const count = Number(view.getBigUint64(USER_DMA_ACCESS.count, true));
  if (count > DEFAULT_MAX_DATA_XFER_SIZE) return ERRNO.EINVAL;
  if (!Number.isSafeInteger(address)) return ERRNO.EFAULT;
  if (command === VFIO_USER_DMA_READ) {
    const reply = new Uint8Array(USER_DMA_ACCESS.size + count);
    reply.set(payload.subarray(0, USER_DMA_ACCESS.size));
    return memory.read(gpa(address), reply.subarray(USER_DMA_ACCESS.size)) ? reply : ERRNO.EFAULT;
  }
  const data = payload.subarray(USER_DMA_ACCESS.size);
  if (data.length !== count) return ERRNO.EINVAL;
  return memory.write(gpa(address), data) ? payload.slice(0, USER_DMA_ACCESS.size) : ERRNO.EFAULT;
}
