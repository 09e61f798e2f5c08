import { HostError, SpecError } from "../../base/errors.ts";
import type { RamRegion } from "../../base/guest-memory.ts";
import type { MemoryMapEntry } from "../../base/load-plan.ts";
import type { IovaRange } from "../../base/mappings.ts";
import { alignDown, alignUp, GIB, gpa, hex, MIB, PAGE_SIZE } from "../../base/units.ts";
import { type CpuidEntry, isAmdCpu, physicalAddressBits } from "../../kvm/cpuid.ts";
import {
  ACPI_TABLES,
  ECAM,
  HIGH_MEMORY,
  HIGH_RAM_BASE,
  LEGACY_HOLE,
  LOW_RAM_LIMIT,
  type MemoryLayout,
  PCI_WINDOW_32,
  regionEnd,
  type Window,
} from "../shared/memory-map.ts";
import { type AddressRange, intersect, sizeOf, totalSize, without } from "./address-ranges.ts";

/**
 * AMD processors and their IOMMU give these addresses to HyperTransport, not to memory. AMD I/O Virtualization 3.07
 * §2.1.2
 */
const HYPERTRANSPORT: AddressRange = { start: 0xfd_0000_0000, end: 0x100_0000_0000 };
/**
 * Alignment of RAM regions at holes. Keeps huge pages usable and avoids slots smaller than 2 MiB.
 */
const RAM_GRAIN: number = 2 * MIB;
/** A smaller piece is no 64-bit window: it would cost an entry in `_CRS` and hold no BAR that needs one. */
const SMALLEST_WINDOW_64: number = 4 * GIB;

/** What of a CPU decides where memory may be. */
export interface CpuAddresses {
  /** Width of a guest-physical address, from CPUID 0x80000008. */
  readonly bits: number;
  /** AMD's and Hygon's processors have the {@link HYPERTRANSPORT} hole. */
  readonly isAmd: boolean;
}

/** @param supported What KVM gives to a guest's CPUID. */
export function cpuAddresses(supported: readonly CpuidEntry[]): CpuAddresses {
  return { bits: physicalAddressBits(supported), isAmd: isAmdCpu(supported) };
}

/**
 * Lays out RAM below and above 4 GiB and the PCI windows around it.
 *
 * Where devices are passed through, a guest-physical address is also the address of their DMA. RAM then leaves out what
 * the IOMMU does not translate: the MSI doorbell, regions that firmware reserved, addresses beyond its width. The
 * 64-bit windows are all that is free above RAM, those in the IOMMU's reach first. A BAR outside is only out of the
 * other devices' reach.
 *
 * @param ramBytes A multiple of the page size, at least 2 MiB.
 * @param iovaRanges What the IOMMU translates, in order; `undefined` without passed-through devices.
 * @param pageBytes What RAM is made of: regions are multiples of it.
 * @throws SpecError when the RAM does not fit, HostError when the IOMMU leaves no room where a kernel must be.
 */
export function layoutMemory(
  ramBytes: number,
  cpu: CpuAddresses,
  iovaRanges?: readonly IovaRange[],
  pageBytes: number = PAGE_SIZE,
): MemoryLayout {
  const all = [{ start: 0, end: 2 ** cpu.bits }];
  const addressable = cpu.isAmd ? without(all, HYPERTRANSPORT) : all;
  const translated = iovaRanges?.map(({ start, end }) => ({ start, end: end + 1 }));
  const reachable = translated === undefined ? addressable : intersect(addressable, translated);
  const pieces = ramPieces(ramBytes, cpu.bits, reachable, translated, Math.max(pageBytes, RAM_GRAIN));
  const ram: RamRegion[] = [];
  let fileOffset = 0;
  for (const piece of pieces) {
    ram.push({ gpa: gpa(piece.start), sizeBytes: sizeOf(piece), fileOffset });
    fileOffset += sizeOf(piece);
  }
  const ramEnd = pieces.at(-1)?.end ?? 0;
  return {
    ram,
    map: memoryMap(ram),
    pciWindow32: PCI_WINDOW_32,
    pciWindows64: windows64(ramEnd, addressable, reachable),
  };
}

/** The stretches of RAM, lowest first. */
function ramPieces(
  ramBytes: number,
  physicalBits: number,
  reachable: readonly AddressRange[],
  translated: readonly AddressRange[] | undefined,
  grain: number,
): readonly AddressRange[] {
  const room = intersect(reachable, [
    { start: 0, end: LOW_RAM_LIMIT },
    { start: HIGH_RAM_BASE, end: Number.POSITIVE_INFINITY },
  ])
    .map(({ start, end }) => ({ start: alignUp(start, grain), end: alignDown(end, grain) }))
    .filter((range) => range.start < range.end);
  const ranges = (translated ?? []).map(({ start, end }) => `${hex(start)}-${hex(end - 1)}`).join(", ");
  if (room[0]?.start !== 0) {
    throw new HostError(
      "TSVMM_IOMMU_RANGE",
      `Cannot give the guest RAM at address 0: the IOMMU translates ${ranges || "nothing"} only`,
    );
  }
  if (totalSize(room) < ramBytes) {
    const cpu = `the CPU has ${physicalBits} physical address bits`;
    const reason = translated === undefined ? cpu : `${cpu}, and the devices' IOMMU translates ${ranges}`;
    throw new SpecError("TSVMM_MEMORY_LAYOUT", "memory.sizeBytes", `${ramBytes / MIB} MiB do not fit: ${reason}`);
  }
  const pieces: AddressRange[] = [];
  let rest = ramBytes;
  for (const { start, end } of room) {
    if (rest === 0) break;
    const sizeBytes = Math.min(rest, end - start);
    pieces.push({ start, end: start + sizeBytes });
    rest -= sizeBytes;
  }
  return pieces;
}

/** What the guest is told, in the order of the table above. */
function memoryMap(ram: readonly RamRegion[]): readonly MemoryMapEntry[] {
  const entry = (start: number, end: number): MemoryMapEntry => ({
    address: gpa(start),
    sizeBytes: end - start,
    kind: "ram",
  });
  const entries: MemoryMapEntry[] = [
    entry(0, LEGACY_HOLE),
    { address: ACPI_TABLES.base, sizeBytes: ACPI_TABLES.sizeBytes, kind: "reserved" },
    ...ram.map((region) => entry(Math.max(region.gpa, HIGH_MEMORY), regionEnd(region))),
    { address: ECAM.base, sizeBytes: ECAM.sizeBytes, kind: "reserved" },
  ];
  return entries.sort((a, b) => a.address - b.address);
}

/** Every free piece above RAM: first those that CPU and IOMMU know, then those of the CPU alone. Each lowest first. */
function windows64(
  ramEnd: number,
  addressable: readonly AddressRange[],
  reachable: readonly AddressRange[],
): readonly Window[] {
  const above = { start: alignUp(Math.max(ramEnd, HIGH_RAM_BASE), 4 * GIB), end: Number.POSITIVE_INFINITY };
  const unreachable = reachable.reduce(without, addressable);
  return [reachable, unreachable]
    .flatMap((pieces) => intersect(pieces, [above]))
    .filter((piece) => sizeOf(piece) >= SMALLEST_WINDOW_64)
    .map((piece) => ({ base: piece.start, sizeBytes: sizeOf(piece) }));
}
