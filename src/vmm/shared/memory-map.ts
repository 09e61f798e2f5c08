import type { RamRegion } from "../../base/guest-memory.ts";
import type { MemoryMapEntry } from "../../base/load-plan.ts";
import { type Gpa, type Gsi, gpa, gsi, MIB } from "../../base/units.ts";

/*
 * THE table of addresses, ports and interrupts. Nothing else in the program chooses one.
 *
 * | address         | what is there                                                                            |
 * | 0000_0000_0000  | RAM; boot structures below 0x2_0000, see boot/; slot 0                                   |
 * | 0000_000a_0000  | RAM the guest is not told of (VGA and ROM area of a PC); slot 0                          |
 * | 0000_000e_0000  | ACPI tables, and the reset vector at the end, reserved; slot 0                           |
 * | 0000_0010_0000  | RAM: the kernel; slot 0                                                                  |
 * | 0000_c000_0000  | end of low RAM at most; 32-bit PCI window, 640 MiB                                       |
 * | 0000_e800_0000  | ECAM, 1 MiB a bus, one bus                                                               |
 * | 0000_f800_0000  | KVM's TSS (3 pages) and identity map (1 page); Intel hosts only, never seen by the guest |
 * | 0000_fec0_0000  | I/O APIC (in KVM)                                                                        |
 * | 0000_fee0_0000  | local APICs (in KVM), MSI doorbell                                                       |
 * | 0000_ff00_0000  | memory of the test device, 64 KiB; only with that option                                 |
 * | 0001_0000_0000  | RAM above 4 GiB                                                                          |
 * | next 4 GiB line | 64-bit PCI windows, as far as the CPU's physical addresses go                            |
 * | 00fd_0000_0000  | 12 GiB that AMD processors keep for HyperTransport: neither RAM nor window, on AMD hosts |
 *
 * With passed-through devices RAM is cut to what their IOMMU translates, and BARs are placed there first.
 */
export const LOW_RAM_LIMIT = 0xc000_0000;
export const HIGH_RAM_BASE = 0x1_0000_0000;
export const LEGACY_HOLE = 0xa_0000;
export const ACPI_TABLES: { readonly base: Gpa; readonly sizeBytes: number } = {
  base: gpa(0xe_0000),
  sizeBytes: 0x2_0000,
};
export const HIGH_MEMORY = 0x10_0000;
export const PCI_WINDOW_32 = { base: 0xc000_0000, sizeBytes: 0x2800_0000 } as const;
export const ECAM: { readonly base: Gpa; readonly sizeBytes: number; readonly buses: number } = {
  base: gpa(0xe800_0000),
  sizeBytes: 1 * MIB,
  buses: 1,
};
export const KVM_TSS_ADDRESS: Gpa = gpa(0xf800_0000);
export const KVM_IDENTITY_MAP_ADDRESS: Gpa = gpa(0xf800_3000);
export const IO_APIC_BASE: Gpa = gpa(0xfec0_0000);
export const LOCAL_APIC_BASE: Gpa = gpa(0xfee0_0000);

/** I/O ports. */
export const PORTS = {
  keyboard: 0x60, // 0x60 and 0x64
  rtc: 0x70, // 0x70 and 0x71
  postCode: 0x80,
  com1: 0x3f8,
  acpi: 0x600,
  pciConfig: 0xcf8, // to 0xcff
} as const;

/** Ports that I/O BARs may take. */
const PCI_WINDOW_IO = { base: 0x1000, sizeBytes: 0xf000 } as const;

/** Ports and memory of QEMU's pc-testdev, and the output port of its forerunner, `testdev`. */
export const TEST_DEVICE = {
  scratch: 0xe0, // to 0xe3
  flush: 0xe4, // to 0xe7
  scratchBytes: 0xe8, // to 0xeb
  output: 0xf1,
  lines: 0x2000, // to 0x2017
  memory: 0xff00_0000, // to 0xff00_ffff
} as const;

/** Interrupt lines, as the I/O APIC's pins. */
export const GSIS: { readonly com1: Gsi; readonly acpiEvents: Gsi } = {
  com1: gsi(4),
  acpiEvents: gsi(9),
};

/** INTx: four pins swizzled over the I/O APIC's eight PCI pins, as the DSDT's _PRT says. `pin` is 1 (A) to 4 (D). */
export function intxGsi(slot: number, pin: number): Gsi {
  return gsi(16 + ((slot + pin - 1) % 8));
}

/** A window of guest-physical space for BARs. */
export interface Window {
  readonly base: number;
  readonly sizeBytes: number;
}

/**
 * Ports that I/O BARs may take in a machine, and that `_CRS` offers; the test device's interrupt lines are in the
 * middle of them.
 */
export function pciPortWindows(hasTestDevice: boolean): readonly Window[] {
  return hasTestDevice ? cutOut(PCI_WINDOW_IO, TEST_DEVICE.lines) : [PCI_WINDOW_IO];
}

/** What is left of a window on both sides of a range inside it. */
function cutOut({ base, sizeBytes }: Window, hole: number): readonly [Window, Window] {
  const after = hole + 0x1000;
  return [
    { base, sizeBytes: hole - base },
    { base: after, sizeBytes: base + sizeBytes - after },
  ];
}

/** Where RAM is and what is left for PCI. */
export interface MemoryLayout {
  readonly ram: readonly RamRegion[];
  readonly map: readonly MemoryMapEntry[];
  readonly pciWindow32: Window;
  /** In the order of preference. They may touch. */
  readonly pciWindows64: readonly Window[];
}

/** Address just above a RAM region. */
export const regionEnd = (region: RamRegion): Gpa => gpa(region.gpa + region.sizeBytes);
