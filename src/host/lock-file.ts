import { fstatSync, lstatSync, unlinkSync } from "node:fs";
import { HostError } from "../base/errors.ts";
import { fileId } from "../base/file-id.ts";
import { type Fd, fd } from "../base/units.ts";
import { FCNTL, FLOCK } from "./constants.ts";
import { check, ERRNO } from "./errors.ts";
import { libc } from "./libc.ts";

/**
 * How long another process may hold a lock, and how often it is asked for, in milliseconds: work under one takes
 * microseconds.
 */
const TIMEOUT_MS = 2000;
const RETRY_MS = 5;

/**
 * Does something while no other process does it under the same lock file, which is made for that and removed
 * afterwards. A file that a crash has left behind is not locked and does no harm. A file with something in it is no
 * lock, and stays.
 *
 * @param action For messages: `make socket /run/x`.
 * @throws HostError when another process holds the lock for two seconds, or the file has content; SyscallError when it
 *   cannot be made.
 */
export function whileLocked<Result>(path: string, action: string, work: () => Result): Result {
  const file = lockFile(path, action);
  try {
    return work();
  } finally {
    // While it is still locked: a process that waits for it then finds its name gone, and makes a new one.
    try {
      unlinkSync(path);
    } catch {
      // somebody removed it already
    }
    libc.close(file);
  }
}

function lockFile(path: string, action: string): Fd {
  const flags = FCNTL.O_RDWR | FCNTL.O_CREAT | FCNTL.O_NOFOLLOW | FCNTL.O_NONBLOCK | FCNTL.O_CLOEXEC;
  const deadline = performance.now() + TIMEOUT_MS;
  do {
    const file = fd(
      check(libc.open(path, flags, 0o600), action, "open", {
        otherwise: "TSVMM_LOCK_FILE",
        ENOENT: ["TSVMM_LOCK_FILE", "its directory does not exist"],
        EACCES: ["TSVMM_LOCK_FILE", "this user may not write to its directory"],
        ELOOP: ["TSVMM_LOCK_FILE", `remove ${path}, which is a symbolic link`],
      }),
    );
    const isOurs = lock(file) && isNamed(file, path);
    const found = fstatSync(file);
    if (isOurs && found.isFile() && found.size === 0) return file;
    libc.close(file);
    if (!found.isFile() || found.size > 0) {
      throw new HostError(
        "TSVMM_LOCK_FILE",
        `Cannot ${action}: ${path}, which is to be its lock, is something else`,
        "remove it",
      );
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
  } while (performance.now() < deadline);
  throw new HostError(
    "TSVMM_SOCKET_IN_USE",
    `Cannot ${action}: another process holds the lock ${path}`,
    "try again, or use another path",
  );
}

/**
 * Locks the open file, not the process: the lock goes with it, also by a crash. fcntl(2), "Open file description locks"
 */
function lock(file: Fd): boolean {
  const request = new DataView(new ArrayBuffer(FLOCK.size)); // start 0, length 0: the whole file
  request.setInt16(FLOCK.l_type, FCNTL.F_WRLCK, true);
  request.setInt16(FLOCK.l_whence, FCNTL.SEEK_SET, true);
  if (libc.fcntlStruct(file, FCNTL.F_OFD_SETLK, new Uint8Array(request.buffer)) === 0) return true;
  const errno = libc.errno();
  return errno !== ERRNO.EAGAIN && errno !== ERRNO.EACCES; // a file system without locks is used without
}

/** False when the file was removed, or replaced, between its opening and its locking. */
function isNamed(file: Fd, path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false, bigint: true });
  return found !== undefined && fileId(found) === fileId(fstatSync(file, { bigint: true }));
}
