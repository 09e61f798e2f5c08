import { apt, aptKnows, type Progress, refreshLists } from "./apt.ts";
import { findProgram } from "./program.ts";
import { ToolError } from "./tool-error.ts";

/** A program of the host that we run, the Debian package that has it, and what for. */
export interface Prerequisite {
  readonly program: string;
  readonly package: string;
  readonly purpose: string;
}

/** What building guest images takes, beside dpkg and apt. */
export const IMAGE_PREREQUISITES: readonly Prerequisite[] = [
  { program: "xz", package: "xz-utils", purpose: "unpacks the kernel" },
  { program: "depmod", package: "kmod", purpose: "lists what each kernel module needs" },
  { program: "mke2fs", package: "e2fsprogs", purpose: "makes the guest's root file system" },
];

/** Answers those that are not installed. */
export function missingPrerequisites(needed: readonly Prerequisite[]): readonly Prerequisite[] {
  return needed.filter((prerequisite) => findProgram(prerequisite.program) === undefined);
}

/**
 * Makes sure that the host has what is needed; as root it installs what is missing, and says what and why.
 *
 * @throws ToolError with the exact command to run when something is missing and this process may not install it.
 */
export async function ensurePrerequisites(needed: readonly Prerequisite[], progress: Progress): Promise<void> {
  const missing = missingPrerequisites(needed);
  if (missing.length > 0) {
    const packages = [...new Set(missing.map((prerequisite) => prerequisite.package))];
    const command = `apt-get install --no-install-recommends ${packages.join(" ")}`;
    const reasons = missing.map((one) => `${one.program} (package ${one.package}: ${one.purpose})`).join(", ");
    if (process.getuid?.() !== 0 || findProgram("apt-get") === undefined) {
      throw new ToolError(`Cannot go on without ${reasons}`, `run, as root: ${command}`);
    }
    progress(`installing what is missing: ${reasons}`);
    // Lists may be absent on a fresh machine, or name versions that are no longer served.
    if (!(await aptKnows(packages)) || !(await install(packages))) {
      await refreshLists(progress);
      if (!(await install(packages)))
        throw new ToolError(`Cannot install ${packages.join(", ")}`, `see what it says: ${command}`);
    }
  }
}

const install = (packages: readonly string[]): Promise<boolean> =>
  apt(["install", "-y", "--no-install-recommends", ...packages]);
