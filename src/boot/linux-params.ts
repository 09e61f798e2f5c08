import { SpecError } from "../base/errors.ts";
import type { MemoryMapEntry } from "../base/load-plan.ts";
import { type Gpa, highHalf, lowHalf } from "../base/units.ts";
import { emptyBytes, setU64 } from "./bytes.ts";
import { COMMAND_LINE_ADDRESS, E820_TYPE } from "./layout.ts";

/**
 * struct setup_header at its place in the image file and in the zero page, the same in both. Linux x86 boot protocol,
 * "The Real-Mode Kernel Header"; asm/bootparam.h
 */
export const SETUP_HEADER = {
  setup_sects: 0x1f1,
  syssize: 0x1f4,
  boot_flag: 0x1fe,
  /** Length byte of the jump instruction over the header: the header ends at 0x202 plus it. */
  jump_length: 0x201,
  header: 0x202,
  version: 0x206,
  type_of_loader: 0x210,
  loadflags: 0x211,
  code32_start: 0x214,
  ramdisk_image: 0x218,
  ramdisk_size: 0x21c,
  cmd_line_ptr: 0x228,
  initrd_addr_max: 0x22c,
  kernel_alignment: 0x230,
  relocatable_kernel: 0x234,
  xloadflags: 0x236,
  cmdline_size: 0x238,
  pref_address: 0x258,
  init_size: 0x260,
} as const;

/** struct boot_params around the header. asm/bootparam.h */
const BOOT_PARAMS = {
  ...{ size: 4096, acpi_rsdp_addr: 0x070, ext_ramdisk_image: 0x0c0, ext_ramdisk_size: 0x0c4 },
  ...{ e820_entries: 0x1e8, e820_table: 0x2d0 },
} as const;
const E820_ENTRY = { size: 20, addr: 0, length: 8, type: 16 } as const;
const E820_MAX_ENTRIES_ZEROPAGE = 128;
/** The header may not run into edd_mbr_sig_buffer. */
const HEADER_END_LIMIT = 0x290;

/** A boot loader without a number of its own. Linux x86 boot protocol, type_of_loader */
const LOADER_UNDEFINED = 0xff;

/** What the loader tells the kernel. */
export interface LinuxParams {
  /** The image's first bytes, header included. */
  readonly setup: DataView;
  readonly memoryMap: readonly MemoryMapEntry[];
  readonly rsdp: Gpa;
  readonly codeAddress: number;
  readonly initramfs: { readonly address: Gpa; readonly sizeBytes: number } | undefined;
}

/**
 * Makes the zero page: the image's setup header with the loader's fields filled in, the memory map and the ACPI root
 * pointer. Everything else stays zero; the kernel takes that for "the loader did not know".
 *
 * @throws SpecError when the map has more entries than the page takes.
 */
export function zeroPage(params: LinuxParams): DataView {
  const { setup, memoryMap } = params;
  if (memoryMap.length > E820_MAX_ENTRIES_ZEROPAGE) {
    throw new SpecError(
      "TSVMM_MEMORY_LAYOUT",
      "memory.sizeBytes",
      `the memory map has ${memoryMap.length} entries, Linux takes 128`,
    );
  }
  const page = emptyBytes(BOOT_PARAMS.size);
  const headerEnd = Math.min(SETUP_HEADER.header + setup.getUint8(SETUP_HEADER.jump_length), HEADER_END_LIMIT);
  for (let at: number = SETUP_HEADER.setup_sects; at < headerEnd; at++) page.setUint8(at, setup.getUint8(at));

  page.setUint8(SETUP_HEADER.type_of_loader, LOADER_UNDEFINED);
  page.setUint32(SETUP_HEADER.code32_start, params.codeAddress, true);
  page.setUint32(SETUP_HEADER.cmd_line_ptr, COMMAND_LINE_ADDRESS, true);
  const { address = 0, sizeBytes: initramfsBytes = 0 } = params.initramfs ?? {};
  page.setUint32(SETUP_HEADER.ramdisk_image, lowHalf(address), true);
  page.setUint32(SETUP_HEADER.ramdisk_size, lowHalf(initramfsBytes), true);
  page.setUint32(BOOT_PARAMS.ext_ramdisk_image, highHalf(address), true);
  page.setUint32(BOOT_PARAMS.ext_ramdisk_size, highHalf(initramfsBytes), true);

  setU64(page, BOOT_PARAMS.acpi_rsdp_addr, params.rsdp);
  page.setUint8(BOOT_PARAMS.e820_entries, memoryMap.length);
  for (const [index, { address, sizeBytes, kind }] of memoryMap.entries()) {
    const at = BOOT_PARAMS.e820_table + index * E820_ENTRY.size;
    setU64(page, at + E820_ENTRY.addr, address);
    setU64(page, at + E820_ENTRY.length, sizeBytes);
    page.setUint32(at + E820_ENTRY.type, E820_TYPE[kind], true);
  }
  return page;
}
