import t from "tap";
import { elf32, elf64, elfNote, imageFile, pvhNote } from "../../../guests/kernel-images.ts";
import { gpa } from "../../../src/base/units.ts";
import { planBoot } from "../../../src/boot/plan-boot.ts";
import { bootRequest, textAt, writtenAt } from "../../support/boot-request.ts";

const code = new Uint8Array(0x2000).fill(0x90);
const pvhKernel = imageFile(
  "vmlinux",
  elf64([
    { paddr: 0x100_0000, vaddr: 0xffff_ffff_8100_0000n, bytes: code, memoryBytes: 0x5000 },
    { type: 4, paddr: 0x100_1000, bytes: pvhNote(0x100_0040) },
  ]).bytes,
);

t.test("planBoot() starts an ELF kernel with a PVH note at the note's entry with ebx at hvm_start_info", async (t) => {
  const plan = planBoot(bootRequest(pvhKernel));
  t.equal(plan.protocol, "PVH");
  t.same(plan.start.registers, { rflags: 2, rbx: 0x6000, rip: 0x100_0040 });
  t.equal(plan.start.cr0, 1, "protection on, paging off");
  t.equal(plan.start.cr4, 0);
  t.equal(plan.start.efer, 0);
});

t.test("planBoot() loads PT_LOAD segments at their physical address and zeroes what lies behind", async (t) => {
  const { segments } = planBoot(bootRequest(pvhKernel));
  t.match(segments, [{ fileOffset: 0x1000, sizeBytes: 0x2000, address: 0x100_0000, memoryBytes: 0x5000 }]);
  t.equal(segments.length, 1);
});

t.test("planBoot() fills hvm_start_info, its memory map and the command line", async (t) => {
  const plan = planBoot(bootRequest(pvhKernel, { cmdline: "console=ttyS0 root=/dev/vda1 rw" }));
  const info = writtenAt(plan, 0x6000);
  t.equal(info.byteLength, 56);
  t.equal(info.getUint32(0, true), 0x336e_c578);
  t.equal(info.getUint32(4, true), 1);
  t.equal(info.getUint32(8, true), 0);
  t.equal(info.getUint32(12, true), 0, "no modules");
  t.equal(info.getBigUint64(16, true), 0n);
  t.equal(info.getBigUint64(24, true), 0x2_0000n);
  t.equal(info.getBigUint64(32, true), 0xe_0000n);
  t.equal(info.getBigUint64(40, true), 0x7000n);
  t.equal(info.getUint32(48, true), 4);
  const map = writtenAt(plan, 0x7000);
  t.equal(map.byteLength, 4 * 24);
  const entries = [0, 1, 2, 3].map((index) => [
    map.getBigUint64(24 * index, true),
    map.getBigUint64(24 * index + 8, true),
    map.getUint32(24 * index + 16, true),
  ]);
  t.same(entries, [
    [0n, 0xa_0000n, 1],
    [0xe_0000n, 0x2_0000n, 3],
    [0x10_0000n, 0x3f0_0000n, 1],
    [0xe800_0000n, 0x1000_0000n, 2],
  ]);
  t.equal(textAt(plan, 0x2_0000), "console=ttyS0 root=/dev/vda1 rw");
});

t.test("planBoot() hands a PVH kernel the initramfs as its module, page-aligned at the top of low RAM", async (t) => {
  const initramfs = imageFile("initramfs", new Uint8Array(0x1234));
  const plan = planBoot(bootRequest(pvhKernel, { initramfs }));
  t.match(plan.segments[1], { sizeBytes: 0x1234, address: 0x3ff_e000, memoryBytes: 0x1234 });
  t.equal(plan.segments[1]?.file, initramfs);
  const info = writtenAt(plan, 0x6000);
  t.equal(info.getUint32(12, true), 1);
  t.equal(info.getBigUint64(16, true), 0x6040n);
  const modules = writtenAt(plan, 0x6040);
  t.equal(modules.getBigUint64(0, true), 0x3ff_e000n);
  t.equal(modules.getBigUint64(8, true), 0x1234n);
  t.equal(modules.getBigUint64(16, true), 0n);
});

t.test("planBoot() keeps the initramfs below 4 GiB and out of ACPI memory at the top of RAM", async (t) => {
  const initramfs = imageFile("initramfs", new Uint8Array(0x1000));
  const request = bootRequest(pvhKernel, { initramfs });
  const plan = planBoot({
    ...request,
    ramRegions: [
      { gpa: gpa(0), sizeBytes: 0x400_0000, fileOffset: 0 },
      { gpa: gpa(0x1_0000_0000), sizeBytes: 0x400_0000, fileOffset: 0x400_0000 },
    ],
    memoryMap: [
      { address: gpa(0), sizeBytes: 0xa_0000, kind: "ram" },
      { address: gpa(0x10_0000), sizeBytes: 0x3e0_0000, kind: "ram" },
      { address: gpa(0x3f0_0000), sizeBytes: 0x10_0000, kind: "acpi" },
      { address: gpa(0x1_0000_0000), sizeBytes: 0x400_0000, kind: "ram" },
    ],
  });
  t.equal(plan.segments[1]?.address, 0x3ef_f000);
});

t.test("planBoot() describes flat segments and keeps their descriptors in guest memory", async (t) => {
  const plan = planBoot(bootRequest(pvhKernel));
  const flat = { base: 0, limit: 0xffff_ffff, present: 1, dpl: 0, db: 1, s: 1, l: 0, g: 1 };
  t.same(plan.start.cs, { ...flat, selector: 0x08, type: 0xb });
  t.same(plan.start.data, { ...flat, selector: 0x10, type: 0x3 });
  t.match(plan.start.tr, { selector: 0x18, base: 0, limit: 0x67, type: 0xb, s: 0, g: 0, present: 1 });
  t.same(plan.start.gdt, { base: 0x500, limit: 31 });
  const gdt = writtenAt(plan, 0x500);
  t.equal(gdt.getBigUint64(0, true), 0n);
  t.equal(gdt.getBigUint64(8, true), 0x00cf_9b00_0000_ffffn);
  t.equal(gdt.getBigUint64(16, true), 0x00cf_9300_0000_ffffn);
  t.equal(gdt.getBigUint64(24, true), 0x0000_8b00_0000_0067n);
});

t.test("planBoot() takes a 32-bit ELF kernel with a 4-byte PVH note", async (t) => {
  const file = elf32([
    { paddr: 0x10_0000, bytes: code },
    { type: 4, paddr: 0x10_0000, bytes: pvhNote(0x10_0010, 4) },
  ]);
  const plan = planBoot(bootRequest(imageFile("guest.elf", file.bytes)));
  t.equal(plan.protocol, "PVH");
  t.equal(plan.start.registers.rip, 0x10_0010);
  t.match(plan.segments, [{ address: 0x10_0000, fileOffset: 0x1000, sizeBytes: 0x2000 }]);
});

t.test("planBoot() finds the PVH note behind other notes, of both paddings", async (t) => {
  const others = [elfNote("GNU", 3, new Uint8Array(20)), elfNote("Xen", 6, new TextEncoder().encode("linux\0"))];
  const four = new Uint8Array([...others.flatMap((note) => [...note]), ...pvhNote(0x100_0004)]);
  const eight = new Uint8Array([
    ...elfNote("GNU", 5, new Uint8Array(12), 8),
    ...elfNote("Xen", 18, new Uint8Array([8, 0, 0, 1, 0, 0, 0, 0]), 8),
  ]);
  for (const [bytes, align, entry] of [
    [four, 4, 0x100_0004],
    [eight, 8, 0x100_0008],
  ] as const) {
    const file = elf64([
      { paddr: 0x100_0000, bytes: code },
      { type: 4, paddr: 0x100_0000, bytes, align },
    ]);
    t.equal(planBoot(bootRequest(imageFile("vmlinux", file.bytes))).start.registers.rip, entry);
  }
});

t.test(
  "planBoot() refuses a command line longer than Linux reads, for an ELF file that says it is Linux",
  async (t) => {
    const notes = new Uint8Array([...elfNote("Linux", 0x100, new Uint8Array(4)), ...pvhNote(0x100_0000)]);
    const linux = elf64([
      { paddr: 0x100_0000, bytes: code },
      { type: 4, paddr: 0x100_0000, bytes: notes },
    ]);
    const kernel = imageFile("vmlinux", linux.bytes);
    t.equal(textAt(planBoot(bootRequest(kernel, { cmdline: "x".repeat(2047) })), 0x2_0000).length, 2047);
    t.throws(() => planBoot(bootRequest(kernel, { cmdline: "x".repeat(2048) })), {
      path: "cmdline",
      message: "cmdline: is 2048 bytes long: this kernel takes 2047",
    });
    t.throws(() => planBoot(bootRequest(pvhKernel, { cmdline: "x".repeat(65_536) })), {
      message: /this kernel takes 65535/,
    });
    t.throws(() => planBoot(bootRequest(pvhKernel, { cmdline: "a\0b" })), {
      message: "cmdline: contains a NUL character",
    });
  },
);
