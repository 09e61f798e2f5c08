import type { CpuStart, GeneralRegister, SegmentState } from "../base/cpu-state.ts";
import { SpecError } from "../base/errors.ts";
import type { FileSegment, ImageFile } from "../base/load-plan.ts";
import { hex, TWO_POW_32 } from "../base/units.ts";
import { emptyBytes } from "./bytes.ts";
import { GDT_ADDRESS } from "./layout.ts";

/** Segment types. Intel SDM vol. 3 §3.4.5.1 and §3.5 */
const CODE_EXECUTE_READ_ACCESSED = 0xb;
const DATA_READ_WRITE_ACCESSED = 0x3;
const BUSY_TSS = 0xb;

const CR0_PE = 0x1;
/** Bit 1 of RFLAGS is always set; interrupts are off. */
const RFLAGS_FIXED = 0x2;

/** Which descriptors a protocol promises; the task register takes the next one behind. */
export interface Selectors {
  readonly code: number;
  readonly data: number;
}

/** PVH and multiboot name no selectors; these are the usual first two. */
export const FIRST_SELECTORS: Selectors = { code: 0x08, data: 0x10 };
/** __BOOT_CS and __BOOT_DS. Linux x86 boot protocol, "32-bit Boot Protocol" */
export const LINUX_SELECTORS: Selectors = { code: 0x10, data: 0x18 };

function flatSegment(selector: number, type: number): SegmentState {
  return { selector, base: 0, limit: 0xffff_ffff, type, present: 1, dpl: 0, db: 1, s: 1, l: 0, g: 1 };
}

/** A segment as the eight bytes of its descriptor. Intel SDM vol. 3 §3.4.5, figure 3-8 */
function storeDescriptor(table: DataView, segment: SegmentState): void {
  const limit = segment.g === 1 ? Math.floor(segment.limit / 4096) : segment.limit;
  const access = segment.type | (segment.s << 4) | (segment.dpl << 5) | (segment.present << 7);
  const flags = (segment.l << 1) | (segment.db << 2) | (segment.g << 3);
  table.setUint16(segment.selector, limit & 0xffff, true);
  table.setUint16(segment.selector + 2, segment.base & 0xffff, true);
  table.setUint8(segment.selector + 4, (segment.base >>> 16) & 0xff);
  table.setUint8(segment.selector + 5, access);
  table.setUint8(segment.selector + 6, ((limit >>> 16) & 0xf) | (flags << 4));
  table.setUint8(segment.selector + 7, segment.base >>> 24);
}

/**
 * Checks where a kernel is entered: in a segment, and where 32-bit mode reaches.
 *
 * @param what The entry as the protocol calls it.
 * @throws SpecError
 */
export function checkEntry(kernel: ImageFile, what: string, entry: number, segments: readonly FileSegment[]): void {
  if (!segments.some(({ address, memoryBytes }) => entry >= address && entry < address + memoryBytes)) {
    throw new SpecError(
      "TSVMM_KERNEL_DAMAGED",
      "kernel",
      `${kernel.name} is damaged: its ${what} ${hex(entry)} is in no segment`,
    );
  }
  if (entry < TWO_POW_32) return;
  const state = `its entry is at ${hex(entry)}, but kernels are entered in 32-bit mode, below ${hex(TWO_POW_32)}`;
  throw new SpecError("TSVMM_KERNEL_UNSUPPORTED", "kernel", `${kernel.name} cannot be started: ${state}`);
}

/**
 * The state all three protocols start in: 32-bit protected mode, flat 4 GiB segments, paging and interrupts off, an
 * empty IDT. The descriptor table is in guest memory too, because a guest may reload its segment registers before it
 * loads a table of its own.
 *
 * @returns The state, and the table's bytes for {@link GDT_ADDRESS}.
 */
export function flatProtectedMode(
  selectors: Selectors,
  registers: Readonly<Partial<Record<GeneralRegister, number>>>,
): { readonly start: CpuStart; readonly gdt: DataView } {
  const cs = flatSegment(selectors.code, CODE_EXECUTE_READ_ACCESSED);
  const data = flatSegment(selectors.data, DATA_READ_WRITE_ACCESSED);
  const tr: SegmentState = {
    ...{ selector: selectors.data + 8, base: 0, limit: 0x67, type: BUSY_TSS },
    ...{ present: 1, dpl: 0, db: 0, s: 0, l: 0, g: 0 },
  };
  const gdt = emptyBytes(tr.selector + 8);
  for (const segment of [cs, data, tr]) storeDescriptor(gdt, segment);
  const start: CpuStart = {
    registers: { rflags: RFLAGS_FIXED, ...registers },
    cr0: CR0_PE,
    cr3: 0,
    cr4: 0,
    efer: 0,
    cs,
    data,
    tr,
    gdt: { base: GDT_ADDRESS, limit: gdt.byteLength - 1 },
    idt: { base: 0, limit: 0 },
  };
  return { start, gdt };
}
