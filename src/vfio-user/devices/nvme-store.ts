import type { Report } from "../../base/backends.ts";
import type { Cause } from "../../base/errors.ts";
import type { Fd } from "../../base/units.ts";
import { openDiskImage } from "../../host/disk/disk-image.ts";
import { check, ERRNO, errnoName, SyscallError } from "../../host/errors.ts";
import { libc } from "../../host/libc.ts";
import { NVME_BLOCK } from "./nvme-abi.ts";

const ZEROES: Uint8Array = new Uint8Array(new ArrayBuffer(128 * 1024));

const LOST: Cause = ["TSVMM_DISK_IO", "data may be lost: every later flush fails until the device is started anew"];

/**
 * A namespace's blocks in an image file or block device, locked against other users. Calls block: a device's process
 * may wait.
 */
export class NvmeStore implements Disposable {
  /** Blocks of 512 bytes. */
  readonly blocks: number;
  readonly isReadOnly: boolean;
  readonly #file: Fd;
  #isOpen = true;
  #flushError: SyscallError | undefined;

  /** @throws HostError when the image is missing, empty, in use, or may not be opened. */
  constructor(path: string, isReadOnly: boolean, report: Report) {
    const image = openDiskImage({ path, isReadOnly, isDirect: false, report });
    this.#file = image.fd;
    this.isReadOnly = isReadOnly;
    this.blocks = Math.floor(image.sizeBytes / NVME_BLOCK);
  }

  /** Fills `target` from a block on. @throws SyscallError */
  read(block: number, target: Uint8Array): void {
    this.#move(block, target, (part, offset) => libc.pread(this.#file, part, part.length, offset), "read");
  }

  /** @throws SyscallError */
  write(block: number, source: Uint8Array): void {
    this.#move(block, source, (part, offset) => libc.pwrite(this.#file, part, part.length, offset), "write");
  }

  /** @throws SyscallError */
  writeZeroes(block: number, count: number): void {
    const step = ZEROES.length / NVME_BLOCK;
    for (let done = 0; done < count; done += step) {
      this.write(block + done, ZEROES.subarray(0, Math.min(step, count - done) * NVME_BLOCK));
    }
  }

  /**
   * Returns when everything written is on the medium.
   *
   * After one that failed, every later flush fails: Linux reports a failed writeback once and marks its pages clean,
   * and the next fdatasync would succeed without the data (fsync(2); Linux, mm/filemap.c,
   * file_check_and_advance_wb_err).
   *
   * @throws SyscallError
   */
  flush(): void {
    if (this.isReadOnly) return;
    if (this.#flushError !== undefined) throw this.#flushError;
    if (libc.fdatasync(this.#file) >= 0) return;
    this.#flushError = new SyscallError(LOST, "flush the namespace", "fdatasync", errnoName(libc.errno()));
    throw this.#flushError;
  }

  close(): void {
    if (this.#isOpen) libc.close(this.#file);
    this.#isOpen = false;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #move(block: number, bytes: Uint8Array, call: (part: Uint8Array, offset: number) => number, what: string): void {
    for (let done = 0; done < bytes.length; ) {
      const count = call(bytes.subarray(done), block * NVME_BLOCK + done);
      if (count < 0 && libc.errno() === ERRNO.EINTR) continue;
      const action = `${what} block ${block} of the namespace`;
      if (count === 0)
        throw new SyscallError(["TSVMM_DISK_IO", "the image has become shorter"], action, `p${what}`, "EIO");
      check(count, action, `p${what}`, "TSVMM_DISK_IO");
      done += count;
    }
  }
}
