import { SpecError } from "../base/errors.ts";
import type { FileSegment, ImageFile } from "../base/load-plan.ts";
import { gpa, hex, MIB } from "../base/units.ts";
import { getU64, readImage, readStart, truncated } from "./bytes.ts";

/** ELF-64 and ELF-32 object file formats, System V ABI chapters 4 and 5. */
const EI_CLASS = 4;
const EI_DATA = 5;
const ELFCLASS32 = 1;
const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const ET_EXEC = 2;
const ET_DYN = 3;
const EM_386 = 3;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;

/** Machines a kernel is likely to be for by mistake. */
const MACHINE_NAMES: Readonly<Record<number, string>> = {
  8: "MIPS",
  20: "PowerPC",
  21: "64-bit PowerPC",
  22: "s390",
  40: "32-bit Arm",
  183: "64-bit Arm",
  243: "RISC-V",
  258: "LoongArch",
};

/** Elf32_Ehdr and Elf64_Ehdr: type and machine are at 16 and 18 in both. */
const ELF32_HEADER = { size: 52, e_entry: 24, e_phoff: 28, e_phentsize: 42, e_phnum: 44 } as const;
const ELF64_HEADER = { size: 64, e_entry: 24, e_phoff: 32, e_phentsize: 54, e_phnum: 56 } as const;
/** Elf32_Phdr and Elf64_Phdr. */
const ELF32_PROGRAM = { size: 32, p_offset: 4, p_vaddr: 8, p_paddr: 12, p_filesz: 16, p_memsz: 20, p_align: 28 };
const ELF64_PROGRAM = { size: 56, p_offset: 8, p_vaddr: 16, p_paddr: 24, p_filesz: 32, p_memsz: 40, p_align: 48 };

/** As many headers as `e_phnum` can count, of the size they have; a file may claim larger ones. */
const MAX_TABLE_BYTES: number = 0x1_0000 * ELF64_PROGRAM.size;
/** All notes together: kernels have a few hundred bytes, and each 12 bytes may be a note. */
const MAX_NOTE_BYTES: number = MIB;

interface ProgramHeader {
  readonly type: number;
  readonly fileOffset: number;
  readonly virtualAddress: number | undefined;
  readonly physicalAddress: number;
  readonly fileBytes: number;
  readonly memoryBytes: number;
  readonly alignment: number;
}

/** An entry of a note segment. */
export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly description: DataView;
}

/** An executable's parts that matter to a loader. */
export interface ElfImage {
  readonly bits: 32 | 64;
  /** What to load, by physical address; at least one. */
  readonly segments: readonly FileSegment[];
  /** Physical address of the entry point the header names. */
  readonly entry: number;
  readonly notes: readonly ElfNote[];
}

/** True when the file begins as ELF files do. */
export function isElf(file: ImageFile): boolean {
  const start = readStart(file, 4);
  return start.byteLength === 4 && start.getUint32(0, false) === 0x7f45_4c46; // \x7fELF
}

/** Machine, class and kind, or why not. */
function checkIdentity(file: ImageFile): 32 | 64 {
  const start = readImage(file, 0, 20, "ELF header");
  const elfClass = start.getUint8(EI_CLASS);
  if (start.getUint8(EI_DATA) !== ELFDATA2LSB) {
    throw new SpecError("TSVMM_KERNEL_UNSUPPORTED", "kernel", `${file.name} is big-endian: an x86 kernel is needed`);
  }
  const machine = start.getUint16(18, true);
  if (machine !== EM_386 && machine !== EM_X86_64) {
    const name = MACHINE_NAMES[machine] ?? `machine type ${machine}`;
    throw new SpecError(
      "TSVMM_KERNEL_UNSUPPORTED",
      "kernel",
      `${file.name} is built for ${name}: an x86 kernel is needed`,
    );
  }
  const type = start.getUint16(16, true);
  if (type !== ET_EXEC && type !== ET_DYN) {
    const kind = type === 1 ? "an object file or kernel module" : type === 4 ? "a core dump" : `ELF type ${type}`;
    throw new SpecError("TSVMM_KERNEL_FORMAT", "kernel", `${file.name} is not a kernel: it is ${kind}`);
  }
  if (elfClass === ELFCLASS64) return 64;
  if (elfClass === ELFCLASS32) return 32;
  throw new SpecError("TSVMM_KERNEL_DAMAGED", "kernel", `${file.name} is damaged: ELF class is ${elfClass}`);
}

/** A field as wide as addresses of the file's class are. */
function field(file: ImageFile, view: DataView, offset: number, bits: 32 | 64, what: string): number {
  const value = bits === 32 ? view.getUint32(offset, true) : getU64(view, offset);
  if (value === undefined)
    throw new SpecError("TSVMM_KERNEL_DAMAGED", "kernel", `${file.name} is damaged: ${what} is out of range`);
  return value;
}

function readProgramHeaders(
  file: ImageFile,
  bits: 32 | 64,
  offset: number,
  stride: number,
  count: number,
): ProgramHeader[] {
  const layout = bits === 64 ? ELF64_PROGRAM : ELF32_PROGRAM;
  if (count === 0)
    throw new SpecError("TSVMM_KERNEL_FORMAT", "kernel", `${file.name} is not a kernel: it has no program headers`);
  if (stride < layout.size)
    throw new SpecError("TSVMM_KERNEL_DAMAGED", "kernel", `${file.name} is damaged: program header size is ${stride}`);
  if (stride * count > MAX_TABLE_BYTES) {
    const state = `its program header table claims ${stride * count} bytes, more than ${MAX_TABLE_BYTES}`;
    throw new SpecError("TSVMM_KERNEL_DAMAGED", "kernel", `${file.name} is damaged: ${state}`);
  }
  const table = readImage(file, offset, stride * count, "program header table");
  const headers: ProgramHeader[] = [];
  for (let index = 0; index < count; index++) {
    const at = index * stride;
    const type = table.getUint32(at, true);
    if (type !== PT_LOAD && type !== PT_NOTE) continue; // GNU_STACK and its like may hold anything
    const read = (where: number, name: string): number =>
      field(file, table, at + where, bits, `${name} of program header ${index}`);
    const header: ProgramHeader = {
      type,
      fileOffset: read(layout.p_offset, "p_offset"),
      // Kernels are linked at the top of the 64-bit space: such an address is no number, and only needed where it fits.
      virtualAddress: bits === 64 ? getU64(table, at + layout.p_vaddr) : table.getUint32(at + layout.p_vaddr, true),
      physicalAddress: read(layout.p_paddr, "p_paddr"),
      fileBytes: read(layout.p_filesz, "p_filesz"),
      memoryBytes: read(layout.p_memsz, "p_memsz"),
      alignment: read(layout.p_align, "p_align"),
    };
    if (header.fileOffset + header.fileBytes > file.sizeBytes) {
      throw truncated(file, `segment ${index}`, header.fileOffset, header.fileBytes);
    }
    if (type === PT_LOAD && header.fileBytes > header.memoryBytes) {
      throw new SpecError(
        "TSVMM_KERNEL_DAMAGED",
        "kernel",
        `${file.name} is damaged: segment ${index} holds ${hex(header.fileBytes)} bytes for ` +
          `${hex(header.memoryBytes)} of memory`,
      );
    }
    headers.push(header);
  }
  return headers;
}

/** Reads the notes of one segment; stops quietly where they make no sense any more, as notes are advice. */
function readNotes(file: ImageFile, header: ProgramHeader): ElfNote[] {
  const view = readImage(file, header.fileOffset, header.fileBytes, "note segment");
  const alignment = header.alignment === 8 ? 8 : 4;
  const padded = (size: number): number => Math.ceil(size / alignment) * alignment;
  const notes: ElfNote[] = [];
  for (let at = 0; at + 12 <= view.byteLength; ) {
    const nameBytes = view.getUint32(at, true);
    const descriptionBytes = view.getUint32(at + 4, true);
    const type = view.getUint32(at + 8, true);
    const descriptionAt = at + padded(12 + nameBytes);
    if (descriptionAt + descriptionBytes > view.byteLength) break;
    let name = "";
    for (let index = 0; index < nameBytes - 1; index++) name += String.fromCharCode(view.getUint8(at + 12 + index));
    const description = new DataView(view.buffer, view.byteOffset + descriptionAt, descriptionBytes);
    notes.push({ name, type, description });
    at = descriptionAt + padded(descriptionBytes);
  }
  return notes;
}

/**
 * Reads an x86 ELF executable.
 *
 * @throws SpecError when it is damaged, cut short, not an executable or for another machine.
 */
export function readElf(file: ImageFile): ElfImage {
  const bits = checkIdentity(file);
  const layout = bits === 64 ? ELF64_HEADER : ELF32_HEADER;
  const view = readImage(file, 0, layout.size, "ELF header");
  const headers = readProgramHeaders(
    file,
    bits,
    field(file, view, layout.e_phoff, bits, "e_phoff"),
    view.getUint16(layout.e_phentsize, true),
    view.getUint16(layout.e_phnum, true),
  );
  const loads = headers.filter((header) => header.type === PT_LOAD && header.memoryBytes > 0);
  if (loads.length === 0)
    throw new SpecError("TSVMM_KERNEL_FORMAT", "kernel", `${file.name} is not a kernel: it has nothing to load`);
  const noted = headers.filter((header) => header.type === PT_NOTE);
  const noteBytes = noted.reduce((sum, { fileBytes }) => sum + fileBytes, 0);
  if (noteBytes > MAX_NOTE_BYTES) {
    const state = `its notes claim ${noteBytes} bytes, more than ${MAX_NOTE_BYTES}`;
    throw new SpecError("TSVMM_KERNEL_DAMAGED", "kernel", `${file.name} is damaged: ${state}`);
  }
  // A 64-bit entry above 2^53 cannot be used: PVH has its own.
  const entry = bits === 64 ? getU64(view, layout.e_entry) : view.getUint32(layout.e_entry, true);
  const home = loads.find(
    ({ virtualAddress, memoryBytes }) =>
      entry !== undefined &&
      virtualAddress !== undefined &&
      entry >= virtualAddress &&
      entry < virtualAddress + memoryBytes,
  );
  return {
    bits,
    segments: loads.map((load) => ({
      file,
      fileOffset: load.fileOffset,
      sizeBytes: load.fileBytes,
      address: gpa(load.physicalAddress),
      memoryBytes: load.memoryBytes,
    })),
    // The header names a virtual address: a kernel linked high and loaded low is entered where its segment went.
    entry: (entry ?? 0) + (home === undefined ? 0 : home.physicalAddress - (home.virtualAddress ?? 0)),
    notes: noted.flatMap((header) => readNotes(file, header)),
  };
}
