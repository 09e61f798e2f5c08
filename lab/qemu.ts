import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Progress } from "../guest-images/apt.ts";
import { cached } from "../guest-images/cache.ts";
import { findProgram, runProgram } from "../guest-images/program.ts";
import { HostError } from "../src/base/errors.ts";
import type { Accelerator } from "./accelerator.ts";

/** A QEMU to run the nested host with. */
export interface Qemu {
  readonly program: string;
  /** Where its firmware is, when not where it looks by itself. */
  readonly dataDirectories: readonly string[];
  /** `[major, minor]` */
  readonly version: readonly [number, number];
}

/**
 * The version from which on the translator treats VMRUN as the manual says: before, it lost the interrupt shadow at its entry and exit,
 * and now and then a nested guest or its host with it. Debian 12 has 7.2; its backports have 10.0.
 */
const SOUND_NESTING: readonly [number, number] = [9, 1];

/** What has to come from the same version. */
const PACKAGES = ["qemu-system-x86", "qemu-system-data", "seabios"];

/** Reads what `qemu-system-x86_64 --version` prints. */
export function parseQemuVersion(text: string): readonly [number, number] | undefined {
  const [, major, minor] = /version (\d+)\.(\d+)/.exec(text) ?? [];
  return major === undefined || minor === undefined ? undefined : [Number(major), Number(minor)];
}

/** Answers whether `version` nests reliably without hardware help. */
export const nestsSoundly = ([major, minor]: readonly [number, number]): boolean =>
  major > SOUND_NESTING[0] || (major === SOUND_NESTING[0] && minor >= SOUND_NESTING[1]);

/**
 * Answers the QEMU for a nested host: the installed one, or, where it would translate and is too old for that, the one of Debian's backports,
 * unpacked into the cache. Where that cannot be had the installed one has to do, which is said.
 *
 * @throws HostError when none is installed.
 */
export async function qemuFor(accelerator: Accelerator, progress: Progress): Promise<Qemu> {
  const installed = await installedQemu();
  if (accelerator === "kvm" || nestsSoundly(installed.version)) return installed;
  try {
    return await backportedQemu(progress);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    progress(
      `going on with QEMU ${installed.version.join(".")}, which loses a nested guest now and then: ${error.message}`,
    );
    return installed;
  }
}

async function installedQemu(): Promise<Qemu> {
  const program = findProgram("qemu-system-x86_64");
  if (program === undefined) throw new HostError("Cannot run qemu-system-x86_64: it is not installed");
  return await describe(program, []);
}

async function describe(program: string, dataDirectories: readonly string[]): Promise<Qemu> {
  const version = parseQemuVersion((await runProgram(program, ["--version"])).toString());
  if (version === undefined) throw new HostError(`Cannot tell the version of ${program}`);
  return { program, dataDirectories, version };
}

/** @throws HostError where there are no backports, or what they have does not run here. */
async function backportedQemu(progress: Progress): Promise<Qemu> {
  const codename = /^VERSION_CODENAME=(\w+)/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "";
  const suite = `${codename}-backports`;
  const directory = await cached(join("qemu", suite), async (partial) => {
    progress(`downloading a newer QEMU from ${suite} (12 MB, unpacked into the cache, not installed)`);
    const work = join(partial, "download");
    for (const path of ["lists/partial", "cache/archives/partial"]) mkdirSync(join(work, path), { recursive: true });
    const options = await aptOptions(work, suite, codename);
    await runProgram("apt-get", [...options, "-qq", "update"]);
    await runProgram("apt-get", [...options, "-qq", "download", ...PACKAGES.map((name) => `${name}/${suite}`)], {
      cwd: work,
    });
    for (const file of readdirSync(work).filter((name) => name.endsWith(".deb"))) {
      await runProgram("dpkg-deb", ["-x", join(work, file), partial]);
    }
    rmSync(work, { recursive: true });
    // The libraries are the installed one's: what does not find them is not kept.
    await describe(join(partial, PROGRAM), []);
  });
  return await describe(
    join(directory, PROGRAM),
    DATA.map((path) => join(directory, path)),
  );
}

const PROGRAM = "usr/bin/qemu-system-x86_64";
const DATA = ["usr/share/qemu", "usr/share/seabios"];

/** Lets apt look at the backports of the mirror that this machine uses, with lists of its own: nothing of the machine's changes. */
async function aptOptions(work: string, suite: string, codename: string): Promise<readonly string[]> {
  const format = ["--format", "$(SITE)", `Codename: ${codename}`, "Component: main", "Created-By: Packages"];
  const [site] = (await runProgram("apt-get", ["indextargets", ...format])).toString().split("\n").filter(Boolean);
  if (site === undefined) throw new HostError(`Cannot find a mirror of ${codename} among apt's sources`);
  const list = join(work, "sources.list");
  const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
  writeFileSync(list, `deb [signed-by=${keyring}] ${site} ${suite} main\n`);
  const settings = {
    "Dir::Etc::SourceList": list,
    "Dir::Etc::SourceParts": "-",
    "Dir::State::Lists": join(work, "lists"),
    "Dir::Cache": join(work, "cache"),
    // As root, apt drops to a user who may not write here, and warns that it did not.
    "APT::Sandbox::User": "root",
  };
  return Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
}
