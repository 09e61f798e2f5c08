import { HostError } from "../../base/errors.ts";
import { type Fd, type Gpa, PAGE_SIZE } from "../../base/units.ts";
import { ERRNO } from "../../host/errors.ts";
import { VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_DMA_UNMAP_FLAG_ALL } from "../../vfio/abi.ts";
import type { DeviceMemory } from "./device.ts";
import { openSharedRange, type SharedRange } from "./shared-range.ts";

/** A stretch of addresses that the client lets the device reach. */
interface DmaRange {
  readonly address: number;
  readonly end: number;
  readonly isReadable: boolean;
  readonly isWritable: boolean;
  /** `undefined` where the client gave no file that is touched: then every byte is asked for by message. */
  readonly shared: SharedRange | undefined;
}

/** Moves bytes by messages: the way to memory that the client does not share. */
export interface RemoteMemory {
  /** @returns `undefined` when the client refuses. */
  read(address: number, sizeBytes: number): Uint8Array | undefined;
  /** @returns False when the client refuses. */
  write(address: number, bytes: Uint8Array): boolean;
}

/** A description of a range, as DMA_MAP brings it. */
export interface DmaMapRequest {
  readonly address: number;
  readonly sizeBytes: number;
  readonly fileOffset: number;
  readonly flags: number;
  readonly file: Fd | undefined;
}

/** A description of ranges, as DMA_UNMAP brings it. Numbers may be up to 2^64. */
export interface DmaUnmapRequest {
  readonly address: number;
  readonly sizeBytes: number;
  readonly flags: number;
}

/** Ranges that a client may have mapped at a time. */
export const MAX_DMA_MAPS = 4096;
const RIGHTS: number = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
const END_OF_ADDRESSES: number = 2 ** 64;

/** The client's memory: what it mapped for the device, and nothing else. Every access is checked. */
export class ClientMemory implements DeviceMemory {
  readonly #ranges: DmaRange[] = []; // without overlaps
  /** How unshared memory is reached; set while a client is there. */
  remote: RemoteMemory | undefined;
  /** False while the guest has the device's bus mastering off: nothing is reached then. */
  isEnabled = false;

  /** @returns An errno, or 0. The file may be closed afterwards. */
  map({ address, sizeBytes, fileOffset, flags, file }: DmaMapRequest): number {
    const numbers = [address, sizeBytes, fileOffset];
    if (!numbers.every(Number.isSafeInteger) || sizeBytes === 0) return ERRNO.EINVAL;
    if (numbers.some((number) => number % PAGE_SIZE !== 0) || !Number.isSafeInteger(address + sizeBytes)) {
      return ERRNO.EINVAL;
    }
    if ((flags & RIGHTS) === 0 || (flags & ~RIGHTS) !== 0) return ERRNO.EINVAL;
    if (this.#overlapping(address, address + sizeBytes).length > 0) return ERRNO.EEXIST;
    if (this.#ranges.length >= MAX_DMA_MAPS) return ERRNO.ENOSPC;
    const isReadable = (flags & VFIO_DMA_MAP_FLAG_READ) !== 0;
    const isWritable = (flags & VFIO_DMA_MAP_FLAG_WRITE) !== 0;
    try {
      const shared = file === undefined ? undefined : openSharedRange({ file, fileOffset, sizeBytes, isWritable });
      this.#ranges.push({ address, end: address + sizeBytes, isReadable, isWritable, shared });
      return 0;
    } catch (error) {
      if (error instanceof HostError) return ERRNO.EINVAL;
      throw error;
    }
  }

  /**
   * Takes back all ranges between two addresses, or all there are, as VFIO_IOMMU_UNMAP_DMA does: no range is cut in
   * two.
   *
   * @returns An errno, or 0: ENOENT where nothing is mapped.
   */
  unmap({ address, sizeBytes, flags }: DmaUnmapRequest): number {
    if (flags === VFIO_DMA_UNMAP_FLAG_ALL) {
      if (address !== 0 || sizeBytes !== 0) return ERRNO.EINVAL;
      this.clear();
      return 0;
    }
    const end = address + sizeBytes;
    if (flags !== 0 || sizeBytes === 0 || end > END_OF_ADDRESSES) return ERRNO.EINVAL;
    if (address % PAGE_SIZE !== 0 || sizeBytes % PAGE_SIZE !== 0) return ERRNO.EINVAL;
    const found = this.#overlapping(address, end);
    if (found.some((range) => range.address < address || range.end > end)) return ERRNO.EINVAL;
    for (const range of found) {
      this.#ranges.splice(this.#ranges.indexOf(range), 1);
      range.shared?.close();
    }
    return found.length === 0 ? ERRNO.ENOENT : 0;
  }

  /** The client is gone, and all its memory. */
  clear(): void {
    for (const { shared } of this.#ranges.splice(0)) shared?.close();
  }

  read(address: Gpa, target: Uint8Array): boolean {
    const pieces = this.#pieces(address, target.length, "isReadable");
    return (
      pieces?.every(({ range, at, offset, count }) => {
        const part = target.subarray(offset, offset + count);
        if (range.shared !== undefined) return range.shared.read(at - range.address, part);
        const bytes = this.remote?.read(at, count);
        if (bytes === undefined) return false;
        part.set(bytes);
        return true;
      }) ?? false
    );
  }

  write(address: Gpa, source: Uint8Array): boolean {
    const pieces = this.#pieces(address, source.length, "isWritable");
    return (
      pieces?.every(({ range, at, offset, count }) => {
        const part = source.subarray(offset, offset + count);
        return range.shared?.write(at - range.address, part) ?? this.remote?.write(at, part) ?? false;
      }) ?? false
    );
  }

  readU32(address: Gpa): number | undefined {
    const range = this.#find(address);
    if (this.isEnabled && range?.isReadable === true) {
      const value = range.shared?.readU32(address - range.address);
      if (value !== undefined) return value;
    }
    const bytes = new Uint8Array(4);
    return this.read(address, bytes) ? new DataView(bytes.buffer).getUint32(0, true) : undefined;
  }

  writeU32(address: Gpa, value: number): boolean {
    const range = this.#find(address);
    if (this.isEnabled && range?.isWritable === true && range.shared?.writeU32(address - range.address, value) === true)
      return true;
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    return this.write(address, bytes);
  }

  #find(address: number): DmaRange | undefined {
    return this.#ranges.find((range) => address >= range.address && address < range.end);
  }

  #overlapping(address: number, end: number): readonly DmaRange[] {
    return this.#ranges.filter((range) => address < range.end && range.address < end);
  }

  /** The ranges that an access touches, one after another; `undefined` when it touches anything else. */
  #pieces(address: number, sizeBytes: number, right: "isReadable" | "isWritable"): readonly Piece[] | undefined {
    if (!this.isEnabled) return undefined;
    const pieces: Piece[] = [];
    for (let offset = 0; offset < sizeBytes; ) {
      const at = address + offset;
      const range = this.#find(at);
      if (range === undefined || !range[right]) return undefined;
      const count = Math.min(sizeBytes - offset, range.end - at);
      pieces.push({ range, at, offset, count });
      offset += count;
    }
    return pieces;
  }
}

interface Piece {
  readonly range: DmaRange;
  readonly at: number;
  /** In the transfer. */
  readonly offset: number;
  readonly count: number;
}
