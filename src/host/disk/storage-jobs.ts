import { fstatSync } from "node:fs";
import { alignDown, alignUp, fd, MIB } from "../../base/units.ts";
import { BLOCK, FALLOC } from "../constants.ts";
import { ERRNO } from "../errors.ts";
import { libc } from "../libc.ts";
import { HostMapping } from "../memory/mapping.ts";
import { DiskTransfer } from "./disk-transfer.ts";
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
      return target.isBlockDevice ? discardBlocks(target, job) : punchHole(target, job);
    case "writeZeroes": {
      const errno = target.isBlockDevice ? zeroBlocks(target, job) : zeroFile(target, job);
      return errno === ERRNO.EOPNOTSUPP ? writeZeroBytes(target, job.offset, job.sizeBytes) : errno;
    }
    default:
      return job satisfies never;
  }
}

interface Range {
  readonly offset: number;
  readonly sizeBytes: number;
}

const punchHole = ({ fd }: StorageTarget, range: Range): number => allocate(fd, FALLOC.FALLOC_FL_PUNCH_HOLE, range);

function zeroFile(target: StorageTarget, job: Range & { readonly mayUnmap: boolean }): number {
  const errno = job.mayUnmap ? punchHole(target, job) : ERRNO.EOPNOTSUPP;
  return errno === ERRNO.EOPNOTSUPP ? allocate(target.fd, FALLOC.FALLOC_FL_ZERO_RANGE, job) : errno;
}

/** A discard is a hint: blocks that it covers only in part keep their content. */
function discardBlocks(target: StorageTarget, range: Range): number {
  const whole = wholeBlocks(target, range);
  return whole.sizeBytes === 0 ? 0 : blockIoctl(target.fd, BLOCK.BLKDISCARD, whole);
}

/**
 * Blocks that the range covers only in part are written as the guest's own writes of less than a block are.
 */
function zeroBlocks(target: StorageTarget, range: Range): number {
  const whole = wholeBlocks(target, range);
  const end = range.offset + range.sizeBytes;
  const errno = whole.sizeBytes === 0 ? 0 : blockIoctl(target.fd, BLOCK.BLKZEROOUT, whole);
  if (errno !== 0) return errno;
  return (
    writeZeroBytes(target, range.offset, whole.offset - range.offset) ||
    writeZeroBytes(target, whole.offset + whole.sizeBytes, end - whole.offset - whole.sizeBytes)
  );
}

/** The device's blocks that lie wholly in a range; where none does, an empty range inside it. */
function wholeBlocks({ deviceBlockBytes }: StorageTarget, { offset, sizeBytes }: Range): Range {
  const start = Math.min(alignUp(offset, deviceBlockBytes), offset + sizeBytes);
  const end = Math.max(alignDown(offset + sizeBytes, deviceBlockBytes), start);
  return { offset: start, sizeBytes: end - start };
}

/** Writes zeroes as the guest's writes are made, direct I/O of parts of blocks included; 0 or an errno value. */
export function writeZeroBytes(target: StorageTarget, offset: number, sizeBytes: number): number {
  if (sizeBytes === 0) return 0;
  const file = fd(target.fd);
  const zeroes = HostMapping.anonymous("zeroes", CHUNK);
  const fileBytes = target.isBlockDevice ? Number.POSITIVE_INFINITY : fstatSync(file).size;
  const transfer = new DiskTransfer(file, target.transferBlockBytes, fileBytes);
  try {
    for (let done = 0; done < sizeBytes; done += CHUNK) {
      const part = { address: zeroes.address, sizeBytes: Math.min(CHUNK, sizeBytes - done) };
      const errno = transfer.run("write", offset + done, [part]);
      if (errno !== 0) return errno;
    }
    return 0;
  } finally {
    transfer.close();
    zeroes.unmap();
  }
}

function allocate(fd: number, mode: number, { offset, sizeBytes }: Range): number {
  return errnoOf(() => libc.fallocate(fd, mode | FALLOC.FALLOC_FL_KEEP_SIZE, offset, sizeBytes));
}

function blockIoctl(fd: number, request: number, { offset, sizeBytes }: Range): number {
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
