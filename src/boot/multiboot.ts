import { SpecError } from "../base/errors.ts";
import type { FileSegment, ImageFile, LoadPlan } from "../base/load-plan.ts";
import { gpa, hex, KIB, TWO_POW_32 } from "../base/units.ts";
import { type BootRequest, commandLineBytes } from "./boot-request.ts";
import { bytesOf, cString, emptyBytes, readStart, setU64, truncated } from "./bytes.ts";
import { type ElfImage, readElf } from "./elf.ts";
import { placeInitramfs } from "./initramfs.ts";
import {
  COMMAND_LINE_ADDRESS,
  COMMAND_LINE_ROOM,
  E820_TYPE,
  GDT_ADDRESS,
  MEMORY_MAP_ADDRESS,
  MULTIBOOT_MODULES_ADDRESS,
  START_INFO_ADDRESS,
  STRINGS_ADDRESS,
} from "./layout.ts";
import { Placement } from "./placement.ts";
import { checkEntry, FIRST_SELECTORS, flatProtectedMode } from "./start-state.ts";

/** Multiboot Specification 0.6.96 §3.1: magic, flags and checksum, on a 4-byte boundary of the first 8 KiB. */
const HEADER_MAGIC = 0x1bad_b002;
const HEADER_SEARCH_BYTES = 8192;
/** §3.1.2: bits 0 to 15 are demands; modules are page-aligned here anyway, and the memory fields always filled in. */
const KNOWN_DEMANDS = 0x0007;
const FLAG_ADDRESSES = 0x1_0000;
/** §3.1.3, from the header's start. */
const ADDRESSES = { size: 32, header_addr: 12, load_addr: 16, load_end_addr: 20, bss_end_addr: 24, entry_addr: 28 };

/** §3.2: what eax holds at the start. */
const BOOTLOADER_MAGIC = 0x2bad_b002;
/** §3.3, figure 2. */
const INFO = {
  ...{ size: 120, flags: 0, mem_lower: 4, mem_upper: 8, cmdline: 16, mods_count: 20, mods_addr: 24 },
  ...{ mmap_length: 44, mmap_addr: 48, boot_loader_name: 64 },
} as const;
const INFO_MEMORY = 0x001;
const INFO_CMDLINE = 0x004;
const INFO_MODS = 0x008;
const INFO_MMAP = 0x040;
const INFO_LOADER_NAME = 0x200;
const MODULE = { size: 16, mod_start: 0, mod_end: 4, string: 8 } as const;
/** `size` does not count itself. */
const MMAP_ENTRY = { size: 24, length_field: 0, base_addr: 4, length: 12, type: 20 } as const;

const LOADER_NAME = "tsvmm";

/** Where the header is in the file, and what it demands. */
export interface MultibootHeader {
  readonly offset: number;
  readonly flags: number;
}

/** Looks for a multiboot header; `undefined` when the file has none. */
export function findMultibootHeader(file: ImageFile): MultibootHeader | undefined {
  const start = readStart(file, HEADER_SEARCH_BYTES);
  for (let offset = 0; offset + 12 <= start.byteLength; offset += 4) {
    if (start.getUint32(offset, true) !== HEADER_MAGIC) continue;
    const flags = start.getUint32(offset + 4, true);
    const checksum = start.getUint32(offset + 8, true);
    if ((HEADER_MAGIC + flags + checksum) % TWO_POW_32 === 0) return { offset, flags };
  }
  return undefined;
}

interface Loadable {
  readonly segments: readonly FileSegment[];
  readonly entry: number;
}

/** Reads the header's address fields, for kernels that are not ELF or do not want to be taken as such. §3.1.3 */
function flatKernel(file: ImageFile, header: MultibootHeader): Loadable {
  const view = readStart(file, HEADER_SEARCH_BYTES);
  if (header.offset + ADDRESSES.size > view.byteLength) {
    throw truncated(file, "multiboot header", header.offset, ADDRESSES.size);
  }
  const field = (at: number): number => view.getUint32(header.offset + at, true);
  const loadAddress = field(ADDRESSES.load_addr);
  const skipped = field(ADDRESSES.header_addr) - loadAddress;
  const fileOffset = header.offset - skipped;
  if (skipped < 0 || fileOffset < 0) {
    throw new SpecError(
      "TSVMM_KERNEL_DAMAGED",
      "kernel",
      `${file.name} is damaged: its multiboot header is outside what it loads`,
    );
  }
  const loadEnd = field(ADDRESSES.load_end_addr);
  const sizeBytes = loadEnd === 0 ? file.sizeBytes - fileOffset : loadEnd - loadAddress;
  if (sizeBytes < 0)
    throw new SpecError("TSVMM_KERNEL_DAMAGED", "kernel", `${file.name} is damaged: load_end_addr is ${hex(loadEnd)}`);
  if (fileOffset + sizeBytes > file.sizeBytes) throw truncated(file, "multiboot image", fileOffset, sizeBytes);
  const bssEnd = field(ADDRESSES.bss_end_addr);
  const memoryBytes = Math.max(sizeBytes, bssEnd === 0 ? 0 : bssEnd - loadAddress);
  return {
    segments: [{ file, fileOffset, sizeBytes, address: gpa(loadAddress), memoryBytes }],
    entry: field(ADDRESSES.entry_addr),
  };
}

function loadable(file: ImageFile, header: MultibootHeader, elf: ElfImage | undefined): Loadable {
  const unknown = header.flags & 0xffff & ~KNOWN_DEMANDS;
  if (unknown !== 0) {
    throw new SpecError(
      "TSVMM_KERNEL_UNSUPPORTED",
      "kernel",
      `${file.name} demands multiboot features that are unknown here: flags ${hex(unknown)}`,
    );
  }
  if ((header.flags & FLAG_ADDRESSES) !== 0) return flatKernel(file, header);
  return elf ?? readElf(file); // 64-bit ones too, as GRUB 2 does: they are entered in 32-bit mode all the same
}

/**
 * Plans a boot by the Multiboot Specification, version 1: 32-bit protected mode, ebx at the information structure, the
 * initramfs as the only module. The command line has the kernel's name before it, as argument 0, like GRUB legacy and
 * QEMU pass it.
 *
 * A kernel that asks for a video mode (flag 2) is started without one: the information structure says that there is
 * none.
 *
 * @param elf The file as ELF, where it is one and its header has no address fields.
 * @throws SpecError
 */
export function planMultiboot(request: BootRequest, header: MultibootHeader, elf: ElfImage | undefined): LoadPlan {
  const { kernel, memoryMap } = request;
  const image = loadable(kernel, header, elf);
  checkEntry(kernel, "entry", image.entry, image.segments);
  const { start, gdt } = flatProtectedMode(FIRST_SELECTORS, {
    rax: BOOTLOADER_MAGIC,
    rbx: START_INFO_ADDRESS,
    rip: image.entry,
  });
  const cmdline = commandLineBytes(request.cmdline, COMMAND_LINE_ROOM - 1, kernel.name);
  const loaderName = cString(LOADER_NAME);
  const strings = new Uint8Array([...loaderName, ...cString(request.initramfs?.name ?? "")]);
  const info = emptyBytes(INFO.size);
  const modules = emptyBytes(MODULE.size);
  const mmap = memoryMapBytes(request);
  const writes = [
    { name: "boot GDT", address: GDT_ADDRESS, bytes: bytesOf(gdt) },
    { name: "multiboot information", address: START_INFO_ADDRESS, bytes: bytesOf(info) },
    { name: "multiboot module list", address: MULTIBOOT_MODULES_ADDRESS, bytes: bytesOf(modules) },
    { name: "multiboot memory map", address: MEMORY_MAP_ADDRESS, bytes: bytesOf(mmap) },
    { name: "command line", address: COMMAND_LINE_ADDRESS, bytes: cmdline },
    { name: "multiboot strings", address: STRINGS_ADDRESS, bytes: strings },
  ];

  const placement = new Placement(request.ramRegions, memoryMap);
  for (const { name, address, bytes } of writes)
    placement.claim("memory.sizeBytes", `the ${name}`, address, bytes.length);
  placement.claimSegments(kernel.name, image.segments);
  const initramfs = placeInitramfs(request.initramfs, placement, [TWO_POW_32]);

  info.setUint32(INFO.flags, INFO_MEMORY | INFO_CMDLINE | INFO_MODS | INFO_MMAP | INFO_LOADER_NAME, true);
  info.setUint32(INFO.mem_lower, Math.floor(Math.min(placement.lowestBytes, 640 * KIB) / KIB), true);
  info.setUint32(INFO.mem_upper, Math.floor(placement.extendedBytes / KIB), true);
  info.setUint32(INFO.cmdline, COMMAND_LINE_ADDRESS, true);
  info.setUint32(INFO.mods_count, initramfs === undefined ? 0 : 1, true);
  info.setUint32(INFO.mods_addr, MULTIBOOT_MODULES_ADDRESS, true);
  info.setUint32(INFO.mmap_length, mmap.byteLength, true);
  info.setUint32(INFO.mmap_addr, MEMORY_MAP_ADDRESS, true);
  info.setUint32(INFO.boot_loader_name, STRINGS_ADDRESS, true);
  if (initramfs !== undefined) {
    modules.setUint32(MODULE.mod_start, initramfs.address, true);
    modules.setUint32(MODULE.mod_end, initramfs.address + initramfs.sizeBytes, true);
    modules.setUint32(MODULE.string, STRINGS_ADDRESS + loaderName.length, true);
  }
  const segments = initramfs === undefined ? image.segments : [...image.segments, initramfs];
  return { protocol: "multiboot", segments, writes, start };
}

function memoryMapBytes({ memoryMap }: BootRequest): DataView {
  const mmap = emptyBytes(MMAP_ENTRY.size * memoryMap.length);
  for (const [index, { address, sizeBytes, kind }] of memoryMap.entries()) {
    const at = index * MMAP_ENTRY.size;
    mmap.setUint32(at + MMAP_ENTRY.length_field, MMAP_ENTRY.size - 4, true);
    setU64(mmap, at + MMAP_ENTRY.base_addr, address);
    setU64(mmap, at + MMAP_ENTRY.length, sizeBytes);
    mmap.setUint32(at + MMAP_ENTRY.type, E820_TYPE[kind], true);
  }
  return mmap;
}
