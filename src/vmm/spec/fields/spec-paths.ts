import { existsSync, realpathSync, type Stats, statSync } from "node:fs";
import { basename, join } from "node:path";
import { type ErrorCode, errnoOf, fileErrorCode, SpecError } from "../../../base/errors.ts";
import { formatBdf, parseBdf } from "../../../pci/bdf.ts";

const PCI_DEVICES = "/sys/bus/pci/devices";

/** Why a path cannot be examined, as text. */
function fileProblem(path: string, error: unknown): string {
  // Cast: node's fs throws errors with a code.
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOENT" || code === "ENOTDIR") return `there is no file ${path}`;
  if (code === "EACCES" || code === "EPERM") return `this user may not look at ${path}`;
  return `cannot look at ${path}: ${code}`;
}

/** @throws SpecError for what is not the text of a path */
export function needPath(where: string, path: unknown): string {
  if (typeof path !== "string" || path === "") throw new SpecError("TSVMM_VALUE_MISSING", where, "a path is needed");
  if (path.includes("\0")) throw new SpecError("TSVMM_VALUE_INVALID", where, "the path contains a NUL character");
  return path;
}

/** @param absent The code for what is not there. */
function status(where: string, path: string, absent: ErrorCode = "TSVMM_FILE_ABSENT"): Stats {
  try {
    return statSync(path);
  } catch (error) {
    const code = fileErrorCode(errnoOf(error));
    throw new SpecError(code === "TSVMM_FILE_ABSENT" ? absent : code, where, fileProblem(path, error));
  }
}

/**
 * Checks that a file to be loaded is there.
 *
 * @param most The largest size it may have, in bytes.
 * @throws SpecError when it is missing, empty, too large or no regular file.
 */
export function checkImage(where: string, path: string, most: number = Number.POSITIVE_INFINITY): void {
  const found = status(where, path);
  if (found.isDirectory()) throw new SpecError("TSVMM_FILE_KIND", where, `${path} is a directory: a file is needed`);
  if (!found.isFile()) throw new SpecError("TSVMM_FILE_KIND", where, `${path} is not a regular file`);
  if (found.size === 0) throw new SpecError("TSVMM_FILE_EMPTY", where, `${path} is empty`);
  if (found.size > most)
    throw new SpecError("TSVMM_FILE_TOO_LARGE", where, `${path} has ${found.size} bytes: at most ${most} are possible`);
}

/**
 * Checks that a disk image is there.
 *
 * @throws SpecError when it is missing, empty, or neither a regular file nor a block device.
 */
export function checkDisk(where: string, path: string): void {
  const found = status(where, path);
  if (found.isDirectory())
    throw new SpecError("TSVMM_FILE_KIND", where, `${path} is a directory: a disk image or block device is needed`);
  if (!found.isFile() && !found.isBlockDevice()) {
    throw new SpecError("TSVMM_FILE_KIND", where, `${path} is neither a regular file nor a block device`);
  }
  if (found.isFile() && found.size === 0) throw new SpecError("TSVMM_FILE_EMPTY", where, `${path} is empty`);
}

/**
 * Checks that a unix socket is there; whether anybody listens, only connecting tells.
 *
 * @throws SpecError when it is missing or something else.
 */
export function checkSocket(where: string, path: string): void {
  if (!status(where, path, "TSVMM_SOCKET_ABSENT").isSocket())
    throw new SpecError("TSVMM_FILE_KIND", where, `${path} is not a socket`);
}

/** @throws SpecError when there is nothing to read at `path`. */
export function checkSource(where: string, path: string): void {
  if (status(where, path).isDirectory())
    throw new SpecError("TSVMM_FILE_KIND", where, `${path} is a directory: a file or device is needed`);
}

/**
 * Finds a PCI function of the host.
 *
 * @param path Its sysfs directory, with or without a slash at its end, or its address: "0000:01:00.0", "01:00.0".
 * @param pciDevices Where sysfs lists PCI functions.
 * @returns The directory's real path, whose last part is the function's address.
 * @throws SpecError when there is no such function, or the path is something else.
 */
export function resolvePciFunction(where: string, path: unknown, pciDevices: string = PCI_DEVICES): string {
  if (typeof path !== "string" || path === "") {
    throw new SpecError(
      "TSVMM_VALUE_INVALID",
      where,
      "a PCI function is needed: its sysfs directory, or its address as in 0000:01:00.0",
    );
  }
  needPath(where, path);
  const bdf = parseBdf(path);
  const directory = bdf === undefined ? path : join(pciDevices, formatBdf(bdf));
  let real: string;
  try {
    real = realpathSync(directory);
  } catch (error) {
    const address = parseBdf(basename(directory));
    const isMissing = !existsSync(directory);
    if (isMissing && address !== undefined) {
      throw new SpecError(
        "TSVMM_DEVICE_ABSENT",
        where,
        `this machine has no PCI function ${formatBdf(address)} (tsvmm devices lists them)`,
      );
    }
    throw new SpecError(
      fileErrorCode(errnoOf(error)),
      where,
      fileProblem(path, error).replace("no file", "no directory"),
    );
  }
  const hasFunctionFiles = existsSync(join(real, "vendor")) && existsSync(join(real, "config"));
  if (parseBdf(basename(real)) === undefined || !hasFunctionFiles) {
    throw new SpecError(
      "TSVMM_NOT_PCI_FUNCTION",
      where,
      `${path} is not a PCI function: give a directory like ${PCI_DEVICES}/0000:01:00.0`,
    );
  }
  return real;
}
