import { alignUp, hex } from "../src/base/units.ts";
import { ToolError } from "../tools/tool-error.ts";

/*
 * A kernel with its initramfs built in, made after the fact.
 *
 * Debian's kernels have the drivers of every disk as modules, so they cannot mount a root file system without an
 * initramfs. Here one is a further segment of the ELF file, behind a few instructions. The PVH entry point is changed
 * to those instructions. They enter the segment in the list of boot modules, unless the VMM was given another one. Then
 * they jump to the kernel's own entry. Any VMM that boots PVH kernels loads such a file.
 */

/** Elf64_Ehdr and Elf64_Phdr, ELF-64 Object File Format 1.5 */
const EHDR = {
  size: 64,
  e_phoff: 32,
  e_shoff: 40,
  e_phentsize: 54,
  e_phnum: 56,
  e_shentsize: 58,
  e_shnum: 60,
  e_shstrndx: 62,
};
const PHDR = {
  size: 56,
  p_type: 0,
  p_flags: 4,
  p_offset: 8,
  p_vaddr: 16,
  p_paddr: 24,
  p_filesz: 32,
  p_memsz: 40,
  p_align: 48,
};
const PT_LOAD = 1;
const PT_NOTE = 4;
const PF_RWX = 7;
/** The note that names the 32-bit PVH entry point. Xen public/elfnote.h */
const XEN_ELFNOTE_PHYS32_ENTRY = 18;

const FILE_ALIGNMENT = 4096;
const SEGMENT_ALIGNMENT = 0x20_0000;
/** Where the initramfs begins in our segment: a page of its own holds the code and the list of modules. */
const INITRAMFS_OFFSET = 4096;
/** Where the list of modules lies in our segment. */
const MODULE_LIST_OFFSET = 64;

interface Segment {
  readonly type: number;
  readonly flags: number;
  readonly vaddr: bigint;
  readonly paddr: number;
  readonly memorySize: number;
  readonly bytes: Buffer;
}

/**
 * Answers a PVH kernel that brings its own initramfs.
 *
 * The result keeps the kernel's segments at their addresses. It has neither the section table nor the zeros at a
 * segment's end. So it is about half as large as what a bzImage unpacks to.
 *
 * @param vmlinux An ELF-64 kernel with a PVH note.
 * @throws ToolError when it is not one.
 */
export function bundleInitramfs(vmlinux: Buffer, initramfs: Buffer): Buffer {
  const segments = readSegments(vmlinux);
  const loads = segments.filter((segment) => segment.type === PT_LOAD);
  const kernelEnd = Math.max(...loads.map((segment) => segment.paddr + segment.memorySize));
  const address = alignUp(kernelEnd, SEGMENT_ALIGNMENT);
  const entry = turnEntry(segments, address);
  const head = Buffer.alloc(INITRAMFS_OFFSET);
  entryCode(entry, address + MODULE_LIST_OFFSET).copy(head);
  moduleListEntry(address + INITRAMFS_OFFSET, initramfs.length).copy(head, MODULE_LIST_OFFSET);
  const bytes = Buffer.concat([head, initramfs]);
  const ours: Segment = {
    type: PT_LOAD,
    flags: PF_RWX,
    vaddr: BigInt(address),
    paddr: address,
    memorySize: bytes.length,
    bytes,
  };
  return writeElf(
    vmlinux.subarray(0, EHDR.size),
    [...loads.map((load) => withoutTrailingZeros(load, segments)), ours],
    segments,
  );
}

/**
 * The new entry point's code: 32-bit, paging off, no stack, EBX holds the address of `hvm_start_info`; only EAX is
 * used. Xen public/arch-x86/hvm/start_info.h: nr_modules at 12, modlist_paddr at 16; a module's size is at 8.
 */
function entryCode(kernelEntry: number, moduleList: number): Buffer {
  const code = Buffer.concat([
    bytes(0x83, 0x7b, 12, 0), //                 cmp dword [ebx + 12], 0    no modules:
    bytes(0x74, 9), //                           je  use_ours
    bytes(0x8b, 0x43, 16), //                    mov eax, [ebx + 16]
    bytes(0x83, 0x78, 8, 0), //                  cmp dword [eax + 8], 0     the VMM's first module is not empty:
    bytes(0x75, 21), //                          jne go_on
    bytes(0xc7, 0x43, 12),
    u32(1), //            use_ours: mov dword [ebx + 12], 1
    bytes(0xc7, 0x43, 16),
    u32(moduleList), //   mov dword [ebx + 16], module_list
    bytes(0xc7, 0x43, 20),
    u32(0), //            mov dword [ebx + 20], 0
    bytes(0xb8),
    u32(kernelEntry), //            go_on: mov eax, kernel_entry
    bytes(0xff, 0xe0), //                        jmp eax
  ]);
  if (code.length > MODULE_LIST_OFFSET)
    throw new RangeError(`Cannot place the entry code: ${code.length} bytes are too many`);
  return code;
}

/** struct hvm_modlist_entry: paddr, size, cmdline_paddr, reserved; 64 bits each. */
function moduleListEntry(address: number, size: number): Buffer {
  const entry = Buffer.alloc(32);
  entry.writeBigUInt64LE(BigInt(address), 0);
  entry.writeBigUInt64LE(BigInt(size), 8);
  return entry;
}

function readSegments(elf: Buffer): readonly Segment[] {
  const isElf64 = elf.length > EHDR.size && elf.readUInt32BE(0) === 0x7f454c46 && elf.readUInt8(4) === 2;
  if (!isElf64) throw new ToolError("Cannot add an initramfs to the kernel: it is no ELF-64 file");
  const table = Number(elf.readBigUInt64LE(EHDR.e_phoff));
  return Array.from({ length: elf.readUInt16LE(EHDR.e_phnum) }, (_, index) => {
    const at = table + index * elf.readUInt16LE(EHDR.e_phentsize);
    const u64 = (field: number): number => Number(elf.readBigUInt64LE(at + field));
    const start = u64(PHDR.p_offset);
    return {
      type: elf.readUInt32LE(at + PHDR.p_type),
      flags: elf.readUInt32LE(at + PHDR.p_flags),
      vaddr: elf.readBigUInt64LE(at + PHDR.p_vaddr),
      paddr: u64(PHDR.p_paddr),
      memorySize: u64(PHDR.p_memsz),
      // A copy: the entry point is changed in it.
      bytes: Buffer.from(elf.subarray(start, start + u64(PHDR.p_filesz))),
    };
  });
}

/**
 * Writes `newEntry` where the kernel names its PVH entry point, both in the note segment and in the loaded copy of it.
 *
 * @returns The kernel's own entry point.
 */
function turnEntry(segments: readonly Segment[], newEntry: number): number {
  for (const note of segments.filter((segment) => segment.type === PT_NOTE)) {
    const offset = entryNoteOffset(note.bytes);
    if (offset === undefined) continue;
    const entry = note.bytes.readUInt32LE(offset);
    note.bytes.writeUInt32LE(newEntry, offset);
    for (const load of segments) {
      const within = note.paddr + offset - load.paddr;
      if (load.type === PT_LOAD && within >= 0 && within + 4 <= load.bytes.length)
        load.bytes.writeUInt32LE(newEntry, within);
    }
    return entry;
  }
  throw new ToolError("Cannot add an initramfs to the kernel: it has no PVH entry point");
}

/**
 * Answers where the entry point's address lies in a note segment. Elf64_Nhdr: namesz, descsz, type; name and desc are
 * padded to 4.
 */
function entryNoteOffset(notes: Buffer): number | undefined {
  for (let at = 0; at + 12 <= notes.length; ) {
    const nameEnd = at + 12 + alignUp(notes.readUInt32LE(at), 4);
    const name = notes.toString("latin1", at + 12, at + 15);
    if (notes.readUInt32LE(at + 8) === XEN_ELFNOTE_PHYS32_ENTRY && name === "Xen") return nameEnd;
    at = nameEnd + alignUp(notes.readUInt32LE(at + 4), 4);
  }
  return undefined;
}

/**
 * Leaves out a segment's zeros at its end, which memory holds anyway when the guest starts, as far as no note lies
 * there.
 */
function withoutTrailingZeros(segment: Segment, segments: readonly Segment[]): Segment {
  const noteEnds = segments
    .filter((one) => one.type === PT_NOTE)
    .map((note) => note.paddr + note.bytes.length - segment.paddr)
    .filter((end) => end > 0 && end <= segment.bytes.length);
  let length = segment.bytes.length;
  const least = Math.max(0, ...noteEnds);
  while (length > least && segment.bytes[length - 1] === 0) length--;
  return { ...segment, bytes: segment.bytes.subarray(0, length) };
}

/** Writes loads one behind the other; a note segment is found again inside the load that holds its address. */
function writeElf(header: Buffer, loads: readonly Segment[], original: readonly Segment[]): Buffer {
  const notes = original.filter((segment) => segment.type === PT_NOTE);
  const table = Buffer.alloc(PHDR.size * (loads.length + notes.length));
  const parts: Buffer[] = [];
  const placed: { readonly segment: Segment; readonly offset: number }[] = [];
  let offset = alignUp(EHDR.size + table.length, FILE_ALIGNMENT);
  for (const segment of loads) {
    placed.push({ segment, offset });
    const padded = alignUp(segment.bytes.length, FILE_ALIGNMENT);
    parts.push(segment.bytes, Buffer.alloc(padded - segment.bytes.length));
    offset += padded;
  }
  for (const note of notes) {
    const holder = placed.find(({ segment }) => {
      const within = note.paddr - segment.paddr;
      return within >= 0 && within + note.bytes.length <= segment.bytes.length;
    });
    if (holder === undefined)
      throw new ToolError(`Cannot place the kernel's notes at ${hex(note.paddr)}: no segment holds them`);
    placed.push({ segment: note, offset: holder.offset + note.paddr - holder.segment.paddr });
  }
  placed.forEach(({ segment, offset: at }, index) => {
    const row = table.subarray(index * PHDR.size);
    row.writeUInt32LE(segment.type, PHDR.p_type);
    row.writeUInt32LE(segment.flags, PHDR.p_flags);
    row.writeBigUInt64LE(BigInt(at), PHDR.p_offset);
    row.writeBigUInt64LE(segment.vaddr, PHDR.p_vaddr);
    row.writeBigUInt64LE(BigInt(segment.paddr), PHDR.p_paddr);
    row.writeBigUInt64LE(BigInt(segment.bytes.length), PHDR.p_filesz);
    row.writeBigUInt64LE(BigInt(segment.memorySize), PHDR.p_memsz);
    row.writeBigUInt64LE(BigInt(segment.type === PT_LOAD ? FILE_ALIGNMENT : 4), PHDR.p_align);
  });
  const newHeader = Buffer.from(header);
  newHeader.writeBigUInt64LE(BigInt(EHDR.size), EHDR.e_phoff);
  newHeader.writeUInt16LE(placed.length, EHDR.e_phnum);
  newHeader.writeBigUInt64LE(0n, EHDR.e_shoff);
  for (const field of [EHDR.e_shnum, EHDR.e_shstrndx]) newHeader.writeUInt16LE(0, field);
  const front = Buffer.concat([newHeader, table]);
  return Buffer.concat([front, Buffer.alloc(alignUp(front.length, FILE_ALIGNMENT) - front.length), ...parts]);
}

const bytes = (...values: number[]): Buffer => Buffer.from(values);

function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}
