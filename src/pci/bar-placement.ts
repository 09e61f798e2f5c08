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

/**
 * Hands out addresses as firmware does: naturally aligned, memory at least page-aligned. So no two BARs share a page,
 * which is the smallest thing that can be mapped into a guest. Ask for large BARs first: then nothing is lost to
 * alignment.
 */
export class BarPlacement {
  readonly #windows: PciWindows;
  readonly #ports: Bus;
  readonly #mmio: Bus;
  readonly #next: Map<AddressRange, number> = new Map(); // everything below is handed out

  /** The buses are asked for what sits inside the windows already. */
  constructor(windows: PciWindows, ports: Bus, mmio: Bus) {
    this.#windows = windows;
    this.#ports = ports;
    this.#mmio = mmio;
  }

  /** An address for the BAR, `undefined` when no window has room. */
  take(request: BarRequest): number | undefined {
    const { memory32, memory64 } = this.#windows;
    switch (request.kind) {
      case "io":
        return this.#takeFrom(this.#windows.ports, this.#ports, request.sizeBytes, request.sizeBytes);
      case "mem32":
      case "rom":
        return this.#takeMemory(memory32, request.sizeBytes);
      case "mem64": {
        const isHigh = request.isPrefetchable || request.sizeBytes >= LARGE_BAR_BYTES;
        return this.#takeMemory(isHigh ? [...memory64, ...memory32] : [...memory32, ...memory64], request.sizeBytes);
      }
      default:
        return request satisfies never;
    }
  }

  #takeMemory(ranges: readonly AddressRange[], sizeBytes: number): number | undefined {
    return this.#takeFrom(ranges, this.#mmio, sizeBytes, Math.max(sizeBytes, PAGE_SIZE));
  }

  #takeFrom(ranges: readonly AddressRange[], bus: Bus, sizeBytes: number, alignment: number): number | undefined {
    for (const range of ranges) {
      let address = alignUp(this.#next.get(range) ?? range.base, alignment);
      for (;;) {
        const end = address + Math.max(sizeBytes, alignment);
        if (end > range.base + range.sizeBytes) break;
        const holder = bus.holder(address, end - address);
        if (holder === undefined) {
          this.#next.set(range, end);
          return address;
        }
        address = alignUp(holder.base + holder.sizeBytes, alignment);
      }
    }
    return undefined;
  }
}

/** True when the whole of `[base, base + sizeBytes)` lies in one of the ranges. */
export function isInside(ranges: readonly AddressRange[], base: number, sizeBytes: number): boolean {
  return ranges.some((range) => base >= range.base && base + sizeBytes <= range.base + range.sizeBytes);
}
