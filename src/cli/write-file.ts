import { randomBytes } from "node:crypto";
import {
  accessSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readlinkSync,
  realpathSync,
  renameSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { errnoOf, HostError } from "../base/errors.ts";

/** How long a pipe's reader may take nothing, and how often it is tried, in milliseconds. */
const PATIENCE_MS = 10_000;
const RETRY_MS = 10;
/**
 * What a directory or file system may refuse of a new file beside the old one: the old one can be written all the same.
 */
const NO_NEIGHBOUR: ReadonlySet<string> = new Set(["EACCES", "EPERM", "EROFS", "EBUSY", "EXDEV", "ENAMETOOLONG"]);

/**
 * Writes a text to a file, all of it or nothing. A new file of the same name and mode is written whole, then replaces a
 * regular file. Pipes, terminals and this process's own descriptors are written to as they are; a pipe is waited for
 * without blocking.
 *
 * @param what For messages: `the summary`.
 * @throws HostError
 */
export async function writeFile(what: string, path: string, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found !== undefined && !found.isFile()) await writeStream(what, path, bytes);
    else if (found !== undefined && isOwnDescriptor(path)) append(path, bytes);
    else if (!replace(path, found, bytes)) overwrite(path, bytes);
  } catch (error) {
    if (error instanceof HostError) throw error;
    const errno = errnoOf(error);
    const code = errno === "ENXIO" ? "TSVMM_PIPE_UNREAD" : "TSVMM_OUTPUT_FILE";
    throw new HostError(code, `Cannot write ${what} to ${path}: ${errno}`);
  }
}

/** A name such as /dev/stdout, which leads to what this process has open: a new file in its place would not be that. */
function isOwnDescriptor(path: string): boolean {
  let name = resolve(path);
  for (let links = 0; links < 40; links++) {
    if (/^\/(proc\/[^/]+(\/task\/\d+)?\/fd|dev\/fd)\/\d+$/.test(name)) return true;
    if (lstatSync(name, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return false;
    name = resolve(realpathSync(dirname(name)), readlinkSync(name));
  }
  return false;
}

/** @returns False when there can be no file beside the old one; nothing was changed then. */
function replace(path: string, found: Stats | undefined, bytes: Uint8Array): boolean {
  // A symbolic link stays; one to nothing is written through.
  if (found === undefined && lstatSync(path, { throwIfNoEntry: false }) !== undefined) return false;
  if (found !== undefined) accessSync(path, constants.W_OK); // a directory's permission is not the file's
  const target = found === undefined ? path : realpathSync(path);
  const neighbour = join(dirname(target), `.${basename(target)}.${randomBytes(6).toString("hex")}`);
  let file: number;
  try {
    file = openSync(neighbour, "wx");
  } catch (error) {
    if (found !== undefined && NO_NEIGHBOUR.has(errnoOf(error))) return false;
    throw error;
  }
  try {
    try {
      if (found !== undefined) likeThe(found, file);
      writeAll(file, bytes);
      fsyncSync(file); // the name must not reach the medium before the content
    } finally {
      closeSync(file);
    }
    renameSync(neighbour, target);
    return true;
  } catch (error) {
    unlinkSync(neighbour);
    if (found !== undefined && NO_NEIGHBOUR.has(errnoOf(error))) return false;
    throw error;
  }
}

/** Owner and mode as the old file had them, as far as this user may. */
function likeThe(old: Stats, file: number): void {
  try {
    fchownSync(file, old.uid, old.gid);
  } catch {
    // it is this user's then
  }
  fchmodSync(file, old.mode & 0o777);
}

function overwrite(path: string, bytes: Uint8Array): void {
  const file = openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o666);
  try {
    writeAll(file, bytes);
    ftruncateSync(file, bytes.length);
  } finally {
    closeSync(file);
  }
}

function append(path: string, bytes: Uint8Array): void {
  const file = openSync(path, constants.O_WRONLY | constants.O_APPEND);
  try {
    writeAll(file, bytes);
  } finally {
    closeSync(file);
  }
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
}

async function writeStream(what: string, path: string, bytes: Uint8Array): Promise<void> {
  const file = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  try {
    let deadline = performance.now() + PATIENCE_MS;
    for (let done = 0; done < bytes.length; ) {
      const count = writeSome(file, bytes, done);
      done += count;
      if (count > 0) deadline = performance.now() + PATIENCE_MS;
      else if (performance.now() >= deadline)
        throw new HostError("TSVMM_PIPE_UNREAD", `Cannot write ${what} to ${path}: its reader takes nothing`, "");
      else await sleep(RETRY_MS);
    }
  } finally {
    closeSync(file);
  }
}

/** @returns 0 when there is no room now. */
function writeSome(file: number, bytes: Uint8Array, start: number): number {
  try {
    return writeSync(file, bytes, start);
  } catch (error) {
    if (errnoOf(error) !== "EAGAIN") throw error;
    return 0;
  }
}
