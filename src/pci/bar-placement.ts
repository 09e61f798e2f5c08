import type { Bus } from "../base/bus.ts";
import { alignUp, MIB, PAGE_SIZE } from "../base/units.ts";
import type { BarRequest } from "./function.ts";

/** A stretch of addresses or ports. */
export interface AddressRange {
  readonly base: number;
  readonly sizeBytes: number;
}

/** What the root decodes towards its functions; the same ranges the guest reads in `_CRS`. */
export interface PciWindows {
  readonly ports: readonly AddressRange[];
  /** Below 4 GiB. */
  readonly memory32: readonly AddressRange[];
  readonly memory64: readonly AddressRange[];
}

/** From here on a 64-bit BAR goes to the 64-bit window even when it is not prefetchable: the 32-bit one is small. */
const LARGE_BAR_BYTES: number = 16 * MIB;

/** A BAR that is to be placed. */
interface Wish {
  readonly request: BarRequest;
}

/** What {@link placeBars} answers of one wish; no address where no window has room. */
export interface Placed<T extends Wish> {
  readonly wish: T;
  readonly address: number | undefined;
}

/** What sits inside the windows already. */
export interface RootBuses {
  readonly ports: Bus;
  readonly mmio: Bus;
}

/**
 * Hands out addresses as firmware does: naturally aligned, memory at least page-aligned. So no two BARs share a page,
 * which is the smallest thing that can be mapped into a guest.
 *
 * The largest come first: as sizes are powers of two, nothing is lost to alignment then. Where that is not enough,
 * 64-bit BARs leave the 32-bit window to those that have no other.
 *
 * @returns In the order of placement.
 */
export function placeBars<T extends Wish>(
  wishes: readonly T[],
  windows: PciWindows,
  buses: RootBuses,
): readonly Placed<T>[] {
  const bySize = [...wishes].sort((a, b) => b.request.sizeBytes - a.request.sizeBytes);
  const placed = placeInOrder(bySize, windows, buses);
  if (placed.every(({ address }) => address !== undefined)) return placed;
  const isWide = ({ request }: T): number => Number(request.kind === "mem64");
  return placeInOrder(
    bySize.sort((a, b) => isWide(a) - isWide(b)),
    windows,
    buses,
  );
}

function placeInOrder<T extends Wish>(
  wishes: readonly T[],
  windows: PciWindows,
  { ports, mmio }: RootBuses,
): readonly Placed<T>[] {
  const portRanges = new FreeRanges(windows.ports, ports);
  const memory32 = new FreeRanges(windows.memory32, mmio);
  const memory64 = new FreeRanges(windows.memory64, mmio);
  const take = (request: BarRequest): number | undefined => {
    const pageBytes = Math.max(request.sizeBytes, PAGE_SIZE);
    switch (request.kind) {
      case "io":
        return portRanges.take(request.sizeBytes);
      case "mem32":
      case "rom":
        return memory32.take(pageBytes);
      case "mem64": {
        const isHigh = request.isPrefetchable || request.sizeBytes >= LARGE_BAR_BYTES;
        const [first, second] = isHigh ? [memory64, memory32] : [memory32, memory64];
        return first.take(pageBytes) ?? second.take(pageBytes);
      }
      default:
        return request satisfies never;
    }
  };
  return wishes.map((wish) => ({ wish, address: take(wish.request) }));
}

/** What is free of some windows, in their order. */
class FreeRanges {
  readonly #free: AddressRange[];

  constructor(windows: readonly AddressRange[], bus: Bus) {
    this.#free = windows.flatMap((window) => bus.ranges.reduce(cutOut, [window]));
  }

  /** The first free address that is a multiple of the size. */
  take(sizeBytes: number): number | undefined {
    for (const [index, free] of this.#free.entries()) {
      const base = alignUp(free.base, sizeBytes);
      if (base + sizeBytes > free.base + free.sizeBytes) continue;
      this.#free.splice(index, 1, ...cutOut([free], { base, sizeBytes }));
      return base;
    }
    return undefined;
  }
}

/** The ranges without a hole. */
function cutOut(ranges: AddressRange[], hole: AddressRange): AddressRange[] {
  const holeEnd = hole.base + hole.sizeBytes;
  return ranges.flatMap((range) => {
    const end = range.base + range.sizeBytes;
    if (hole.base >= end || holeEnd <= range.base) return [range];
    return [
      { base: range.base, sizeBytes: hole.base - range.base },
      { base: holeEnd, sizeBytes: end - holeEnd },
    ].filter(({ sizeBytes }) => sizeBytes > 0);
  });
}

/** True when the ranges, which may touch, cover the whole of `[base, base + sizeBytes)`. */
export function isInside(ranges: readonly AddressRange[], base: number, sizeBytes: number): boolean {
  return ranges.reduce(cutOut, [{ base, sizeBytes }]).length === 0;
}
