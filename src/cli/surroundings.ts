import { HOST_ROOT, type HostRoot } from "../host-pci/files.ts";
import { PciNames } from "../host-pci/names.ts";
import { type Style, styleFor } from "./output.ts";

/** What a subcommand has around it: where it writes and which host it looks at. Tests bring their own. */
export interface Surroundings {
  /** For results. */
  print(text: string): void;
  /** For remarks, which programs that read the results do not want: standard error. */
  remark(text: string): void;
  readonly style: Style;
  /** Columns that a line of a table on a terminal may have. */
  readonly columns: number;
  readonly root: HostRoot;
  readonly names: () => PciNames;
}

/** A table wider than this is hard to read, however wide the terminal is. */
const WIDEST = 100;
const NARROWEST = 40;

/** This process's. */
export function processSurroundings(): Surroundings {
  const { stdout, stderr, env } = process;
  return {
    print: (text) => void stdout.write(text),
    remark: (text) => void stderr.write(text),
    style: styleFor(stdout, env),
    columns: Math.max(NARROWEST, Math.min(WIDEST, stdout.columns ?? WIDEST)),
    root: HOST_ROOT,
    names: () => PciNames.open(),
  };
}
