import t from "tap";
import {
  type ByteBuilder,
  bzImage,
  type ElfSegment,
  elf32,
  elf64,
  imageFile,
  multibootHeader,
  pvhNote,
} from "../../../guests/kernel-images.ts";
import type { ImageFile } from "../../../src/base/load-plan.ts";
import { planBoot } from "../../../src/boot/plan-boot.ts";
import { bootRequest } from "../../support/boot-request.ts";

const GIB = 2 ** 30;
const code = new Uint8Array(0x1000).fill(0x90);
const kernel: readonly ElfSegment[] = [
  { paddr: 0x100_0000, bytes: code },
  { type: 4, paddr: 0x100_0000, bytes: pvhNote(0x100_0000) },
];

/** A file that is zero behind its first bytes, as a sparse one: pieces of up to 4 MiB can be read. */
function sparse(bytes: Uint8Array, sizeBytes: number): ImageFile {
  const read = (offset: number, count: number): Uint8Array => {
    if (count > 4 * 2 ** 20) throw new Error(`${count} bytes are read in one piece`);
    const piece = new Uint8Array(Math.max(0, Math.min(count, sizeBytes - offset)));
    piece.set(bytes.subarray(offset, offset + piece.length));
    return piece;
  };
  return { name: "k", sizeBytes, read };
}

const refusal = (file: ImageFile, initramfs?: ImageFile): string => {
  try {
    planBoot(bootRequest(file, initramfs === undefined ? {} : { initramfs }));
  } catch (error) {
    return String(error).replace(/^Error: /, "");
  }
  return "accepted";
};

t.test("planBoot() refuses notes of more than 1 MiB, in one segment or in many, without reading them", async (t) => {
  const noted = (sizeBytes: number, count = 1): string => {
    const notes = Array.from({ length: count }, () => ({ type: 4, paddr: 0, bytes: new Uint8Array(0) }));
    const file: ByteBuilder = elf64([...kernel, ...notes]);
    for (let index = 2; index < 2 + count; index++) file.u64(64 + 56 * index + 32, sizeBytes);
    return refusal(sparse(file.bytes, 16 * GIB));
  };
  const refused = (sizeBytes: number): string =>
    `SpecError: kernel: k is damaged: its notes claim ${sizeBytes + 24} bytes, more than 1048576`;
  t.equal(noted(3 * GIB), refused(3 * GIB));
  t.equal(noted(9 * GIB), refused(9 * GIB));
  t.equal(noted(2 ** 16, 1000), refused(2 ** 16 * 1000));
  t.equal(noted(2 ** 20), refused(2 ** 20));
  t.equal(noted(2 ** 20 - 24), "accepted");
});

t.test("planBoot() refuses a header table that is larger than 65,536 headers are", async (t) => {
  const table = (stride: number, count: number): string =>
    refusal(sparse(elf64(kernel).u16(54, stride).u16(56, count).bytes, 16 * GIB));
  t.equal(
    table(0xffff, 0xffff),
    `SpecError: kernel: k is damaged: its program header table claims ${0xffff ** 2} bytes, more than 3670016`,
  );
  t.match(table(57, 0xffff), /table claims 3735495 bytes/);
  t.match(table(56, 0xffff), /^accepted$/, "as many as e_phnum counts");
});

t.test("planBoot() places 65,534 segments, whatever their order, and finds the two that overlap", async (t) => {
  const one = new Uint8Array(16);
  const note: ElfSegment = { type: 4, paddr: 0, bytes: pvhNote(0x100_0000) };
  const file = elf64([note]).bytes;
  const count = 0xfffe;
  const headers = new DataView(new ArrayBuffer(64 + 56 * (count + 1)));
  new Uint8Array(headers.buffer).set(file.subarray(0, 64 + 56));
  headers.setUint16(56, count + 1, true);
  headers.setBigUint64(64 + 8, BigInt(headers.byteLength), true);
  for (let index = 0; index < count; index++) {
    const at = 64 + 56 * (index + 1);
    headers.setUint32(at, 1, true);
    headers.setBigUint64(at + 24, BigInt(0x100_0000 + 16 * ((index * 7919) % count)), true);
    headers.setBigUint64(at + 32, BigInt(one.length), true);
    headers.setBigUint64(at + 40, BigInt(one.length), true);
  }
  const whole = (): ImageFile => {
    const bytes = new Uint8Array(headers.byteLength + note.bytes.length);
    bytes.set(new Uint8Array(headers.buffer));
    bytes.set(note.bytes, headers.byteLength);
    return imageFile("k", bytes);
  };
  t.equal(planBoot(bootRequest(whole())).segments.length, count);
  headers.setBigUint64(64 + 56 * count + 24, 0x100_0008n, true);
  t.match(refusal(whole()), /segment 65533 of k at 0x1000008\+0x10 overlaps segment 0 of k at 0x1000000\+0x10$/);
});

t.test("planBoot() refuses kernels and an initramfs of terabytes by what memory there is", async (t) => {
  const TIB = 2 ** 40;
  const elf = elf64(kernel)
    .u64(64 + 32, 4 * GIB)
    .u64(64 + 40, 4 * GIB);
  t.match(refusal(sparse(elf.bytes, 16 * GIB)), /^SpecError: kernel: segment 0 of k does not fit into memory/);
  t.match(refusal(sparse(bzImage().bytes, TIB)), /^SpecError: kernel: k, which unpacks .* does not fit into memory/);
  const header = multibootHeader(0x1_0000, [0x10_0000, 0x10_0000, 0, 0, 0x10_0000]);
  t.match(refusal(sparse(header, TIB)), /^SpecError: kernel: segment 0 of k does not fit into memory/);
  const huge = multibootHeader(0x1_0000, [0x10_0000, 0x10_0000, 0xffff_ffff, 0xffff_ffff, 0x10_0000]);
  t.match(refusal(sparse(huge, TIB)), /^SpecError: kernel: segment 0 of k does not fit into memory/);
  const multiboot = new Uint8Array(0x1000);
  multiboot.set(multibootHeader(0));
  const file = elf32([{ paddr: 0x40_0000, bytes: multiboot }], { entry: 0x40_0000 });
  t.match(
    refusal(sparse(file.u32(52 + 16, 0xffff_f000).u32(52 + 20, 0xffff_f000).bytes, TIB)),
    /does not fit into memory/,
  );
  for (const one of [elf64(kernel), bzImage()]) {
    const message = /^SpecError: initramfs: k \(1048576 MiB\) does not fit beside the kernel/;
    t.match(refusal(imageFile("k", one.bytes), sparse(new Uint8Array(0), TIB)), message);
  }
});
