import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Progress } from "./apt.ts";
import { cacheDirectory, cached } from "./cache.ts";
import { runProgram } from "./program.ts";
import { ToolError } from "./tool-error.ts";

/** A package of another Debian release with everything it depends on. */
export interface UnpackedProgram {
  /** Holds the files of all the packages as they would lie under `/`. */
  readonly directory: string;
  /** What starts a program of it: the release's own dynamic loader, with its libraries, and the program. */
  readonly command: (program: string) => readonly string[];
}

const TREES = "trees";
const LIBRARIES = "usr/lib/x86_64-linux-gnu";
/** What no program reads when it runs. */
const UNUSED = ["doc", "man", "locale", "i18n", "bash-completion", "lintian", "info"];

/**
 * Answers a package of Debian's stable release, unpacked into the cache with all its dependencies down to the C
 * library. A newer one from the backports is preferred. The host's packages and apt's lists stay as they are. The
 * newest one that the cache has serves until it is removed. Needs no root.
 *
 * @throws ToolError when apt has no Debian mirror, or cannot reach it.
 */
export async function debianProgram(name: string, progress: Progress): Promise<UnpackedProgram> {
  const directory = newestTree(name) ?? (await download(name, progress));
  const libraries = join(directory, LIBRARIES);
  return {
    directory,
    command: (program) => [
      join(libraries, "ld-linux-x86-64.so.2"),
      ...["--library-path", libraries],
      join(directory, program),
    ],
  };
}

function newestTree(name: string): string | undefined {
  const trees = join(cacheDirectory(), TREES);
  if (!existsSync(trees)) return undefined;
  const found = readdirSync(trees)
    .filter((entry) => entry.startsWith(`${name}_`))
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }))
    .at(-1);
  return found === undefined ? undefined : join(trees, found);
}

async function download(name: string, progress: Progress): Promise<string> {
  const mirror = await debianMirror();
  const world = mkdtempSync(join(tmpdir(), "tsvmm-apt-"));
  try {
    const apt = privateApt(world, mirror);
    progress(`asking Debian's mirror for its ${name}`);
    await runProgram("apt-get", [...apt, "-qq", "update"]);
    const policy = await runProgram("apt-cache", [...apt, "policy", name]).catch(() => "");
    const version = /^ *Candidate: (\S+)$/m.exec(policy.toString())?.[1];
    if (version === undefined || version === "(none)") {
      throw new ToolError(`Cannot bring the Debian package ${name}: its mirror has none, or does not answer`);
    }
    return await cached(join(TREES, `${name}_${version.replaceAll(":", "%3a")}`), async (tree) => {
      progress(`downloading ${name} ${version} with its libraries (unpacked into the cache, not installed)`);
      const install = ["-qq", "-y", "--download-only", "--no-install-recommends", "install", name];
      await runProgram("apt-get", [...apt, ...install]);
      const archives = join(world, "cache", "archives");
      for (const file of readdirSync(archives).filter((entry) => entry.endsWith(".deb"))) {
        await runProgram("dpkg-deb", ["-x", join(archives, file), tree]);
      }
      for (const unused of UNUSED) rmSync(join(tree, "usr/share", unused), { recursive: true, force: true });
    });
  } finally {
    rmSync(world, { recursive: true, force: true });
  }
}

/** Answers where this host's own Debian packages come from. */
async function debianMirror(): Promise<string> {
  const said = await runProgram("apt-get", ["indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(LABEL)"]);
  const mirror = /^Debian (\S+) Debian$/m.exec(said.toString())?.[1];
  if (mirror === undefined) throw new ToolError("Cannot find a mirror of Debian: apt's sources name none");
  return mirror;
}

/** Options that give apt a world of its own below a directory: sources, lists, an empty state, a cache. */
function privateApt(directory: string, mirror: string): readonly string[] {
  for (const folder of ["lists/partial", "cache/archives/partial", "parts"]) {
    mkdirSync(join(directory, folder), { recursive: true });
  }
  const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
  const signed = existsSync(keyring) ? ` [signed-by=${keyring}]` : "";
  const sources = ["stable", "stable-backports"].map((suite) => `deb${signed} ${mirror} ${suite} main\n`);
  writeFileSync(join(directory, "sources.list"), sources.join(""));
  writeFileSync(join(directory, "status"), "");
  const settings: Readonly<Record<string, string>> = {
    "Dir::Etc::sourcelist": join(directory, "sources.list"),
    "Dir::Etc::sourceparts": join(directory, "parts"),
    "Dir::Etc::preferences": "/dev/null",
    "Dir::Etc::preferencesparts": join(directory, "parts"),
    "Dir::State::lists": join(directory, "lists"),
    "Dir::State::status": join(directory, "status"),
    "Dir::Cache": join(directory, "cache"),
    "APT::Default-Release": "stable-backports",
    "APT::Architecture": "amd64",
    "Acquire::Retries": "0",
    "Acquire::http::Timeout": "15",
    // As root, apt drops to a user who may not write here.
    ...(process.getuid?.() === 0 ? { "APT::Sandbox::User": "root" } : {}),
  };
  return Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
}
