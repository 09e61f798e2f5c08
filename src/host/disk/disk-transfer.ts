import type { HostSegment } from "../../base/guest-memory.ts";
import { alignDown, alignUp, type Fd, hva, MIB, PAGE_SIZE } from "../../base/units.ts";
import { ERRNO } from "../errors.ts";
import { IovecArray } from "../iovec.ts";
import { libc } from "../libc.ts";
import { HostMapping } from "../memory/mapping.ts";

type Direction = "read" | "write";

const IOVECS = 256;
const BOUNCE_BYTES: number = MIB;
const SECTOR = 512;

/**
 * Moves bytes between a file and scattered memory, by preadv and pwritev with one array used again and again. What the
 * kernel does only in part is continued. Direct I/O from memory that is not aligned enough, and of parts of blocks,
 * goes through an aligned buffer.
 */
export class DiskTransfer implements Disposable {
  readonly #file: Fd;
  /** What memory, offsets and sizes must be multiples of; 1 when the page cache takes anything. */
  readonly #alignment: number;
  readonly #iovecs: IovecArray = new IovecArray(IOVECS);
  #bounce: HostMapping | undefined;
  #zeroes: HostMapping | undefined;
  /** Grows with what is written behind it. */
  #fileBytes: number;

  /** @param fileBytes Where the file ends: zeroes are read behind it. Without it the end is an error. */
  constructor(file: Fd, alignment: number, fileBytes: number = Number.POSITIVE_INFINITY) {
    this.#file = file;
    this.#alignment = alignment;
    this.#fileBytes = fileBytes;
  }

  /**
   * @returns 0 or an errno value; EIO when the file ends too early, EINVAL for direct I/O of a range that is no whole
   *   sectors.
   */
  run(direction: Direction, offset: number, segments: readonly HostSegment[]): number {
    const alignment = this.#alignment;
    const isAligned = (part: HostSegment): boolean =>
      part.address % alignment === 0 && part.sizeBytes % alignment === 0;
    if (alignment === 1 || (offset % alignment === 0 && segments.every(isAligned))) {
      return this.#transfer(direction, offset, segments);
    }
    const total = segments.reduce((sum, part) => sum + part.sizeBytes, 0);
    if (offset % SECTOR !== 0 || total % SECTOR !== 0) return ERRNO.EINVAL;
    return this.#bounced(direction, offset, segments, total);
  }

  close(): void {
    this.#bounce?.unmap();
    this.#zeroes?.unmap();
    this.#bounce = undefined;
    this.#zeroes = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #transfer(direction: Direction, offset: number, segments: readonly HostSegment[]): number {
    let index = 0; // of the segment we are in
    let within = 0; // bytes of it that are done
    let position = offset;
    for (;;) {
      if (direction === "read" && position >= this.#fileBytes) {
        this.#clear(segments, index, within);
        return 0;
      }
      let count = 0;
      let skip = within;
      for (let next = index; next < segments.length && count < IOVECS; next++) {
        const part = segments[next];
        if (part === undefined) break;
        if (part.sizeBytes > skip) this.#iovecs.set(count++, part.address + skip, part.sizeBytes - skip);
        skip = 0;
      }
      if (count === 0) {
        this.#fileBytes = Math.max(this.#fileBytes, position);
        return 0;
      }
      const moved =
        direction === "read"
          ? libc.preadv(this.#file, this.#iovecs.bytes, count, position)
          : libc.pwritev(this.#file, this.#iovecs.bytes, count, position);
      if (moved < 0) {
        const errno = libc.errno();
        if (errno === ERRNO.EINTR) continue;
        return errno;
      }
      if (moved === 0) return ERRNO.EIO; // the file has become shorter
      position += moved;
      within += moved;
      for (let part = segments[index]; part !== undefined && within >= part.sizeBytes; part = segments[index]) {
        within -= part.sizeBytes;
        index++;
      }
    }
  }

  /** Whole blocks go through the buffer; of a block that is written in part, the rest is read before. */
  #bounced(direction: Direction, offset: number, segments: readonly HostSegment[], total: number): number {
    const block = this.#alignment;
    this.#bounce ??= HostMapping.anonymous("bounce buffer", BOUNCE_BYTES);
    const buffer = this.#bounce.address;
    const end = offset + total;
    for (let start = alignDown(offset, block); start < end; start += BOUNCE_BYTES) {
      const stop = Math.min(start + BOUNCE_BYTES, alignUp(end, block));
      const from = Math.max(start, offset);
      const to = Math.min(stop, end);
      const edges =
        direction === "read" ? [] : [...(from > start ? [start] : []), ...(to < stop ? [stop - block] : [])];
      for (const edge of new Set(edges)) {
        const errno = this.#transfer("read", edge, [{ address: hva(buffer + edge - start), sizeBytes: block }]);
        if (errno !== 0) return errno;
      }
      const copy = (): void => copyPart(direction, segments, from - offset, buffer + from - start, to - from);
      if (direction === "write") copy();
      const fileBytes = Math.max(this.#fileBytes, to);
      const errno = this.#transfer(direction, start, [{ address: buffer, sizeBytes: stop - start }]);
      if (errno !== 0) return errno;
      if (direction === "read") copy();
      else if (this.#fileBytes > fileBytes) {
        // The last block has made the file longer than the guest's disk.
        if (libc.ftruncate(this.#file, fileBytes) < 0) return libc.errno();
        this.#fileBytes = fileBytes;
      }
    }
    return 0;
  }

  /** Zeroes in the segments, from a place in one of them on. */
  #clear(segments: readonly HostSegment[], index: number, within: number): void {
    this.#zeroes ??= HostMapping.anonymous("zeroes", PAGE_SIZE);
    let skip = within;
    for (const { address, sizeBytes } of segments.slice(index)) {
      for (let at = skip; at < sizeBytes; at += PAGE_SIZE) {
        libc.memcpy(address + at, this.#zeroes.address, Math.min(PAGE_SIZE, sizeBytes - at));
      }
      skip = 0;
    }
  }
}

/**
 * Copies `[start, start + sizeBytes)` of the segments laid end to end: out of the buffer for a read, into it for a
 * write.
 */
function copyPart(
  direction: Direction,
  segments: readonly HostSegment[],
  start: number,
  buffer: number,
  sizeBytes: number,
): void {
  let position = 0; // of the segment's first byte
  for (const part of segments) {
    const from = Math.max(start, position);
    const to = Math.min(start + sizeBytes, position + part.sizeBytes);
    if (from < to) {
      const outside = part.address + (from - position);
      const inside = buffer + (from - start);
      if (direction === "read") libc.memcpy(outside, inside, to - from);
      else libc.memcpy(inside, outside, to - from);
    }
    position += part.sizeBytes;
  }
}
