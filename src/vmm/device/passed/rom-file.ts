import { readFileSync } from "node:fs";
import { errnoOf, HostError } from "../../../base/errors.ts";
import type { OtherRomContent } from "../../../passthrough/rom.ts";
import type { RomSpec } from "../../spec/spec.ts";

/**
 * Reads what a function shows as its expansion ROM.
 *
 * @param name The function's name, for the error.
 * @returns `undefined` for the device's own ROM.
 * @throws HostError when the file cannot be read.
 */
export function readRom(name: string, rom: RomSpec | undefined): OtherRomContent | undefined {
  if (rom === undefined || rom.kind === "on") return undefined;
  if (rom.kind === "off") return "none";
  try {
    return readFileSync(rom.path);
  } catch (error) {
    throw new HostError(
      "TSVMM_FILE_UNREADABLE",
      `Cannot read the expansion ROM for ${name}: ${rom.path}: ${errnoOf(error)}`,
    );
  }
}
