import { fstatSync, readFileSync, type Stats, statSync } from "node:fs";
import type { Report } from "../../base/backends.ts";
import { errnoOf, fileErrorCode, HostError } from "../../base/errors.ts";
import { allOrNothing } from "../../base/undo-stack.ts";
import { alignDown, alignUp, type Fd, fd, KIB } from "../../base/units.ts";
import { BLOCK, FALLOC, FCNTL, FLOCK } from "../constants.ts";
import { check, ERRNO, errnoName } from "../errors.ts";
import { libc } from "../libc.ts";
import { HostMapping } from "../memory/mapping.ts";

/** Which image, and how to open it. */
export interface DiskImageOptions {
  /** A raw image file or a block device. */
  readonly path: string;
  readonly isReadOnly: boolean;
  /** Past the host's page cache (O_DIRECT). */
  readonly isDirect: boolean;
  /** 512 or 4096: what the guest is told; the image's own when absent. */
  readonly logicalBlockBytes?: number;
  readonly report: Report;
}

/** An open, locked image. */
export interface DiskImage {
  readonly fd: Fd;
  readonly isBlockDevice: boolean;
  /** A block device's logical block size; 1 for a file. The guest's blocks may be smaller. */
  readonly deviceBlockBytes: number;
  /** What offsets, sizes and memory addresses of direct I/O must be multiples of; 1 through the page cache. */
  readonly transferBlockBytes: number;
  /** What the guest sees: a multiple of `blockSizeBytes`. */
  readonly sizeBytes: number;
  /** Of a file, which may end inside the last block; infinite for a block device. Behind it are zeroes. */
  readonly fileBytes: number;
  /** The guest's logical block size: a property of the image, not of the way it is read. */
  readonly blockSizeBytes: number;
  readonly supportsDiscard: boolean;
}

const SECTOR = 512;
const SHARE_ADVICE = "another machine uses it: give both readonly=on, or stop the other one";

/**
 * Opens an image, locks it and finds out what it can do. The caller closes `fd`, which unlocks it too.
 *
 * @throws HostError when it is missing, no file, empty, in use or may not be opened: with the path and what can be
 *   done.
 */
export function openDiskImage(options: DiskImageOptions): DiskImage {
  const { path, isReadOnly } = options;
  const found = kindOf(path);
  const isBlockDevice = found.isBlockDevice();
  let flags = FCNTL.O_CLOEXEC | (isReadOnly ? FCNTL.O_RDONLY : FCNTL.O_RDWR);
  if (options.isDirect) flags |= FCNTL.O_DIRECT;
  // On a block device it refuses one that is mounted, whole or in part: two writers would destroy each other's file
  // system.
  if (isBlockDevice && !isReadOnly) flags |= FCNTL.O_EXCL;
  const file = fd(
    check(libc.open(path, flags, 0), `open disk image ${path}`, "open", {
      otherwise: "TSVMM_DISK_IO",
      EACCES: [
        "TSVMM_DISK_DENIED",
        isReadOnly
          ? "this user may not read it"
          : "this user may not write it: change its permissions, or give readonly=on",
      ],
      EPERM: [
        "TSVMM_DISK_DENIED",
        isReadOnly ? "this user may not read it" : "it may not be written: give readonly=on",
      ],
      EROFS: ["TSVMM_DISK_DENIED", "its file system is read-only: give readonly=on"],
      EBUSY: ["TSVMM_DISK_IN_USE", "the host uses it: unmount it, or give readonly=on"],
      ...(options.isDirect
        ? { EINVAL: ["TSVMM_DISK_DIRECT", "its file system knows no direct I/O: leave direct=on out"] }
        : {}),
      ETXTBSY: ["TSVMM_DISK_IN_USE", "it is in use as a program or swap file"],
      ENXIO: ["TSVMM_FILE_ABSENT", "there is no such device"],
    }),
  );
  return allOrNothing((undo) => {
    undo.own(file, libc.close);
    lock(file, options);
    const sizeBytes = isBlockDevice ? blockDeviceSize(file, path) : fstatSync(file).size;
    const deviceBlockBytes = isBlockDevice ? logicalBlockSize(file, path) : 1;
    const transferBlockBytes = options.isDirect ? directBlockSize(file, path) : 1;
    const blockSizeBytes = options.logicalBlockBytes ?? Math.max(deviceBlockBytes, SECTOR);
    // A file's last block is filled up. A device has no more than it has.
    const shownBytes = isBlockDevice ? alignDown(sizeBytes, blockSizeBytes) : alignUp(sizeBytes, blockSizeBytes);
    if (sizeBytes < SECTOR || shownBytes === 0) {
      throw new HostError("TSVMM_DISK_SIZE", `Cannot use ${path} as a disk: it has ${sizeBytes} bytes`);
    }
    if (shownBytes < sizeBytes) {
      const tail = sizeBytes - shownBytes;
      options.report("warn", `${path}: the last ${tail} bytes are no whole block and the guest does not see them`);
    }
    if (shownBytes > sizeBytes) {
      const ends = `it ends inside a block of ${blockSizeBytes} bytes`;
      options.report("info", `${path}: ${ends}: the guest reads ${shownBytes - sizeBytes} zeroes behind its end`);
    }
    const supportsDiscard = !isReadOnly && (isBlockDevice ? canDiscard(found) : canPunchHoles(file, sizeBytes));
    const fileBytes = isBlockDevice ? Number.POSITIVE_INFINITY : sizeBytes;
    return {
      ...{ fd: file, isBlockDevice, deviceBlockBytes, transferBlockBytes },
      ...{ sizeBytes: shownBytes, fileBytes, blockSizeBytes, supportsDiscard },
    };
  });
}

function kindOf(path: string): Stats {
  let found: Stats;
  try {
    found = statSync(path); // throwIfNoEntry: newer Nodes count more than ENOENT as no entry
  } catch (error) {
    if (errnoOf(error) === "ENOENT") {
      throw new HostError(
        "TSVMM_FILE_ABSENT",
        `Cannot use ${path} as a disk: there is no such file`,
        "make one, for example with truncate -s 1G",
      );
    }
    const text = error instanceof Error ? error.message : String(error);
    throw new HostError(fileErrorCode(errnoOf(error)), `Cannot use ${path} as a disk: ${text}`);
  }
  if (found.isFile() || found.isBlockDevice()) return found;
  const kind = found.isDirectory() ? "a directory" : "neither a file nor a block device";
  throw new HostError(
    "TSVMM_FILE_KIND",
    `Cannot use ${path} as a disk: it is ${kind}`,
    "give a raw image file or a block device",
  );
}

/**
 * Locks the whole image: one writer, or any number of readers. The lock belongs to the open file, not to the process,
 * and goes when the file is closed, also by a crash.
 */
function lock(file: Fd, options: DiskImageOptions): void {
  const request = new DataView(new ArrayBuffer(FLOCK.size)); // start 0, length 0: the whole file
  request.setInt16(FLOCK.l_type, options.isReadOnly ? FCNTL.F_RDLCK : FCNTL.F_WRLCK, true);
  request.setInt16(FLOCK.l_whence, FCNTL.SEEK_SET, true);
  if (libc.fcntlStruct(file, FCNTL.F_OFD_SETLK, new Uint8Array(request.buffer)) === 0) return;
  const errno = libc.errno();
  if (errno === ERRNO.EAGAIN || errno === ERRNO.EACCES) {
    throw new HostError("TSVMM_DISK_LOCKED", `Cannot lock disk image ${options.path}: it is in use`, SHARE_ADVICE);
  }
  options.report(
    "warn",
    `${options.path}: not locked against a second machine: ${errnoName(errno)} from its file system`,
  );
}

function blockDeviceSize(file: Fd, path: string): number {
  const size = new DataView(new ArrayBuffer(8));
  check(
    libc.ioctlStruct(file, BLOCK.BLKGETSIZE64, new Uint8Array(size.buffer)),
    `read the size of ${path}`,
    "ioctl",
    "TSVMM_DISK_IO",
  );
  return Number(size.getBigUint64(0, true));
}

function logicalBlockSize(file: Fd, path: string): number {
  const size = new DataView(new ArrayBuffer(4));
  check(
    libc.ioctlStruct(file, BLOCK.BLKSSZGET, new Uint8Array(size.buffer)),
    `read the block size of ${path}`,
    "ioctl",
    "TSVMM_DISK_IO",
  );
  return size.getUint32(0, true);
}

/** The smallest alignment that direct I/O takes, found by trying: file systems have no older way to say it. */
function directBlockSize(file: Fd, path: string): number {
  const probe = HostMapping.anonymous("probe", 16 * KIB);
  try {
    const bytes = new Uint8Array(probe.view());
    for (let size = SECTOR; size <= 4096; size *= 2) {
      if (libc.pread(file, bytes.subarray(size, 2 * size), size, 0) >= 0) return size;
      if (libc.errno() !== ERRNO.EINVAL) check(-1, `read disk image ${path}`, "pread", "TSVMM_DISK_IO");
    }
    throw new HostError("TSVMM_DISK_DIRECT", `Cannot read ${path} directly: no block size up to 4096 works`);
  } finally {
    probe.unmap();
  }
}

/** Behind the end there is nothing to lose, and the answer is the same. */
function canPunchHoles(file: Fd, sizeBytes: number): boolean {
  const mode = FALLOC.FALLOC_FL_PUNCH_HOLE | FALLOC.FALLOC_FL_KEEP_SIZE;
  return libc.fallocate(file, mode, Math.ceil(sizeBytes / 4096) * 4096, 4096) === 0;
}

function canDiscard(device: Stats): boolean {
  const major = Math.floor(device.rdev / 256) & 0xfff;
  const minor = (device.rdev & 0xff) + Math.floor(device.rdev / 2 ** 20) * 256;
  // A partition has its queue one directory up.
  for (const queue of ["queue", "../queue"]) {
    try {
      return Number(readFileSync(`/sys/dev/block/${major}:${minor}/${queue}/discard_max_bytes`, "utf8")) > 0;
    } catch {
      // look at the other place
    }
  }
  return false;
}
