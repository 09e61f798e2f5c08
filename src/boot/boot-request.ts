import { SpecError } from "../base/errors.ts";
import type { RamRegion } from "../base/guest-memory.ts";
import type { ImageFile, MemoryMapEntry } from "../base/load-plan.ts";
import type { Gpa } from "../base/units.ts";
import { cString } from "./bytes.ts";
import { COMMAND_LINE_ROOM } from "./layout.ts";

/** What a boot protocol starts from. */
export interface BootRequest {
  readonly kernel: ImageFile;
  readonly initramfs?: ImageFile;
  /** Handed to the guest as it is. */
  readonly cmdline: string;
  readonly ramRegions: readonly RamRegion[];
  /** The map the guest is given: RAM without the pieces that firmware tables occupy. */
  readonly memoryMap: readonly MemoryMapEntry[];
  /** Where the ACPI root pointer is; it is there before the guest starts, by other hands. */
  readonly rsdp: Gpa;
}

/**
 * The command line as bytes with a NUL.
 *
 * @param limit What the kernel accepts, in bytes without the NUL. Longer lines are cut by kernels without a word, so
 *   they are refused.
 * @param program Argument 0, where the protocol has one: it goes before the line.
 * @throws SpecError
 */
export function commandLineBytes(cmdline: string, limit: number, program = ""): Uint8Array {
  if (cmdline.includes("\0")) throw new SpecError("TSVMM_CMDLINE", "cmdline", "contains a NUL character");
  const bytes = cString([program, cmdline].filter((part) => part !== "").join(" "));
  const room = Math.min(limit, COMMAND_LINE_ROOM - 1);
  if (bytes.length - 1 > room) {
    const sizeBytes = cString(cmdline).length - 1;
    const taken = bytes.length - 1 - sizeBytes;
    const rest = taken === 0 ? "" : ` with its path before it, which takes ${taken} of them`;
    throw new SpecError("TSVMM_CMDLINE", "cmdline", `is ${sizeBytes} bytes long: this kernel takes ${room}${rest}`);
  }
  return bytes;
}
