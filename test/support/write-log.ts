import { fstatSync, type Stats, statSync } from "node:fs";
import type { Test } from "tap";
import { BLOCK, FALLOC } from "../../src/host/constants.ts";
import { libc } from "../../src/host/libc.ts";

/** What reached the kernel below a disk. Zeroes and discards are writes of zeroes: a hole reads as such. */
export type LogEntry =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  /** Returned success: the first `covers` entries of the log are on stable storage. */
  | { readonly kind: "flush"; readonly covers: number }
  /** Failed: what was not on stable storage before may never get there, whatever later flushes say. */
  | { readonly kind: "failedFlush" };

/**
 * The writes and flushes of one image file, recorded between this program and the kernel, as dm-log-writes records
 * those of a block device (Linux, Documentation/admin-guide/device-mapper/log-writes.rst). The calls are carried out
 * too.
 *
 * A flush fails as in Linux (mm/filemap.c, file_check_and_advance_wb_err). The error is reported once, the pages that
 * could not be written count as clean, and the next fdatasync succeeds without them.
 */
export class WriteLog {
  readonly entries: LogEntry[] = [];
  /** The errno value of the next flush; 0 for success. Then 0 again. */
  nextFlushErrno = 0;
  readonly #file: Stats;
  #flushBegan: number | undefined;

  /** Records until the end of the test what this thread does to the file. */
  constructor(t: Test, path: string) {
    this.#file = statSync(path);
    const real = { ...libc };
    t.teardown(() => void Object.assign(libc, real));
    let errno: number | undefined;
    libc.errno = () => {
      const value = errno ?? real.errno();
      errno = undefined;
      return value;
    };
    const done = (result: number, entry: () => LogEntry): number => {
      if (result >= 0) this.entries.push(entry());
      return result;
    };
    /** What the file has there now, since a system call cannot say what it took from scattered memory. */
    const stored = (fd: number, offset: number, sizeBytes: number): LogEntry => {
      const bytes = new Uint8Array(new ArrayBuffer(sizeBytes));
      if (real.pread(fd, bytes, sizeBytes, offset) !== sizeBytes) throw new Error("The recorded image ends too early");
      return { kind: "write", offset, bytes };
    };
    libc.pwrite = (fd, buffer, sizeBytes, offset) => {
      const count = real.pwrite(fd, buffer, sizeBytes, offset);
      return this.#sees(fd) ? done(count, () => stored(fd, offset, count)) : count;
    };
    libc.pwritev = (fd, segments, segmentCount, offset) => {
      const count = real.pwritev(fd, segments, segmentCount, offset);
      return this.#sees(fd) ? done(count, () => stored(fd, offset, count)) : count;
    };
    libc.fallocate = (fd, mode, offset, sizeBytes) => {
      const result = real.fallocate(fd, mode, offset, sizeBytes);
      const isProbe = this.#sees(fd) && offset >= fstatSync(fd).size;
      const zeroes = (mode & (FALLOC.FALLOC_FL_PUNCH_HOLE | FALLOC.FALLOC_FL_ZERO_RANGE)) !== 0;
      if (!this.#sees(fd) || isProbe || !zeroes) return result;
      return done(result, () => ({ kind: "write", offset, bytes: new Uint8Array(sizeBytes) }));
    };
    libc.ioctlStruct = (fd, request, argument) => {
      if (this.#sees(fd) && (request === BLOCK.BLKZEROOUT || request === BLOCK.BLKDISCARD)) {
        throw new Error("The log records image files, not block devices");
      }
      return real.ioctlStruct(fd, request, argument);
    };
    libc.fdatasync = (fd) => {
      if (!this.#sees(fd)) return real.fdatasync(fd);
      const covers = this.#flushBegan ?? this.entries.length;
      this.#flushBegan = undefined;
      if (this.nextFlushErrno === 0) return done(real.fdatasync(fd), () => ({ kind: "flush", covers }));
      this.entries.push({ kind: "failedFlush" });
      errno = this.nextFlushErrno;
      this.nextFlushErrno = 0;
      return -1;
    };
  }

  /** The next fdatasync begins now and returns when it is called: what is written in between it does not cover. */
  beginFlush(): void {
    this.#flushBegan = this.entries.length;
  }

  #sees(fd: number): boolean {
    const { dev, ino } = fstatSync(fd);
    return dev === this.#file.dev && ino === this.#file.ino;
  }
}
