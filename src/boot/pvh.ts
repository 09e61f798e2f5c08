import type { LoadPlan } from "../base/load-plan.ts";
import { TWO_POW_32 } from "../base/units.ts";
import { type BootRequest, commandLineBytes } from "./boot-request.ts";
import { bytesOf, emptyBytes, getU64, setU64 } from "./bytes.ts";
import type { ElfImage } from "./elf.ts";
import { placeInitramfs } from "./initramfs.ts";
import {
  COMMAND_LINE_ADDRESS,
  COMMAND_LINE_ROOM,
  E820_TYPE,
  GDT_ADDRESS,
  MEMORY_MAP_ADDRESS,
  MODULE_LIST_ADDRESS,
  START_INFO_ADDRESS,
} from "./layout.ts";
import { Placement } from "./placement.ts";
import { checkEntry, FIRST_SELECTORS, flatProtectedMode } from "./start-state.ts";

/** Note of owner "Xen" with the 32-bit physical entry point. xen/include/public/elfnote.h */
const XEN_ELFNOTE_PHYS32_ENTRY = 18;
const XEN_HVM_START_MAGIC_VALUE = 0x336e_c578;
/** COMMAND_LINE_SIZE of x86 Linux is 2048 with the NUL; an ELF file does not say it, as a bzImage does. */
const LINUX_COMMAND_LINE_LIMIT = 2047;

/** struct hvm_start_info, version 1. xen/include/public/arch-x86/hvm/start_info.h */
const START_INFO = {
  ...{ size: 56, magic: 0, version: 4, flags: 8, nr_modules: 12, modlist_paddr: 16, cmdline_paddr: 24 },
  ...{ rsdp_paddr: 32, memmap_paddr: 40, memmap_entries: 48 },
} as const;
/** struct hvm_modlist_entry */
const MODULE = { size: 32, paddr: 0, length: 8 } as const;
/** struct hvm_memmap_table_entry */
const MEMMAP = { size: 24, addr: 0, length: 8, type: 16 } as const;

/** The PVH entry point an ELF kernel announces; `undefined` when it does not. */
export function pvhEntry(elf: ElfImage): number | undefined {
  const note = elf.notes.find(({ name, type }) => name === "Xen" && type === XEN_ELFNOTE_PHYS32_ENTRY);
  if (note === undefined) return undefined;
  if (note.description.byteLength >= 8) return getU64(note.description, 0);
  return note.description.byteLength >= 4 ? note.description.getUint32(0, true) : undefined;
}

/**
 * Plans a direct boot of an ELF kernel by the PVH protocol: 32-bit protected mode, ebx points at hvm_start_info.
 * Xen docs/misc/pvh.pandoc
 *
 * @throws SpecError
 */
export function planPvh(request: BootRequest, elf: ElfImage, entry: number): LoadPlan {
  const { kernel, memoryMap } = request;
  checkEntry(kernel, "PVH entry", entry, elf.segments);
  const isLinux = elf.notes.some(({ name }) => name === "Linux");
  const cmdline = commandLineBytes(request.cmdline, isLinux ? LINUX_COMMAND_LINE_LIMIT : COMMAND_LINE_ROOM - 1);
  const { start, gdt } = flatProtectedMode(FIRST_SELECTORS, { rbx: START_INFO_ADDRESS, rip: entry });

  const memmap = emptyBytes(MEMMAP.size * memoryMap.length);
  for (const [index, { address, sizeBytes, kind }] of memoryMap.entries()) {
    const at = index * MEMMAP.size;
    setU64(memmap, at + MEMMAP.addr, address);
    setU64(memmap, at + MEMMAP.length, sizeBytes);
    memmap.setUint32(at + MEMMAP.type, E820_TYPE[kind], true);
  }

  const info = emptyBytes(START_INFO.size);
  info.setUint32(START_INFO.magic, XEN_HVM_START_MAGIC_VALUE, true);
  info.setUint32(START_INFO.version, 1, true);
  setU64(info, START_INFO.cmdline_paddr, COMMAND_LINE_ADDRESS);
  setU64(info, START_INFO.rsdp_paddr, request.rsdp);
  setU64(info, START_INFO.memmap_paddr, MEMORY_MAP_ADDRESS);
  info.setUint32(START_INFO.memmap_entries, memoryMap.length, true);

  const writes = [
    { name: "boot GDT", address: GDT_ADDRESS, bytes: bytesOf(gdt) },
    { name: "PVH start info", address: START_INFO_ADDRESS, bytes: bytesOf(info) },
    { name: "PVH memory map", address: MEMORY_MAP_ADDRESS, bytes: bytesOf(memmap) },
    { name: "command line", address: COMMAND_LINE_ADDRESS, bytes: cmdline },
  ];
  const modules = emptyBytes(MODULE.size);
  if (request.initramfs !== undefined) {
    writes.push({ name: "PVH module list", address: MODULE_LIST_ADDRESS, bytes: bytesOf(modules) });
  }

  const placement = new Placement(request.ramRegions, memoryMap);
  for (const { name, address, bytes } of writes)
    placement.claim("memory.sizeBytes", `the ${name}`, address, bytes.length);
  placement.claimSegments(kernel.name, elf.segments);
  const initramfs = placeInitramfs(request.initramfs, placement, [TWO_POW_32]);
  if (initramfs !== undefined) {
    info.setUint32(START_INFO.nr_modules, 1, true);
    setU64(info, START_INFO.modlist_paddr, MODULE_LIST_ADDRESS);
    setU64(modules, MODULE.paddr, initramfs.address);
    setU64(modules, MODULE.length, initramfs.sizeBytes);
  }
  const segments = initramfs === undefined ? elf.segments : [...elf.segments, initramfs];
  return { protocol: "PVH", segments, writes, start };
}
