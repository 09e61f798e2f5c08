import t from "tap";
import { bundleInitramfs } from "../../../guest-images/pvh-bundle.ts";
import { elf64, elfNote, imageFile, pvhNote } from "../../../guests/kernel-images.ts";
import { readElf } from "../../../src/boot/elf.ts";
import { pvhEntry } from "../../../src/boot/pvh.ts";

/** A kernel of 16 KiB at 16 MiB: code, the note among it, zeros behind it, and memory that is in no file. */
function kernel(): { bytes: Uint8Array; text: Uint8Array } {
  const note = pvhNote(0x100_0200);
  const text = new Uint8Array(0x4000).fill(0xcc, 0, 0x1000);
  text.set(note, 0x800);
  const load = { paddr: 0x100_0000, vaddr: 0xffff_ffff_8100_0000n, bytes: text, memoryBytes: 0x8000 };
  return { bytes: elf64([load, { type: 4, paddr: 0x100_0800, bytes: note }]).bytes, text };
}

t.test("bundleInitramfs() puts the initramfs behind the kernel's memory and turns the PVH entry to it", (t) => {
  const initramfs = Buffer.from("the archive");
  const elf = readElf(imageFile("bundle", bundleInitramfs(Buffer.from(kernel().bytes), initramfs)));
  const [load, ours] = elf.segments;
  t.equal(elf.segments.length, 2);
  t.same([load?.address, load?.memoryBytes], [0x100_0000, 0x8000], "the kernel stays where it is");
  t.equal(load?.sizeBytes, 0x1000, "without the zeros at its end");
  t.equal(ours?.address, 0x120_0000, "the next 2 MiB behind the kernel's memory");
  t.equal(pvhEntry(elf), 0x120_0000);
  t.end();
});

t.test("bundleInitramfs() refuses what is no PVH kernel", (t) => {
  const plain = elf64([
    { paddr: 0x100_0000, bytes: new Uint8Array(16) },
    { type: 4, paddr: 0x100_0000, bytes: elfNote("GNU", 3, new Uint8Array(4)) },
  ]).bytes;
  t.throws(() => bundleInitramfs(Buffer.from(plain), Buffer.alloc(1)), { message: /no PVH entry point/ });
  t.throws(() => bundleInitramfs(Buffer.alloc(100), Buffer.alloc(1)), { message: /no ELF-64 file/ });
  t.end();
});
