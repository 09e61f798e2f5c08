import { MIB } from "../../base/units.ts";
import { BLOCK, FALLOC } from "../constants.ts";
import { ERRNO } from "../errors.ts";
import { IovecArray } from "../iovec.ts";
import { libc } from "../libc.ts";
import { HostMapping } from "../memory/mapping.ts";
import type { StorageJob, StorageTarget } from "./storage-ring.ts";

const CHUNK: number = MIB;

/**
 * Does one job on the calling thread, however long it takes.
 *
 * @returns 0 or an errno value; EOPNOTSUPP when the file or device has no such operation.
 */
export function runStorageJob(target: StorageTarget, job: StorageJob): number {
  switch (job.kind) {
    case "flush":
      return errnoOf(() => libc.fdatasync(target.fd));
    case "discard":
      if (target.isBlockDevice) return blockIoctl(target.fd, BLOCK.BLKDISCARD, job.offset, job.sizeBytes);
      return allocate(target.fd, FALLOC.FALLOC_FL_PUNCH_HOLE, job.offset, job.sizeBytes);
    case "writeZeroes": {
      let errno: number = ERRNO.EOPNOTSUPP;
      if (target.isBlockDevice) {
        errno = blockIoctl(target.fd, BLOCK.BLKZEROOUT, job.offset, job.sizeBytes);
      } else {
        if (job.mayUnmap) errno = allocate(target.fd, FALLOC.FALLOC_FL_PUNCH_HOLE, job.offset, job.sizeBytes);
        if (errno === ERRNO.EOPNOTSUPP) {
          errno = allocate(target.fd, FALLOC.FALLOC_FL_ZERO_RANGE, job.offset, job.sizeBytes);
        }
      }
      return errno === ERRNO.EOPNOTSUPP ? writeZeroBytes(target.fd, job.offset, job.sizeBytes) : errno;
    }
    default:
      return job satisfies never;
  }
}

/** Writes zeroes by the ordinary call, from aligned memory so that direct I/O takes them too; 0 or an errno value. */
export function writeZeroBytes(fd: number, offset: number, sizeBytes: number): number {
  const zeroes = HostMapping.anonymous("zeroes", CHUNK);
  const iovec = new IovecArray(1);
  try {
    for (let done = 0; done < sizeBytes; ) {
      iovec.set(0, zeroes.address, Math.min(CHUNK, sizeBytes - done));
      const count = libc.pwritev(fd, iovec.bytes, 1, offset + done);
      if (count > 0) done += count;
      else if (count === 0) return ERRNO.EIO;
      else if (libc.errno() !== ERRNO.EINTR) return libc.errno();
    }
    return 0;
  } finally {
    zeroes.unmap();
  }
}

function allocate(fd: number, mode: number, offset: number, sizeBytes: number): number {
  return errnoOf(() => libc.fallocate(fd, mode | FALLOC.FALLOC_FL_KEEP_SIZE, offset, sizeBytes));
}

function blockIoctl(fd: number, request: number, offset: number, sizeBytes: number): number {
  const range = new Uint8Array(new BigUint64Array([BigInt(offset), BigInt(sizeBytes)]).buffer);
  return errnoOf(() => libc.ioctlStruct(fd, request, range));
}

function errnoOf(call: () => number): number {
  for (;;) {
    if (call() >= 0) return 0;
    const errno = libc.errno();
    if (errno !== ERRNO.EINTR) return errno;
  }
}
