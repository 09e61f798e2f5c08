import type { HostSegment } from "../../base/guest-memory.ts";
import { type Fd, MIB } from "../../base/units.ts";
import { ERRNO } from "../errors.ts";
import { IovecArray } from "../iovec.ts";
import { libc } from "../libc.ts";
import { HostMapping } from "../memory/mapping.ts";

type Direction = "read" | "write";

const IOVECS = 256;
const BOUNCE_BYTES: number = MIB;

/**
 * Moves bytes between a file and scattered memory, by preadv and pwritev with one array used again and again. What the
 * kernel does only in part is continued. Direct I/O from memory that is not aligned enough goes through an aligned
 * buffer.
 */
export class DiskTransfer implements Disposable {
  readonly #file: Fd;
  /** What memory and sizes must be multiples of; 1 when the page cache takes anything. */
  readonly #alignment: number;
  readonly #iovecs: IovecArray = new IovecArray(IOVECS);
  #bounce: HostMapping | undefined;

  constructor(file: Fd, alignment: number) {
    this.#file = file;
    this.#alignment = alignment;
  }

  /** @returns 0 or an errno value; EIO when the file ends too early, EINVAL when the range itself is not aligned. */
  run(direction: Direction, offset: number, segments: readonly HostSegment[]): number {
    const alignment = this.#alignment;
    if (
      alignment === 1 ||
      segments.every((part) => part.address % alignment === 0 && part.sizeBytes % alignment === 0)
    ) {
      return this.#transfer(direction, offset, segments);
    }
    const total = segments.reduce((sum, part) => sum + part.sizeBytes, 0);
    if (offset % alignment !== 0 || total % alignment !== 0) return ERRNO.EINVAL;
    return this.#bounced(direction, offset, segments, total);
  }

  close(): void {
    this.#bounce?.unmap();
    this.#bounce = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #transfer(direction: Direction, offset: number, segments: readonly HostSegment[]): number {
    let index = 0; // of the segment we are in
    let within = 0; // bytes of it that are done
    let position = offset;
    for (;;) {
      let count = 0;
      let skip = within;
      for (let next = index; next < segments.length && count < IOVECS; next++) {
        const part = segments[next];
        if (part === undefined) break;
        if (part.sizeBytes > skip) this.#iovecs.set(count++, part.address + skip, part.sizeBytes - skip);
        skip = 0;
      }
      if (count === 0) return 0;
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

  #bounced(direction: Direction, offset: number, segments: readonly HostSegment[], total: number): number {
    this.#bounce ??= HostMapping.anonymous("bounce buffer", BOUNCE_BYTES);
    const address = this.#bounce.address;
    for (let done = 0; done < total; done += BOUNCE_BYTES) {
      const sizeBytes = Math.min(BOUNCE_BYTES, total - done);
      if (direction === "write") copyPart(direction, segments, done, address, sizeBytes);
      const errno = this.#transfer(direction, offset + done, [{ address, sizeBytes }]);
      if (errno !== 0) return errno;
      if (direction === "read") copyPart(direction, segments, done, address, sizeBytes);
    }
    return 0;
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
