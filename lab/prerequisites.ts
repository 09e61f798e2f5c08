import type { Progress } from "../tools/apt.ts";
import { ensurePrerequisites, IMAGE_PREREQUISITES, type Prerequisite } from "../tools/prerequisites.ts";

/** What the nested host takes, beside what its images take. */
export const LAB_PREREQUISITES: readonly Prerequisite[] = [
  ...IMAGE_PREREQUISITES,
  { program: "qemu-system-x86_64", package: "qemu-system-x86", purpose: "runs the nested host and its PCI devices" },
  { program: "setpriv", package: "util-linux", purpose: "ends QEMU when the lab is killed" },
  { program: "mformat", package: "mtools", purpose: "makes and reads the SD card's FAT file system" },
];

/**
 * Makes sure that the nested host can run here; as root it installs what is missing, and says what and why.
 *
 * @throws HostError with the exact command when something is missing and this process may not install it.
 */
export const ensureLabPrerequisites = (progress: Progress): Promise<void> =>
  ensurePrerequisites(LAB_PREREQUISITES, progress);
