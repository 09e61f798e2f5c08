import { SpecError } from "../base/errors.ts";
import type { RamRegion } from "../base/guest-memory.ts";
import type { MemoryMapEntry } from "../base/load-plan.ts";
import { alignUp, GIB, type Gpa, type Gsi, gpa, gsi, MIB, PAGE_SIZE } from "../base/units.ts";

/*
 * THE table of addresses, ports and interrupts. Nothing else in the program chooses one.
 *
 *   0000_0000_0000  RAM; boot structures below 0x2_0000, see boot/          } slot 0
 *   0000_000a_0000  RAM the guest is not told of (VGA and ROM area of a PC) }
 *   0000_000e_0000  ACPI tables, and the reset vector at the end, reserved  }
 *   0000_0010_0000  RAM: the kernel                                         }
 *   0000_c000_0000  end of low RAM at most; 32-bit PCI window, 640 MiB
 *   0000_e800_0000  ECAM, 1 MiB a bus, one bus
 *   0000_f800_0000  KVM's TSS (3 pages) and identity map (1 page); Intel hosts only, never seen by the guest
 *   0000_fec0_0000  I/O APIC (in KVM)
 *   0000_fee0_0000  local APICs (in KVM), MSI doorbell
 *   0001_0000_0000  RAM above 4 GiB
 *   next 4 GiB line 64-bit PCI window, as long as the CPU's physical addresses and 39 bits go
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

/**
 * First end of the 64-bit PCI window: client CPUs' IOMMUs translate 39 bits, so a BAR above that cannot be a peer-to-peer DMA target.
 * RAM beyond it pushes the window up to what the CPU can address.
 */
const COMMON_IOMMU_BITS = 39;

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
export const PCI_WINDOW_IO = { base: 0x1000, sizeBytes: 0xf000 } as const;

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

/** Where RAM is and what is left for PCI. */
export interface MemoryLayout {
  readonly ram: readonly RamRegion[];
  readonly map: readonly MemoryMapEntry[];
  readonly pciWindow32: Window;
  readonly pciWindow64: Window | undefined;
}

/**
 * Lays out RAM below and above 4 GiB and the PCI windows around it.
 *
 * @param ramBytes A multiple of the page size, at least 2 MiB.
 * @param physicalBits Width of a guest-physical address, from CPUID 0x80000008.
 * @throws SpecError when the RAM does not fit the physical address width.
 */
export function layoutMemory(ramBytes: number, physicalBits: number): MemoryLayout {
  const lowBytes = Math.min(ramBytes, LOW_RAM_LIMIT);
  const highBytes = ramBytes - lowBytes;
  const addressLimit = 2 ** physicalBits;
  const ramEnd = highBytes > 0 ? HIGH_RAM_BASE + highBytes : lowBytes;
  if (ramEnd > addressLimit) {
    const text = `${ramBytes / MIB} MiB do not fit: the CPU has ${physicalBits} physical address bits`;
    throw new SpecError("memory.sizeBytes", text);
  }
  const ram: RamRegion[] = [{ gpa: gpa(0), sizeBytes: lowBytes, fileOffset: 0 }];
  if (highBytes > 0) ram.push({ gpa: gpa(HIGH_RAM_BASE), sizeBytes: highBytes, fileOffset: lowBytes });

  const map: MemoryMapEntry[] = [
    { address: gpa(0), sizeBytes: LEGACY_HOLE, kind: "ram" },
    { address: ACPI_TABLES.base, sizeBytes: ACPI_TABLES.sizeBytes, kind: "reserved" },
    { address: gpa(HIGH_MEMORY), sizeBytes: lowBytes - HIGH_MEMORY, kind: "ram" },
    { address: ECAM.base, sizeBytes: ECAM.sizeBytes, kind: "reserved" },
  ];
  if (highBytes > 0) map.push({ address: gpa(HIGH_RAM_BASE), sizeBytes: highBytes, kind: "ram" });

  const windowBase = alignUp(Math.max(ramEnd, HIGH_RAM_BASE), 4 * GIB);
  const commonEnd = Math.min(addressLimit, 2 ** COMMON_IOMMU_BITS);
  const windowEnd = windowBase + 4 * GIB <= commonEnd ? commonEnd : addressLimit;
  const pciWindow64 = windowEnd > windowBase ? { base: windowBase, sizeBytes: windowEnd - windowBase } : undefined;
  return { ram, map, pciWindow32: PCI_WINDOW_32, pciWindow64 };
}

/** The part of RAM that KVM maps for the guest: every region is one memory slot, page multiples throughout. */
export function isPageMultiple(sizeBytes: number): boolean {
  return sizeBytes > 0 && sizeBytes % PAGE_SIZE === 0;
}

/** Address just above a RAM region. */
export const regionEnd = (region: RamRegion): Gpa => gpa(region.gpa + region.sizeBytes);
