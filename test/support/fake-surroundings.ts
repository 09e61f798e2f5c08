import { join } from "node:path";
import type { Test } from "tap";
import { styleFor } from "../../src/cli/output.ts";
import type { Surroundings } from "../../src/cli/surroundings.ts";
import { PciNames } from "../../src/host-pci/names.ts";
import { fakeSysfs, type SysfsFunction } from "./fake-sysfs.ts";

/** What a subcommand printed, and the pretended host it looked at. */
export interface FakeSurroundings extends Surroundings {
  readonly printed: () => string;
  readonly remarks: () => string;
}

const NAMES = "1b36  Red Hat, Inc.\n\t0010  QEMU NVM Express Controller\nC 01  Mass storage controller\n\t08  NVMe\n";

/** @param columns How wide the terminal is. */
export function fakeSurroundings(t: Test, functions: readonly SysfsFunction[], columns = 100): FakeSurroundings {
  const whole = functions.map((one) => ({ ...one, files: { config: "", ...one.files } }));
  const directory = t.testdir();
  const out: string[] = [];
  const remarks: string[] = [];
  return {
    print: (text) => void out.push(text),
    remark: (text) => void remarks.push(text),
    printed: () => out.join(""),
    remarks: () => remarks.join(""),
    style: styleFor({}, {}),
    columns,
    root: { ...fakeSysfs(directory, whole), run: join(directory, "run") },
    names: () => new PciNames(NAMES),
  };
}
