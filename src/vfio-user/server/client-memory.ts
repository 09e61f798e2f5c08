import { fstatSync } from "node:fs";
import { HostError } from "../../base/errors.ts";
import { type Fd, fd, type Gpa, gpa, PAGE_SIZE } from "../../base/units.ts";
import { MMAN } from "../../host/constants.ts";
import { ERRNO } from "../../host/errors.ts";
import { GuestRam } from "../../host/memory/guest-ram.ts";
import { HostMapping } from "../../host/memory/mapping.ts";
import { VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE } from "../../vfio/abi.ts";
import type { DeviceMemory } from "./device.ts";

/** A stretch of addresses that the client lets the device reach. */
interface DmaRange {
  readonly address: number;
  readonly sizeBytes: number;
  readonly isReadable: boolean;
  readonly isWritable: boolean;
  /** `undefined` where the client gave no file: then every byte is asked for by message. */
  readonly mapped: { readonly ram: GuestRam; readonly mapping: HostMapping } | undefined;
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

/** Ranges that a client may have mapped at a time. */
export const MAX_DMA_MAPS = 4096;

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
    const isTaken = this.#ranges.some(
      (range) => address < range.address + range.sizeBytes && range.address < address + sizeBytes,
    );
    if (isTaken) return ERRNO.EEXIST;
    if (this.#ranges.length >= MAX_DMA_MAPS) return ERRNO.ENOSPC;
    const isReadable = (flags & VFIO_DMA_MAP_FLAG_READ) !== 0;
    const isWritable = (flags & VFIO_DMA_MAP_FLAG_WRITE) !== 0;
    try {
      const mapped = file === undefined ? undefined : mapFile(file, fileOffset, address, sizeBytes, isWritable);
      this.#ranges.push({ address, sizeBytes, isReadable, isWritable, mapped });
      return 0;
    } catch (error) {
      if (error instanceof HostError) return ERRNO.EINVAL;
      throw error;
    }
  }

  /** @returns An errno, or 0: the range must be one that was mapped. */
  unmap(address: number, sizeBytes: number): number {
    const index = this.#ranges.findIndex((range) => range.address === address && range.sizeBytes === sizeBytes);
    const [range] = index < 0 ? [] : this.#ranges.splice(index, 1);
    if (range === undefined) return ERRNO.ENOENT;
    release(range);
    return 0;
  }

  /** The client is gone, and all its memory. */
  clear(): void {
    for (const range of this.#ranges.splice(0)) release(range);
  }

  read(address: Gpa, target: Uint8Array): boolean {
    const pieces = this.#pieces(address, target.length, "isReadable");
    return (
      pieces?.every(({ range, at, offset, count }) => {
        const part = target.subarray(offset, offset + count);
        if (range.mapped !== undefined) return range.mapped.ram.read(gpa(at), part);
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
        return range.mapped?.ram.write(gpa(at), part) ?? this.remote?.write(at, part) ?? false;
      }) ?? false
    );
  }

  readU32(address: Gpa): number | undefined {
    const range = this.#find(address);
    if (this.isEnabled && range?.isReadable === true && range.mapped !== undefined) {
      const value = range.mapped.ram.readU32(address);
      if (value !== undefined) return value;
    }
    const bytes = new Uint8Array(4);
    return this.read(address, bytes) ? new DataView(bytes.buffer).getUint32(0, true) : undefined;
  }

  writeU32(address: Gpa, value: number): boolean {
    const range = this.#find(address);
    if (this.isEnabled && range?.isWritable === true && range.mapped?.ram.writeU32(address, value) === true)
      return true;
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    return this.write(address, bytes);
  }

  #find(address: number): DmaRange | undefined {
    return this.#ranges.find((range) => address >= range.address && address < range.address + range.sizeBytes);
  }

  /** The ranges that an access touches, one after another; `undefined` when it touches anything else. */
  #pieces(address: number, sizeBytes: number, right: "isReadable" | "isWritable"): readonly Piece[] | undefined {
    if (!this.isEnabled) return undefined;
    const pieces: Piece[] = [];
    for (let offset = 0; offset < sizeBytes; ) {
      const at = address + offset;
      const range = this.#find(at);
      if (range === undefined || !range[right]) return undefined;
      const count = Math.min(sizeBytes - offset, range.address + range.sizeBytes - at);
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

/** Maps the client's file. A file that is too short is refused: touching what is not there would end this process. */
function mapFile(
  file: Fd,
  fileOffset: number,
  address: number,
  sizeBytes: number,
  isWritable: boolean,
): NonNullable<DmaRange["mapped"]> {
  const found = fstatSync(file);
  if (!found.isFile() || fileOffset + sizeBytes > found.size) {
    throw new HostError("Cannot map the client's memory: its file is too short");
  }
  const protection = MMAN.PROT_READ | (isWritable ? MMAN.PROT_WRITE : 0);
  const mapping = HostMapping.ofFile("client memory", file, fileOffset, sizeBytes, { protection });
  const regions = [{ gpa: gpa(address), sizeBytes, fileOffset: 0 }];
  return { ram: GuestRam.attach({ address: mapping.address, regions, file: fd(-1) }), mapping };
}

function release(range: DmaRange): void {
  range.mapped?.ram.close();
  range.mapped?.mapping.unmap();
}
