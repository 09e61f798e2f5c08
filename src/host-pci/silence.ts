import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { rescanCommands } from "../base/silent-device.ts";

const PCI_CLASS_REVISION = 0x08;

/** How a silent function comes back. */
export const silenceRemedy = (bdf: string): string =>
  `${rescanCommands(bdf)}; if it stays silent, switch the host off and on`;

/**
 * Whether a function's class and revision read as all ones, a value that no function has. The read by sysfs wakes it.
 * Its files `class` and `vendor` keep the values of the boot.
 *
 * @param path Its directory in sysfs. One whose configuration space cannot be read is not called silent.
 */
export function isSilent(path: string): boolean {
  const bytes = new Uint8Array(4);
  try {
    const file = openSync(join(path, "config"), "r");
    try {
      if (readSync(file, bytes, 0, bytes.length, PCI_CLASS_REVISION) !== bytes.length) return false;
    } finally {
      closeSync(file);
    }
  } catch {
    return false; // no such file, or not ours to look at
  }
  return bytes.every((byte) => byte === 0xff);
}
