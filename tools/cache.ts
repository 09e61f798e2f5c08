import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { ToolError } from "./tool-error.ts";

/**
 * Prefix of directories that are being filled; the process id follows, so that leftovers of a killed run can be told.
 */
const PARTIAL = ".partial-";

/** To be raised when the code that builds images changes what it builds: part of their fingerprints. */
export const BUILD_VERSION = "2";

/** Answers the project's root: the nearest directory above this file that holds `package.json`. */
export function projectRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, "package.json"))) {
    const parent = dirname(directory);
    if (parent === directory) throw new ToolError("Cannot find the project's package.json above the compiled files");
    directory = parent;
  }
  return directory;
}

/** Answers where downloads and built images are kept: `$TSVMM_CACHE`, or `.cache` in the project's root. */
export function cacheDirectory(): string {
  return resolve(process.env["TSVMM_CACHE"] || join(projectRoot(), ".cache"));
}

/** Answers a short fingerprint of what a build is made from, to be part of its name. */
export function fingerprint(...inputs: readonly string[]): string {
  const hash = createHash("sha256");
  for (const input of inputs) hash.update(`${input.length}:`).update(input);
  return hash.digest("hex").slice(0, 12);
}

/**
 * Answers the cached directory `name`, filling it first when it is not there.
 *
 * The directory appears under its name only when `fill` has ended well, so an interrupted run leaves nothing half-done.
 * Two runs at the same time do no harm: the second one's work is thrown away.
 *
 * @param name Path below the cache directory; it names everything the content depends on (package versions,
 *   fingerprints).
 * @param fill Writes the content into the directory it is given.
 */
export async function cached(name: string, fill: (directory: string) => Promise<void>): Promise<string> {
  const target = join(cacheDirectory(), name);
  if (existsSync(target)) return target;
  const parent = dirname(target);
  mkdirSync(parent, { recursive: true });
  removeLeftovers(parent);
  const partial = join(parent, `${PARTIAL}${process.pid}-${fingerprint(name)}`);
  mkdirSync(partial);
  try {
    await fill(partial);
    renameSync(partial, target);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    if (!existsSync(target)) throw error;
  }
  return target;
}

/** Removes what runs that are no longer alive have left half-done. */
function removeLeftovers(directory: string): void {
  for (const name of readdirSync(directory)) {
    if (!name.startsWith(PARTIAL)) continue;
    const pid = Number.parseInt(name.slice(PARTIAL.length), 10);
    if (!existsSync(`/proc/${pid}`)) rmSync(join(directory, name), { recursive: true, force: true });
  }
}
