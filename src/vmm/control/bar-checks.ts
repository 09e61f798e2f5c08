import { Bus } from "../../base/bus.ts";
import type { HostFunction, ResourceSize } from "../../host-pci/functions.ts";
import { placeBars } from "../../pci/bar-placement.ts";
import { type BarIndex, type BarRequest, ROM_BAR } from "../../pci/function.ts";
import { type OwnedBar, rootWindows, unplacedBarError } from "../shared/bar-places.ts";
import type { MemoryLayout } from "../shared/memory-map.ts";

/**
 * Places the BARs of functions by what sysfs tells of them, before anything of the machine is made: guest RAM may take
 * minutes.
 *
 * @returns All of them, as the guest's PCI root will be asked for them.
 * @throws HostError for BARs that find no place.
 */
export function checkBarPlaces(
  functions: readonly HostFunction[],
  layout: MemoryLayout,
  hasTestDevice: boolean,
): readonly OwnedBar[] {
  const all = functions.flatMap(({ bdf, resources }) =>
    resources.map((resource): OwnedBar => ({ owner: bdf, request: barRequest(resource) })),
  );
  const windows = rootWindows(layout, hasTestDevice);
  const placed = placeBars(all, windows, { ports: new Bus("port"), mmio: new Bus("MMIO") });
  const unplaced = placed.filter(({ address }) => address === undefined).map(({ wish }) => wish);
  const error = unplacedBarError(unplaced, all, windows);
  if (error !== undefined) throw error;
  return all;
}

function barRequest({ index, sizeBytes, kind, is64Bit, isPrefetchable }: ResourceSize): BarRequest {
  if (index === ROM_BAR) return { kind: "rom", index: ROM_BAR, sizeBytes };
  const bar = BARS[index] ?? ROM_BAR;
  if (kind === "io") return { kind: "io", index: bar, sizeBytes };
  return { kind: is64Bit ? "mem64" : "mem32", index: bar, sizeBytes, isPrefetchable };
}

const BARS: readonly BarIndex[] = [0, 1, 2, 3, 4, 5];
