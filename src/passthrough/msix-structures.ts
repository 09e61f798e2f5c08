import { alignDown, alignUp, PAGE_SIZE, type Width } from "../base/units.ts";
import type { BarIndex } from "../pci/function.ts";
import { type BarOffset, type MsixCapability, nameTableEntry } from "../pci/msix.ts";
import type { BarHole } from "./bar-areas.ts";

/** What a function says of its MSI-X. */
export interface MsixPlaces {
  /** Device id above vendor id. */
  readonly id: number;
  readonly vectorCount: number;
  /** It fits its BAR. */
  readonly table: BarOffset;
  readonly tableBytes: number;
  /** As the capability has it; `undefined` for a BAR that does not exist. */
  readonly pba: BarOffset | undefined;
  readonly barBytes: (bar: BarIndex) => number;
}

/**
 * Where known virtual functions really have their pending bits: QEMU's `vfio_msix_early_setup()`. Chelsio's T5 say
 * 0x8000 in a BAR of 8 KiB, Baidu's Kunlun 0x46_0000 in one of 64 KiB.
 */
const TRUE_PLACES: readonly { readonly mask: number; readonly id: number; readonly offset: number }[] = [
  { mask: 0xff00_ffff, id: 0x5800_1425, offset: 0x1000 },
  { mask: 0xffff_ffff, id: 0x3685_1d22, offset: 0xb400 },
];

/**
 * Where the guest sees the PBA. It is the function's own place if it fits there. Otherwise it is the real place, or the
 * end of the table's BAR. They are emulated, so that any place will do that is not the table's.
 *
 * @returns `undefined` when the table's BAR has no room.
 */
export function placePendingBits(places: MsixPlaces): BarOffset | undefined {
  const { id, vectorCount, table, tableBytes, pba, barBytes } = places;
  const sizeBytes = 8 * Math.ceil(vectorCount / 64);
  if (pba !== undefined && pba.offset + sizeBytes <= barBytes(pba.bar)) return pba;
  const end = barBytes(table.bar);
  const known = TRUE_PLACES.filter(({ mask, id: other }) => ((id & mask) ^ other) === 0);
  // A page of their own is best: nothing of the device is trapped with them.
  const lastPage = alignDown(end - sizeBytes, PAGE_SIZE);
  const behindTable = alignUp(table.offset + tableBytes, 8);
  const candidates = [...known.map(({ offset }) => offset), lastPage, alignDown(end - sizeBytes, 8), behindTable];
  const isFree = (offset: number): boolean =>
    offset >= 0 &&
    offset + sizeBytes <= end &&
    (offset + sizeBytes <= table.offset || offset >= table.offset + tableBytes);
  const offset = candidates.find(isFree);
  return offset === undefined ? undefined : { bar: table.bar, offset };
}

/** Where one of the two structures of MSI-X lies in the BARs, and how its bytes are reached. */
interface Structure extends BarOffset {
  readonly reason: BarHole["reason"];
  readonly sizeBytes: number;
  read(offset: number, width: Width): number;
  write(offset: number, width: Width, value: number): void;
}

/** Tells accesses to the MSI-X table and pending bits, which are emulated, from those to the registers beside them. */
export class MsixStructures {
  readonly #structures: readonly Structure[];

  constructor(msix: MsixCapability) {
    this.#structures = [
      {
        ...msix.table,
        reason: "MSI-X table",
        sizeBytes: msix.tableSizeBytes,
        read: (offset, width) => msix.readTable(offset, width),
        write: (offset, width, value) => msix.writeTable(offset, width, value),
      },
      {
        ...msix.pba,
        reason: "MSI-X pending bits",
        sizeBytes: msix.pbaSizeBytes,
        read: (offset, width) => msix.readPba(offset, width),
        write: () => undefined, // read-only. PCI Local Bus 3.0 §6.8.2.10
      },
    ];
  }

  /** What may not be mapped of a BAR. */
  holes(index: BarIndex): readonly BarHole[] {
    return this.#structures.filter((structure) => structure.bar === index);
  }

  /** What is there, as text; `undefined` beside both structures. */
  describe(index: BarIndex, offset: number): string | undefined {
    const structure = this.#overlapping(index, offset, 1);
    if (structure?.reason !== "MSI-X table") return structure?.reason;
    return nameTableEntry(offset - structure.offset);
  }

  /**
   * @param fromDevice Reads what lies beside a structure, for an access that has bytes of both.
   * @returns `undefined` when no byte of the access is in a structure.
   */
  read(
    index: BarIndex,
    offset: number,
    width: Width,
    fromDevice: (offset: number, width: Width) => number,
  ): number | undefined {
    const structure = this.#overlapping(index, offset, width);
    if (structure === undefined) return undefined;
    if (holds(structure, offset, width)) return structure.read(offset - structure.offset, width);
    let value = 0;
    for (let byte = 0; byte < width; byte++) {
      const at = offset + byte;
      value += (this.read(index, at, 1, fromDevice) ?? fromDevice(at, 1)) * 2 ** (8 * byte);
    }
    return value;
  }

  /** @returns False when no byte of the access is in a structure; nothing was written then. */
  write(
    index: BarIndex,
    offset: number,
    width: Width,
    value: number,
    toDevice: (offset: number, width: Width, value: number) => void,
  ): boolean {
    const structure = this.#overlapping(index, offset, width);
    if (structure === undefined) return false;
    if (holds(structure, offset, width)) {
      structure.write(offset - structure.offset, width, value);
      return true;
    }
    for (let byte = 0; byte < width; byte++) {
      const part = (value >>> (8 * byte)) & 0xff;
      if (!this.write(index, offset + byte, 1, part, toDevice)) toDevice(offset + byte, 1, part);
    }
    return true;
  }

  /** Whether a byte of an access lies in a structure. */
  touches(index: BarIndex, offset: number, sizeBytes: number): boolean {
    return this.#overlapping(index, offset, sizeBytes) !== undefined;
  }

  #overlapping(index: BarIndex, offset: number, width: number): Structure | undefined {
    return this.#structures.find(
      (structure) =>
        structure.bar === index && offset < structure.offset + structure.sizeBytes && offset + width > structure.offset,
    );
  }
}

function holds(structure: Structure, offset: number, width: Width): boolean {
  return offset >= structure.offset && offset + width <= structure.offset + structure.sizeBytes;
}
