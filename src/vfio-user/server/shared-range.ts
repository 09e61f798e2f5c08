import { fstatSync, readlinkSync } from "node:fs";
import { HostError } from "../../base/errors.ts";
import { type Fd, fd, gpa, PAGE_SIZE } from "../../base/units.ts";
import { FCNTL, MMAN } from "../../host/constants.ts";
import { libc } from "../../host/libc.ts";
import { CheckedMapping } from "../../host/memory/checked-mapping.ts";
import { GuestRam } from "../../host/memory/guest-ram.ts";
import { HostMapping } from "../../host/memory/mapping.ts";

/** A range of the client's memory that is reached without asking it. Offsets and lengths are inside the range. */
export interface SharedRange extends Disposable {
  /** @returns False where the client has taken the memory away. */
  read(offset: number, target: Uint8Array): boolean;
  write(offset: number, source: Uint8Array): boolean;
  /** A single load where that is possible; `undefined` where it is not. */
  readU32(offset: number): number | undefined;
  /** A single store. @returns False where that is not possible. */
  writeU32(offset: number, value: number): boolean;
  close(): void;
}

/** What DMA_MAP says of a file. */
export interface SharedFile {
  readonly file: Fd;
  readonly fileOffset: number;
  readonly sizeBytes: number;
  readonly isWritable: boolean;
}

/**
 * Finds the way to memory whose file came with DMA_MAP. The client goes on holding that file, and may cut it short at
 * any moment.
 *
 * - A memfd of ordinary pages with F_SEAL_SHRINK keeps its size, and the kernel makes missing pages. It is mapped and
 *   touched. tsvmm's guest RAM and QEMU's memory-backend-memfd are such files.
 * - Other files of memory (tmpfs, a memfd without the seal, huge pages, which can run out) are mapped, and the kernel
 *   copies. That takes 2.5 µs up to a page, where a touch takes 0.4 to 0.8. NVMe reads of 4 KiB, 80 µs each, show no
 *   difference; those of 128 KiB in 32 pages take 103 µs instead of 79.
 * - Files of file systems are not touched at all, not even by fstat. A disk, a network or a FUSE server would answer,
 *   perhaps never.
 *
 * The file may be closed afterwards.
 *
 * @returns `undefined` for a file that is not touched: the client is to be asked for each byte.
 * @throws HostError for what is no file, is too short, or cannot be mapped.
 */
export function openSharedRange(shared: SharedFile): SharedRange | undefined {
  const { file, fileOffset, sizeBytes, isWritable } = shared;
  // First the seals, then the size: what is sealed then does not change any more.
  const seals = libc.fcntl(file, FCNTL.F_GET_SEALS, 0);
  if (seals < 0) {
    if (!isNamed(file))
      throw new HostError("TSVMM_USER_DEVICE_PROTOCOL", "Cannot map the client's memory: its file is none");
    return undefined;
  }
  const found = fstatSync(file);
  if (fileOffset + sizeBytes > found.size) {
    throw new HostError("TSVMM_USER_DEVICE_PROTOCOL", "Cannot map the client's memory: its file is too short");
  }
  const protection = MMAN.PROT_READ | (isWritable ? MMAN.PROT_WRITE : 0);
  const isTouched = (seals & FCNTL.F_SEAL_SHRINK) !== 0 && found.blksize <= PAGE_SIZE;
  // Without a reservation huge pages that are short fail the copy, not the mapping.
  const flags = isTouched ? 0 : MMAN.MAP_NORESERVE;
  const mapping = HostMapping.ofFile("client memory", file, fileOffset, sizeBytes, { protection, flags });
  return isTouched ? new TouchedRange(mapping) : new CopiedRange(new CheckedMapping(mapping));
}

/** Whether a descriptor is of something with a path; the kernel tells without asking a file system. */
function isNamed(file: Fd): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${file}`).startsWith("/");
  } catch {
    return true; // without /proc
  }
}

class TouchedRange implements SharedRange {
  readonly #mapping: HostMapping;
  readonly #ram: GuestRam;

  constructor(mapping: HostMapping) {
    this.#mapping = mapping;
    const regions = [{ gpa: gpa(0), sizeBytes: mapping.sizeBytes, fileOffset: 0 }];
    this.#ram = GuestRam.attach({ address: mapping.address, regions, file: fd(-1) });
  }

  read(offset: number, target: Uint8Array): boolean {
    return this.#ram.read(gpa(offset), target);
  }

  write(offset: number, source: Uint8Array): boolean {
    return this.#ram.write(gpa(offset), source);
  }

  readU32(offset: number): number | undefined {
    return this.#ram.readU32(gpa(offset));
  }

  writeU32(offset: number, value: number): boolean {
    return this.#ram.writeU32(gpa(offset), value);
  }

  close(): void {
    this.#ram.close();
    this.#mapping.unmap();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

class CopiedRange implements SharedRange {
  readonly #mapping: CheckedMapping;

  constructor(mapping: CheckedMapping) {
    this.#mapping = mapping;
  }

  read(offset: number, target: Uint8Array): boolean {
    return this.#mapping.read(offset, target);
  }

  write(offset: number, source: Uint8Array): boolean {
    return this.#mapping.write(offset, source);
  }

  readU32(): undefined {
    return undefined;
  }

  writeU32(): boolean {
    return false;
  }

  close(): void {
    this.#mapping.unmap();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
