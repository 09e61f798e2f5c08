import { type Gpa, gpa } from "../base/units.ts";

/**
 * Where boot structures lie in low memory. They are read once, by the guest's first instructions, and are ordinary RAM
 * in the map the guest is given. The addresses are those Cloud Hypervisor uses, so that guests see what they are used
 * to.
 */
export const GDT_ADDRESS: Gpa = gpa(0x500);
/** hvm_start_info (PVH) or the multiboot information structure. */
export const START_INFO_ADDRESS: Gpa = gpa(0x6000);
/** PVH's list with the one module that the initramfs is. */
export const MODULE_LIST_ADDRESS: Gpa = gpa(0x6040);
/** The same for multiboot, whose information structure is longer. */
export const MULTIBOOT_MODULES_ADDRESS: Gpa = gpa(0x6080);
/** The memory map (PVH, multiboot) or Linux' zero page, never both. */
export const MEMORY_MAP_ADDRESS: Gpa = gpa(0x7000);
export const ZERO_PAGE_ADDRESS: Gpa = gpa(0x7000);
export const COMMAND_LINE_ADDRESS: Gpa = gpa(0x2_0000);
/** Room for the command line with its NUL; the text may be one byte shorter. */
export const COMMAND_LINE_ROOM = 0x1_0000;
/** Names multiboot hands over: of the loader and of the module. */
export const STRINGS_ADDRESS: Gpa = gpa(0x3_0000);

/**
 * Address range types as the BIOS call e820 numbers them; PVH and multiboot took them over. ACPI 6.5 §15, table 15.4
 */
export const E820_TYPE = { ram: 1, reserved: 2, acpi: 3 } as const;
