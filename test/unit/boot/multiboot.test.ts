import t from "tap";
import { ByteBuilder, elf32, elf64, imageFile, multibootHeader } from "../../../guests/kernel-images.ts";
import { planBoot } from "../../../src/boot/plan-boot.ts";
import { bootRequest, textAt, writtenAt } from "../../support/boot-request.ts";

const code = new Uint8Array(0x1000).fill(0x90);
code.set(multibootHeader(0));
const kernel = imageFile(
  "test.elf",
  elf32([{ paddr: 0x40_0000, bytes: code, memoryBytes: 0x8000 }], { entry: 0x40_00bc }).bytes,
);

t.test("planBoot() starts a multiboot ELF kernel with the magic in eax and the information in ebx", async (t) => {
  const plan = planBoot(bootRequest(kernel));
  t.equal(plan.protocol, "multiboot");
  t.same(plan.start.registers, { rflags: 2, rax: 0x2bad_b002, rbx: 0x6000, rip: 0x40_00bc });
  t.match(plan.segments, [{ fileOffset: 0x1000, sizeBytes: 0x1000, address: 0x40_0000, memoryBytes: 0x8000 }]);
  t.equal(plan.start.cr0, 1);
});

t.test("planBoot() fills the multiboot information, with the kernel's name as argument 0", async (t) => {
  const plan = planBoot(bootRequest(kernel, { cmdline: "cpuid ipi" }));
  const info = writtenAt(plan, 0x6000);
  t.equal(info.getUint32(0, true), 0x24d, "memory, command line, modules, memory map, loader name");
  t.equal(info.getUint32(4, true), 640, "mem_lower");
  t.equal(info.getUint32(8, true), 63 * 1024, "mem_upper");
  t.equal(textAt(plan, info.getUint32(16, true)), "test.elf cpuid ipi");
  t.equal(info.getUint32(20, true), 0, "mods_count");
  t.equal(info.getUint32(44, true), 4 * 24, "mmap_length");
  t.equal(textAt(plan, info.getUint32(64, true)), "tsvmm");
  const map = writtenAt(plan, info.getUint32(48, true));
  t.equal(map.getUint32(0, true), 20, "size does not count itself");
  t.equal(map.getBigUint64(2 * 24 + 4, true), 0x10_0000n);
  t.equal(map.getBigUint64(2 * 24 + 12, true), 0x3f0_0000n);
  t.equal(map.getUint32(2 * 24 + 20, true), 1);
  t.equal(map.getUint32(1 * 24 + 20, true), 3);
  t.equal(map.getUint32(3 * 24 + 20, true), 2);
});

t.test("planBoot() hands multiboot kernels the initramfs as one module with its name", async (t) => {
  const plan = planBoot(bootRequest(kernel, { initramfs: imageFile("env.txt", new Uint8Array(10)) }));
  const info = writtenAt(plan, 0x6000);
  t.equal(info.getUint32(20, true), 1);
  const modules = writtenAt(plan, info.getUint32(24, true));
  t.equal(modules.getUint32(0, true), 0x3ff_f000);
  t.equal(modules.getUint32(4, true), 0x3ff_f00a, "mod_end is behind the last byte");
  const name = modules.getUint32(8, true);
  t.equal(textAt(plan, 0x3_0000, name - 0x3_0000), "env.txt");
  t.match(plan.segments[1], { address: 0x3ff_f000, sizeBytes: 10 });
});

t.test("planBoot() loads a flat multiboot kernel by its address fields", async (t) => {
  const header = multibootHeader(0x1_0003, [0x10_0010, 0x10_0000, 0x10_0800, 0x10_2000, 0x10_0030]);
  const file = new ByteBuilder().put(0x20, header).put(0xfff, new Uint8Array(1));
  const plan = planBoot(bootRequest(imageFile("flat.bin", file.bytes)));
  t.match(plan.segments, [{ fileOffset: 0x10, sizeBytes: 0x800, address: 0x10_0000, memoryBytes: 0x2000 }]);
  t.equal(plan.start.registers.rip, 0x10_0030);
});

t.test("planBoot() loads a flat multiboot kernel to the file's end when load_end_addr is zero", async (t) => {
  const header = multibootHeader(0x1_0000, [0x10_0000, 0x10_0000, 0, 0, 0x10_0020]);
  const plan = planBoot(bootRequest(imageFile("flat.bin", new ByteBuilder().put(0, header).u32(0x300, 0).bytes)));
  t.match(plan.segments, [{ fileOffset: 0, sizeBytes: 0x304, address: 0x10_0000, memoryBytes: 0x304 }]);
});

t.test("planBoot() enters a multiboot kernel linked high where its segment was loaded", async (t) => {
  const file = elf32([{ paddr: 0x10_0000, vaddr: 0xc010_0000, bytes: code }], { entry: 0xc010_0040 });
  t.equal(planBoot(bootRequest(imageFile("high.elf", file.bytes))).start.registers.rip, 0x10_0040);
});

t.test("planBoot() takes a 64-bit ELF file with a multiboot header, as GNU Mach is", async (t) => {
  const file = elf64([{ paddr: 0x100_0000, bytes: code }], { entry: 0x100_0020 });
  const plan = planBoot(bootRequest(imageFile("gnumach", file.bytes)));
  t.equal(plan.protocol, "multiboot");
  t.equal(plan.start.registers.rip, 0x100_0020);
});

t.test("planBoot() refuses multiboot kernels it cannot satisfy", async (t) => {
  const refuse = (bytes: Uint8Array, message: RegExp): void => {
    t.throws(() => planBoot(bootRequest(imageFile("k", bytes))), { path: "kernel", message });
  };
  const flat = (addresses: number[]): Uint8Array =>
    new ByteBuilder().put(0, multibootHeader(0x1_0000, addresses)).u32(0x100, 0).bytes;
  const demanding = code.slice();
  demanding.set(multibootHeader(0x8));
  refuse(elf32([{ paddr: 0x40_0000, bytes: demanding }], { entry: 0x40_0020 }).bytes, /flags 0x8/);
  refuse(flat([0x10_0000, 0x10_0004, 0, 0, 0x10_0020]), /outside what it loads/);
  refuse(flat([0x10_0000, 0x10_0000, 0x0f_0000, 0, 0x10_0020]), /load_end_addr is 0xf0000/);
  refuse(flat([0x10_0000, 0x10_0000, 0x10_1000, 0, 0x10_0020]), /is truncated/);
  refuse(flat([0x10_0000, 0x10_0000, 0, 0, 0x20_0000]), /entry 0x200000 is in no segment/);
  refuse(flat([0x6000, 0x6000, 0, 0, 0x6020]), /overlaps the multiboot information at 0x6000/);
  refuse(multibootHeader(0x1_0000), /multiboot header/);
});

t.test("planBoot() tells the line's length and the path's apart when they do not fit together", async (t) => {
  const path = `/${"deep/".repeat(800)}kernel`;
  const deep = { ...kernel, name: path };
  const cmdline = "x".repeat(65_535 - 1 - path.length);
  t.equal(textAt(planBoot(bootRequest(deep, { cmdline })), 0x2_0000), `${path} ${cmdline}`);
  t.throws(() => planBoot(bootRequest(deep, { cmdline: `${cmdline}x` })), {
    message: "cmdline: is 61528 bytes long: this kernel takes 65535 with its path before it, which takes 4008 of them",
  });
});
