import { SpecError } from "../base/errors.ts";
import type { RamRegion } from "../base/guest-memory.ts";
import type { FileSegment, MemoryMapEntry } from "../base/load-plan.ts";
import { alignDown, type Gpa, gpa, hex, MIB, PAGE_SIZE, TWO_POW_32 } from "../base/units.ts";

interface Range {
  readonly start: number;
  readonly end: number; // first address behind it
}

interface Claim extends Range {
  readonly name: string;
}

/** What of the RAM the map calls RAM, in address order, touching pieces joined. */
function usableRam(regions: readonly RamRegion[], map: readonly MemoryMapEntry[]): readonly Range[] {
  const pieces: Range[] = [];
  for (const entry of map) {
    if (entry.kind !== "ram") continue;
    for (const region of regions) {
      const start = Math.max(entry.address, region.gpa);
      const end = Math.min(entry.address + entry.sizeBytes, region.gpa + region.sizeBytes);
      if (start < end) pieces.push({ start, end });
    }
  }
  pieces.sort((a, b) => a.start - b.start);
  const joined: Range[] = [];
  for (const piece of pieces) {
    const last = joined.at(-1);
    if (last !== undefined && piece.start <= last.end) {
      joined[joined.length - 1] = { start: last.start, end: Math.max(last.end, piece.end) };
    } else joined.push(piece);
  }
  return joined;
}

/**
 * Hands out guest memory to what must be in it at the start, so that nothing lies outside RAM and nothing overlaps.
 */
export class Placement {
  readonly #ram: readonly Range[];
  /** In address order, without overlaps. */
  readonly #claims: Claim[] = [];

  constructor(regions: readonly RamRegion[], map: readonly MemoryMapEntry[]) {
    this.#ram = usableRam(regions, map);
  }

  /** Bytes of RAM from address 0 without a hole; at most 640 KiB in a PC. */
  get lowestBytes(): number {
    return this.#bytesFrom(0);
  }

  /** Bytes of RAM from 1 MiB without a hole, below 4 GiB. */
  get extendedBytes(): number {
    return Math.min(this.#bytesFrom(MIB), TWO_POW_32 - MIB);
  }

  /**
   * Takes a range for `name`.
   *
   * @param option Whose fault it is when the range cannot be had.
   * @throws SpecError when a byte of it is not RAM or is taken.
   */
  claim(option: string, name: string, address: number, sizeBytes: number): void {
    if (sizeBytes === 0) return;
    const end = address + sizeBytes;
    const place = `${hex(address)}+${hex(sizeBytes)}`;
    if (!this.#ram.some((range) => address >= range.start && end <= range.end)) {
      const map = this.#ram.map((range) => `${hex(range.start)}-${hex(range.end - 1)}`).join(", ");
      const advice = address >= MIB ? "; give the guest more memory" : "";
      throw new SpecError(
        "TSVMM_IMAGE_NO_ROOM",
        option,
        `${name} does not fit into memory at ${place}: RAM is at ${map}${advice}`,
      );
    }
    const holder = this.#holder(address, end);
    if (holder !== undefined) {
      const taken = `${hex(holder.start)}+${hex(holder.end - holder.start)}`;
      throw new SpecError("TSVMM_IMAGE_OVERLAP", option, `${name} at ${place} overlaps ${holder.name} at ${taken}`);
    }
    this.#claims.splice(this.#firstBehind(address), 0, { name, start: address, end });
  }

  /**
   * Takes what a kernel's segments load, in address order: an ELF file may have 65,535 of them, in any.
   *
   * @throws SpecError as {@link claim} does.
   */
  claimSegments(kernel: string, segments: readonly FileSegment[]): void {
    const ordered = [...segments.entries()].sort(([, a], [, b]) => a.address - b.address);
    for (const [index, { address, memoryBytes }] of ordered) {
      this.claim("kernel", `segment ${index} of ${kernel}`, address, memoryBytes);
    }
  }

  /**
   * Takes the highest free page-aligned range between 1 MiB and a limit.
   *
   * @param limits First addresses the range may not reach: the next one is tried where there is no room below the last.
   * @throws SpecError when there is none.
   */
  claimHighest(option: string, name: string, sizeBytes: number, limits: readonly number[]): Gpa {
    for (const limit of limits) {
      const address = this.#highestFree(sizeBytes, limit);
      if (address === undefined) continue;
      this.claim(option, name, address, sizeBytes);
      return gpa(address);
    }
    const limit = Math.max(...limits);
    const below = Number.isFinite(limit) ? ` below ${hex(limit)}` : "";
    // RAM at the limit already: more of it comes above.
    const isFull = this.#ram.some(({ end }) => end >= limit) || sizeBytes >= limit;
    const advice = isFull ? "compress it, as this kernel takes none above that whatever --memory is" : "raise --memory";
    throw new SpecError(
      "TSVMM_IMAGE_NO_ROOM",
      option,
      `${name} (${Math.ceil(sizeBytes / MIB)} MiB) does not fit beside the kernel${below}; ${advice}`,
    );
  }

  #highestFree(sizeBytes: number, limit: number): number | undefined {
    for (const range of this.#ram.toReversed()) {
      let address = alignDown(Math.min(range.end, limit) - sizeBytes, PAGE_SIZE);
      while (address >= Math.max(range.start, MIB)) {
        const holder = this.#holder(address, address + sizeBytes);
        if (holder === undefined) return address;
        address = alignDown(holder.start - sizeBytes, PAGE_SIZE);
      }
    }
    return undefined;
  }

  #holder(start: number, end: number): Claim | undefined {
    const claim = this.#claims[this.#firstBehind(start)];
    return claim !== undefined && claim.start < end ? claim : undefined;
  }

  /** Index of the first claim that ends behind an address. */
  #firstBehind(address: number): number {
    let low = 0;
    let high = this.#claims.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#claims[middle]?.end ?? 0) > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #bytesFrom(address: number): number {
    const range = this.#ram.find((candidate) => address >= candidate.start && address < candidate.end);
    return range === undefined ? 0 : range.end - address;
  }
}
