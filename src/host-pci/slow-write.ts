import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HostError } from "../base/errors.ts";
import { textFile } from "./files.ts";

/** The other process: writes, and then says how it went by a file that appears whole. */
const WRITER = `
const { closeSync, constants, openSync, renameSync, writeFileSync, writeSync } = require("node:fs");
const [file, text, result] = process.argv.slice(1);
let outcome = "written";
try {
  const opened = openSync(file, constants.O_WRONLY);
  writeSync(opened, text);
  closeSync(opened);
} catch (error) {
  outcome = error.code ?? String(error);
}
writeFileSync(result + ".part", outcome);
renameSync(result + ".part", result);
`;

const LOOK_MS = 5;
const TELL_MS = 10_000;

/**
 * Writes to a file of sysfs in a process of its own, and waits for it. A write to a driver's `unbind` returns when the
 * driver has released the device, which may be never. The writing process cannot be ended meanwhile; this one can.
 *
 * @param onWait Called every `tellMs`, with the seconds waited.
 * @throws an error with the errno's name as its `code`, as node's fs does; HostError when the writer was ended.
 */
export function writeSlowly(
  file: string,
  text: string,
  onWait: (seconds: number) => void,
  tellMs: number = TELL_MS,
): void {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-write-"));
  const result = join(folder, "result");
  const pause = new Int32Array(new SharedArrayBuffer(4));
  try {
    // In a session of its own: Ctrl-C ends who waits, and does not disturb the kernel's work.
    const writer = spawn(process.execPath, ["-e", WRITER, file, text, result], { stdio: "ignore", detached: true });
    writer.unref();
    const started = performance.now();
    let told = 0;
    while (!existsSync(result)) {
      Atomics.wait(pause, 0, 0, LOOK_MS);
      const times = Math.floor((performance.now() - started) / tellMs);
      if (times > told) onWait((times * tellMs) / 1000);
      told = times;
      if (hasEnded(writer.pid) && !existsSync(result))
        throw new HostError("TSVMM_DRIVER_CHANGE", `Cannot write ${file}: the writer was ended`);
    }
    const outcome = readFileSync(result, "utf8");
    if (outcome !== "written") throw Object.assign(new Error(`${outcome}: write ${file}`), { code: outcome });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Whether a child has ended; Node takes note of that only when its event loop turns. */
function hasEnded(pid: number | undefined): boolean {
  const state = /^\d+ \(.*\) (\w)/s.exec(textFile(`/proc/${pid}`, "stat") ?? "")?.[1];
  return state === undefined || state === "Z";
}
