import t from "tap";
import type { CpuStart, SegmentState } from "../../../src/base/cpu-state.ts";
import { decodeRegisters, describeRegisters, encodeRegs, patchSregs } from "../../../src/kvm/registers.ts";

const SEGMENT: SegmentState = { selector: 0, base: 0, limit: 0, type: 0, present: 1, dpl: 0, db: 0, s: 1, l: 0, g: 1 };
const START: CpuStart = {
  registers: { rip: 0x10_0000, rbx: 0x6000, r15: 0x1f_ffff_ffff_ffff },
  ...{ cr0: 0x8000_0011, cr3: 0x9000, cr4: 0x20, efer: 0x500 },
  cs: { ...SEGMENT, selector: 8, base: 0x1234_5678_9a, limit: 0xf_ffff, type: 11, dpl: 3, l: 1 },
  data: { ...SEGMENT, selector: 0x10, limit: 0xffff_ffff, type: 3, db: 1 },
  tr: { ...SEGMENT, selector: 0x18, limit: 0x67, type: 11, s: 0, g: 0, present: 0 },
  gdt: { base: 0x500, limit: 0x1f },
  idt: { base: 0x520, limit: 7 },
};

t.test("encodeRegs() sets what the start names, rflags to 2, and zeroes the rest", (t) => {
  const view = new DataView(encodeRegs(START).buffer);
  t.equal(view.byteLength, 144);
  t.equal(view.getBigUint64(8, true), 0x6000n, "rbx");
  t.equal(view.getBigUint64(120, true), 0x1f_ffff_ffff_ffffn, "r15");
  t.equal(view.getBigUint64(128, true), 0x10_0000n, "rip");
  t.equal(view.getBigUint64(136, true), 2n, "rflags");
  t.equal(view.getBigUint64(0, true), 0n, "rax");
  t.end();
});

t.test("patchSregs() writes segments, tables and control registers and keeps the APIC base", (t) => {
  const bytes = new Uint8Array(312).fill(0xee);
  patchSregs(bytes, START);
  const view = new DataView(bytes.buffer);
  t.equal(view.getBigUint64(0, true), 0x1234_5678_9an, "cs.base");
  t.equal(view.getUint32(8, true), 0xf_ffff, "cs.limit");
  t.equal(view.getUint16(12, true), 8, "cs.selector");
  t.same([...bytes.subarray(14, 23)], [11, 1, 3, 0, 1, 1, 1, 0, 0], "type, present, dpl, db, s, l, g, avl, unusable");
  for (const at of [24, 48, 72, 96, 120]) t.equal(view.getUint16(at + 12, true), 0x10, `data segment at ${at}`);
  t.equal(bytes[144 + 22], 1, "a segment that is not present is unusable");
  t.equal(view.getBigUint64(192, true), 0x500n, "gdt.base");
  t.equal(view.getUint16(200, true), 0x1f, "gdt.limit");
  t.equal(view.getUint16(216, true), 7, "idt.limit");
  t.equal(view.getBigUint64(224, true), 0x8000_0011n, "cr0");
  t.equal(view.getBigUint64(264, true), 0x500n, "efer");
  t.equal(view.getBigUint64(272, true), 0xeeee_eeee_eeee_eeeen, "apic_base");
  t.end();
});

t.test("describeRegisters() starts with where the vCPU stands and shows every register", (t) => {
  const sregs = new Uint8Array(312);
  patchSregs(sregs, START);
  const registers = decodeRegisters(encodeRegs(START), sregs);
  t.equal(registers.cs.bits, 64);
  t.equal(registers.control.cr3, 0x9000n);
  const text = describeRegisters(registers);
  t.match(text, /^at 8:100000, 64-bit code/);
  t.match(text, /r15 001fffffffffffff/);
  t.match(text, /efer 0000000000000500/);
  t.end();
});
