import type { ImageFile, LoadPlan, MemoryMapEntry } from "../../src/base/load-plan.ts";
import { gpa } from "../../src/base/units.ts";
import type { BootRequest } from "../../src/boot/boot-request.ts";

const MIB = 1024 * 1024;

export interface RequestOptions {
  readonly memoryMib?: number;
  readonly cmdline?: string;
  readonly initramfs?: ImageFile;
  readonly memoryMap?: readonly MemoryMapEntry[];
}

/** A boot request for a machine with one piece of RAM, as a PC maps it, and the ACPI root pointer at 0xe0000. */
export function bootRequest(kernel: ImageFile, options: RequestOptions = {}): BootRequest {
  const sizeBytes = (options.memoryMib ?? 64) * MIB;
  const request: BootRequest = {
    kernel,
    cmdline: options.cmdline ?? "console=ttyS0",
    ramRegions: [{ gpa: gpa(0), sizeBytes, fileOffset: 0 }],
    memoryMap: options.memoryMap ?? [
      { address: gpa(0), sizeBytes: 0xa_0000, kind: "ram" },
      { address: gpa(0xe_0000), sizeBytes: 0x2_0000, kind: "acpi" },
      { address: gpa(MIB), sizeBytes: sizeBytes - MIB, kind: "ram" },
      { address: gpa(0xe800_0000), sizeBytes: 0x1000_0000, kind: "reserved" },
    ],
    rsdp: gpa(0xe_0000),
  };
  return options.initramfs === undefined ? request : { ...request, initramfs: options.initramfs };
}

/** The bytes a plan writes at an address. */
export function writtenAt(plan: LoadPlan, address: number): DataView {
  const write = plan.writes.find((candidate) => candidate.address === address);
  if (write === undefined) throw new Error(`The plan writes nothing at 0x${address.toString(16)}`);
  return new DataView(write.bytes.buffer, write.bytes.byteOffset, write.bytes.byteLength);
}

/** Text up to the NUL, from a plan's write. */
export function textAt(plan: LoadPlan, address: number, offset = 0): string {
  const view = writtenAt(plan, address);
  let text = "";
  for (let at = offset; at < view.byteLength && view.getUint8(at) !== 0; at++) {
    text += String.fromCharCode(view.getUint8(at));
  }
  return text;
}
