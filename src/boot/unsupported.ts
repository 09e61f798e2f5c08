import { SpecError } from "../base/errors.ts";
import type { ImageFile } from "../base/load-plan.ts";
import { readStart } from "./bytes.ts";

/** A file type that users try to boot: bytes at an offset, and the advice. */
interface Signature {
  readonly offset: number;
  readonly bytes: string; // hexadecimal
  readonly text: string;
}

/** More particular ones first: an Arm64 kernel with an EFI stub begins like any PE file. */
const SIGNATURES: readonly Signature[] = [
  { offset: 0, bytes: "1f8b", text: "is compressed with gzip: unpack it with gunzip" },
  { offset: 0, bytes: "fd377a585a00", text: "is compressed with xz: unpack it with unxz" },
  { offset: 0, bytes: "28b52ffd", text: "is compressed with zstd: unpack it with unzstd" },
  { offset: 0, bytes: "425a68", text: "is compressed with bzip2: unpack it with bunzip2" },
  { offset: 0, bytes: "04224d18", text: "is compressed with lz4: unpack it with unlz4" },
  { offset: 0, bytes: "02214c18", text: "is compressed with lz4: unpack it with unlz4" },
  { offset: 0, bytes: "303730373031", text: "is a cpio archive: give it as initramfs" },
  {
    offset: 0,
    bytes: "514649fb",
    text: "is a qcow2 disk image: a kernel is needed here; disks are given apart, as raw images",
  },
  { offset: 0x38, bytes: "41524d64", text: "is built for 64-bit Arm: an x86 kernel is needed" },
  { offset: 0x38, bytes: "52534305", text: "is built for RISC-V: an x86 kernel is needed" },
  {
    offset: 0,
    bytes: "4d5a",
    text:
      "is an EFI program (a unified kernel image, or a kernel with CONFIG_EFI_ZBOOT): it needs firmware, take " +
      "the vmlinux or bzImage in it",
  },
  {
    offset: 0x1fe,
    bytes: "55aa",
    text: "is a boot sector or disk image: a kernel is needed here; disks are given apart",
  },
];

/** The refusal of a file that no boot protocol here takes, as helpful as its first bytes allow. */
export function unsupportedKernel(file: ImageFile): SpecError {
  const start = readStart(file, 512);
  const text = SIGNATURES.find(({ offset, bytes }) => {
    const size = bytes.length / 2;
    for (let index = 0; index < size; index++) {
      if (offset + index >= start.byteLength) return false;
      if (start.getUint8(offset + index) !== Number.parseInt(bytes.slice(2 * index, 2 * index + 2), 16)) return false;
    }
    return true;
  })?.text;
  const unknown =
    "is no kernel this program knows: it takes an ELF vmlinux with a PVH note, a bzImage, or a multiboot kernel";
  return new SpecError("TSVMM_KERNEL_FORMAT", "kernel", `${file.name} ${text ?? unknown}`);
}
