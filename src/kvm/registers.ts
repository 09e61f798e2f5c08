import type { CpuStart, GeneralRegister, SegmentState } from "../base/cpu-state.ts";
import { DTABLE, REGS, SEGMENT, SREGS } from "./abi-structs.ts";

const GENERAL_REGISTERS: readonly GeneralRegister[] = [
  "rax",
  "rbx",
  "rcx",
  "rdx",
  "rsi",
  "rdi",
  "rsp",
  "rbp",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
  "rip",
  "rflags",
];

/** rflags: bit 1 is always set. Intel SDM vol. 1 §3.4.3 */
const RFLAGS_FIXED = 2;

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** struct kvm_regs for a boot protocol's start: what it does not name is zero. */
export function encodeRegs(start: CpuStart): Uint8Array {
  const bytes = new Uint8Array(REGS.size);
  const view = viewOf(bytes);
  for (const name of GENERAL_REGISTERS) {
    const fallback = name === "rflags" ? RFLAGS_FIXED : 0;
    view.setBigUint64(REGS[name], BigInt(start.registers[name] ?? fallback), true);
  }
  return bytes;
}

/**
 * Puts a boot protocol's start into struct kvm_sregs as KVM_GET_SREGS gave it; the APIC base and the rest stay as they
 * are.
 */
export function patchSregs(sregs: Uint8Array, start: CpuStart): void {
  const view = viewOf(sregs);
  setSegment(view, SREGS.cs, start.cs);
  for (const name of ["ds", "es", "fs", "gs", "ss"] as const) setSegment(view, SREGS[name], start.data);
  setSegment(view, SREGS.tr, start.tr);
  for (const name of ["gdt", "idt"] as const) {
    view.setBigUint64(SREGS[name] + DTABLE.base, BigInt(start[name].base), true);
    view.setUint16(SREGS[name] + DTABLE.limit, start[name].limit, true);
  }
  for (const name of ["cr0", "cr3", "cr4", "efer"] as const) view.setBigUint64(SREGS[name], BigInt(start[name]), true);
}

function setSegment(view: DataView, at: number, segment: SegmentState): void {
  view.setBigUint64(at + SEGMENT.base, BigInt(segment.base), true);
  view.setUint32(at + SEGMENT.limit, segment.limit, true);
  view.setUint16(at + SEGMENT.selector, segment.selector, true);
  view.setUint8(at + SEGMENT.type, segment.type);
  view.setUint8(at + SEGMENT.present, segment.present);
  view.setUint8(at + SEGMENT.dpl, segment.dpl);
  view.setUint8(at + SEGMENT.db, segment.db);
  view.setUint8(at + SEGMENT.s, segment.s);
  view.setUint8(at + SEGMENT.l, segment.l);
  view.setUint8(at + SEGMENT.g, segment.g);
  view.setUint8(at + SEGMENT.avl, 0);
  view.setUint8(at + SEGMENT.unusable, segment.present === 1 ? 0 : 1);
}

/** What a vCPU holds, for diagnostics. */
export interface VcpuRegisters {
  readonly general: Readonly<Record<GeneralRegister, bigint>>;
  readonly control: Readonly<Record<"cr0" | "cr2" | "cr3" | "cr4" | "efer", bigint>>;
  readonly cs: { readonly selector: number; readonly base: bigint; readonly bits: 16 | 32 | 64 };
}

/** Joins struct kvm_regs and struct kvm_sregs. */
export function decodeRegisters(regs: Uint8Array, sregs: Uint8Array): VcpuRegisters {
  const regsView = viewOf(regs);
  const sregsView = viewOf(sregs);
  const general = Object.fromEntries(GENERAL_REGISTERS.map((name) => [name, regsView.getBigUint64(REGS[name], true)]));
  const control = (name: "cr0" | "cr2" | "cr3" | "cr4" | "efer"): bigint => sregsView.getBigUint64(SREGS[name], true);
  const isLong = sregsView.getUint8(SREGS.cs + SEGMENT.l) !== 0;
  const isBig = sregsView.getUint8(SREGS.cs + SEGMENT.db) !== 0;
  return {
    // Cast: GENERAL_REGISTERS names every member of GeneralRegister, which its type checks in the other direction only.
    general: general as Record<GeneralRegister, bigint>,
    control: {
      cr0: control("cr0"),
      cr2: control("cr2"),
      cr3: control("cr3"),
      cr4: control("cr4"),
      efer: control("efer"),
    },
    cs: {
      selector: sregsView.getUint16(SREGS.cs + SEGMENT.selector, true),
      base: sregsView.getBigUint64(SREGS.cs + SEGMENT.base, true),
      bits: isLong ? 64 : isBig ? 32 : 16,
    },
  };
}

/** Registers as lines of text: the instruction pointer first, then everything else. */
export function describeRegisters({ general, control, cs }: VcpuRegisters): string {
  const cell = (name: string, value: bigint): string => `${name.padStart(6)} ${value.toString(16).padStart(16, "0")}`;
  const lines = [
    `at ${cs.selector.toString(16)}:${general.rip.toString(16)}, ${cs.bits}-bit code, base ${cs.base.toString(16)}`,
  ];
  const cells = [...Object.entries(general), ...Object.entries(control)].map(([name, value]) => cell(name, value));
  for (let from = 0; from < cells.length; from += 4) lines.push(cells.slice(from, from + 4).join(" "));
  return lines.join("\n");
}
