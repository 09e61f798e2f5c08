import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { candidateVersion, type Progress } from "../tools/apt.ts";
import { cacheDirectory, cached } from "../tools/cache.ts";
import { runProgram } from "../tools/program.ts";
import { ToolError } from "../tools/tool-error.ts";

/** How a colon of a version is spelled in a directory's name, as in apt's own file names. */
const COLON = "%3a";

/** A Debian package unpacked into the cache; it is never installed. */
export interface UnpackedPackage {
  readonly name: string;
  readonly version: string;
  /** Directory that holds the package's files as they would lie under `/`. */
  readonly directory: string;
}

/**
 * Answers the newest version of a package, unpacked into the cache, downloading it first when it is not there. Needs no
 * root.
 *
 * @throws ToolError when apt does not know the package, or cannot download it.
 */
export async function debianPackage(name: string, progress: Progress): Promise<UnpackedPackage> {
  const version = await candidateVersion(name);
  if (version === undefined) {
    throw new ToolError(`Cannot find the Debian package ${name}: apt does not know it`, "run apt-get update as root");
  }
  const directory = await cached(join("packages", `${name}_${version.replaceAll(":", COLON)}`), async (partial) => {
    progress(`downloading the Debian package ${name} ${version} (unpacked into the cache, not installed)`);
    const download = join(partial, "download");
    mkdirSync(download);
    // As root, apt drops to a user who may not write here, and warns that it did not.
    const asRoot = process.getuid?.() === 0 ? ["-o", "APT::Sandbox::User=root"] : [];
    await runProgram("apt-get", [...asRoot, "-qq", "download", `${name}=${version}`], { cwd: download });
    const file = readdirSync(download).find((entry) => entry.endsWith(".deb"));
    if (file === undefined) throw new ToolError(`Cannot download the Debian package ${name}: apt-get left no file`);
    await runProgram("dpkg-deb", ["-x", join(download, file), partial]);
    rmSync(download, { recursive: true });
  });
  return { name, version, directory };
}

/**
 * Answers the newest unpacked package of the cache whose name matches: it serves until a newer one is asked for.
 *
 * @param pattern Must match the whole package name.
 */
export function newestCachedPackage(pattern: RegExp): UnpackedPackage | undefined {
  const packages = join(cacheDirectory(), "packages");
  if (!existsSync(packages)) return undefined;
  const found = readdirSync(packages)
    .map((entry) => ({
      entry,
      name: entry.split("_")[0] ?? "",
      version: (entry.split("_")[1] ?? "").replaceAll(COLON, ":"),
    }))
    .filter(({ name, version }) => pattern.test(name) && version !== "")
    .sort((a, b) => a.entry.localeCompare(b.entry, "en", { numeric: true }))
    .at(-1);
  return found && { name: found.name, version: found.version, directory: join(packages, found.entry) };
}
