import { spawnSync } from "node:child_process";
import { closeSync, constants, openSync, writeSync } from "node:fs";
import { basename } from "node:path";
import { HostError } from "../base/errors.ts";
import type { HostChanges } from "./binding.ts";
import { writeSlowly } from "./slow-write.ts";

/** modprobe lives where a user's PATH may not lead. */
const SBIN = "/usr/sbin:/sbin";

/**
 * Changes the host indeed.
 *
 * @param onWait Called every ten seconds while a driver does not let go of a function, by the function's address.
 */
export const hostChanges = (onWait: (bdf: string, seconds: number) => void): HostChanges => ({
  write: (file, text) => {
    if (basename(file) === "unbind") return writeSlowly(file, text, (seconds) => onWait(text.trim(), seconds));
    // Write-only, as some of sysfs' files are, and without creating what is not there.
    const opened = openSync(file, constants.O_WRONLY);
    try {
      writeSync(opened, text);
    } finally {
      closeSync(opened);
    }
  },
  loadModule: (name) => {
    const path = `${process.env["PATH"] ?? ""}:${SBIN}`;
    const { status, stderr, error } = spawnSync("modprobe", [name], {
      encoding: "utf8",
      env: { ...process.env, PATH: path },
    });
    if (status === 0) return;
    const reason = error?.message ?? stderr.trim().split("\n").at(-1) ?? "";
    throw new HostError(
      "TSVMM_MODULE_LOAD",
      `Cannot load module ${name}: ${reason || `modprobe ended with ${status}`}`,
    );
  },
});
