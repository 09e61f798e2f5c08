import t from "tap";
import {
  ByteBuilder,
  type ElfOptions,
  type ElfSegment,
  elf32,
  elf64,
  elfNote,
  imageFile,
  multibootHeader,
  pvhNote,
} from "../../../guests/kernel-images.ts";
import { SpecError } from "../../../src/base/errors.ts";
import { planBoot } from "../../../src/boot/plan-boot.ts";
import { bootRequest } from "../../support/boot-request.ts";

const code = new Uint8Array(0x1000).fill(0x90);
const note: ElfSegment = { type: 4, paddr: 0x100_0000, bytes: pvhNote(0x100_0000) };

function refusal(bytes: Uint8Array, memoryMib = 64): string {
  try {
    planBoot(bootRequest(imageFile("k", bytes), { memoryMib }));
  } catch (error) {
    if (error instanceof SpecError) return error.message;
    throw error;
  }
  return "accepted";
}

t.test("planBoot() says what a file is that is not a kernel, and what to do with it", async (t) => {
  const file = (offset: number, ...bytes: number[]): string =>
    refusal(new ByteBuilder().put(offset, new Uint8Array(bytes)).u32(1000, 0).bytes);
  t.equal(refusal(new Uint8Array(0)), "kernel: k is empty");
  t.match(refusal(new Uint8Array(3)), /is no kernel this program knows/);
  t.match(file(0, 0x1f, 0x8b), /is compressed with gzip: unpack it with gunzip/);
  t.match(file(0, 0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00), /xz/);
  t.match(file(0, 0x28, 0xb5, 0x2f, 0xfd), /zstd/);
  t.match(file(0, 0x42, 0x5a, 0x68), /bzip2/);
  t.match(file(0, 0x30, 0x37, 0x30, 0x37, 0x30, 0x31), /give it as initramfs/);
  t.match(file(0, 0x51, 0x46, 0x49, 0xfb), /qcow2/);
  t.match(file(0, 0x4d, 0x5a), /is an EFI program/);
  t.match(file(0x38, 0x41, 0x52, 0x4d, 0x64), /64-bit Arm/);
  t.match(file(0x1fe, 0x55, 0xaa), /disks are given apart/);
});

t.test("planBoot() refuses an ELF file that is no x86 kernel", async (t) => {
  const elf = (options: ElfOptions): string =>
    refusal(elf64([{ paddr: 0x100_0000, bytes: code }, note], options).bytes);
  t.match(elf({ machine: 183 }), /built for 64-bit Arm/);
  t.match(elf({ machine: 999 }), /built for machine type 999/);
  t.match(elf({ data: 2 }), /big-endian/);
  t.match(elf({ type: 1 }), /object file or kernel module/);
  t.match(elf({ type: 4 }), /core dump/);
  t.equal(elf({}), "accepted");
  t.match(refusal(elf64([]).bytes), /no program headers/);
  t.match(refusal(elf64([note]).bytes), /nothing to load/);
  t.match(refusal(elf64([note]).u8(4, 7).bytes), /ELF class is 7/);
});

t.test("planBoot() names CONFIG_PVH when an ELF kernel has neither a PVH note nor a multiboot header", async (t) => {
  t.match(refusal(elf64([{ paddr: 0x100_0000, bytes: code }]).bytes), /no PVH entry point: .*CONFIG_PVH=y/);
  t.match(refusal(elf32([{ paddr: 0x10_0000, bytes: code }]).bytes), /no PVH entry point/);
});

t.test("planBoot() refuses a truncated ELF file, wherever it was cut", async (t) => {
  const { bytes } = elf64([{ paddr: 0x100_0000, bytes: code }, note]);
  for (const sizeBytes of [4, 19, 63, 64, 100, 0x1000, 0x1fff, bytes.length - 1]) {
    t.match(
      refusal(bytes.slice(0, sizeBytes)),
      /^kernel: k is truncated: its .* the file ends at/,
      `${sizeBytes} bytes`,
    );
  }
});

t.test("planBoot() refuses segments outside RAM, in firmware's memory, or on top of something", async (t) => {
  const kernel = (segment: ElfSegment, memoryMib?: number): string =>
    refusal(elf64([{ paddr: 0x100_0000, bytes: code }, segment, note]).bytes, memoryMib);
  t.match(
    kernel({ paddr: 0x400_0000, bytes: code }),
    /does not fit into memory at 0x4000000\+0x1000.*give the guest more memory/,
  );
  t.match(kernel({ paddr: 0x200_0000, bytes: code, memoryBytes: 0x1_0000_0000 }), /does not fit into memory/);
  t.match(kernel({ paddr: 0xe_0000, bytes: code }), /does not fit into memory at 0xe0000/);
  t.match(kernel({ paddr: 0x6800, bytes: code }), /overlaps the PVH memory map at 0x7000/);
  t.match(kernel({ paddr: 0x100_0800, bytes: code }), /segment 1 of k at 0x1000800\+0x1000 overlaps segment 0 of k/);
  t.match(kernel({ paddr: 0xffff_ffff_8000_0000n, bytes: code }), /p_paddr of program header 1 is out of range/);
  t.match(kernel({ paddr: 0x110_0000, bytes: code }, 16), /give the guest more memory/);
});

t.test("planBoot() refuses damaged ELF headers", async (t) => {
  const damaged = (change: (file: ByteBuilder) => void): string => {
    const file = elf64([{ paddr: 0x100_0000, bytes: code }, note]);
    change(file);
    return refusal(file.bytes);
  };
  t.match(
    damaged((file) => file.u16(54, 10)),
    /program header size is 10/,
  );
  t.match(
    damaged((file) => file.u64(32, 0xffff_ffff_ffff_ff00n)),
    /e_phoff is out of range/,
  );
  t.match(
    damaged((file) => file.u64(64 + 40, 0x10)),
    /segment 0 holds 0x1000 bytes for 0x10 of memory/,
  );
  t.match(
    damaged((file) => file.u64(64 + 32, 0x1f_ffff_ffff_ffffn)),
    /truncated/,
  );
  t.match(refusal(elf64([{ paddr: 0x200_0000, bytes: code }, note]).bytes), /PVH entry 0x1000000 is in no segment/);
});

t.test("planBoot() refuses an entry above 4 GiB, where 32-bit mode cannot begin", async (t) => {
  const high = 0x1_0010_0000;
  const wide = elfNote("Xen", 18, new ByteBuilder().u64(0, high).bytes);
  const pvh = elf64([
    { paddr: high, bytes: code },
    { type: 4, paddr: 0, bytes: wide },
  ]);
  const wanted = "its entry is at 0x100100000, but kernels are entered in 32-bit mode, below 0x100000000";
  t.equal(refusal(pvh.bytes, 8192), `kernel: k cannot be started: ${wanted}`);
  const multiboot = elf64([{ paddr: high, bytes: multibootHeader(0) }], { entry: high });
  t.equal(refusal(multiboot.bytes, 8192), `kernel: k cannot be started: ${wanted}`);
});

t.test("planBoot() survives notes that run out of their segment", async (t) => {
  for (const [offset, value] of [
    [0, 0xffff_ffff],
    [4, 0xffff_ffff],
    [0, 0x100],
  ] as const) {
    const bytes = pvhNote(0x100_0000).slice();
    new DataView(bytes.buffer).setUint32(offset, value, true);
    const file = elf64([
      { paddr: 0x100_0000, bytes: code },
      { type: 4, paddr: 0x100_0000, bytes },
    ]);
    t.match(refusal(file.bytes), /no PVH entry point/);
  }
});
