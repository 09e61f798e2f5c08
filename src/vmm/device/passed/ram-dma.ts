import type { Report } from "../../../base/backends.ts";
import type { DmaMapper } from "../../../base/mappings.ts";
import { iova } from "../../../base/units.ts";
import type { GuestRam } from "../../../host/memory/guest-ram.ts";
import type { PlanDma } from "../../shared/plan.ts";

/** Guest RAM, as far as its mapping is concerned. */
export type DmaMemory = Pick<GuestRam, "regions" | "sizeBytes" | "hostAddress">;

/**
 * Lets passed-through devices reach all guest RAM, at DMA addresses that are the guest's physical ones. The kernel pins
 * every page, which is what takes the time of such a start: so it is told.
 *
 * @throws HostError
 */
export function mapRamForDma(memory: DmaMemory, mapper: DmaMapper, report: Report): PlanDma {
  const started = performance.now();
  for (const region of memory.regions) {
    const host = memory.hostAddress(region.gpa, region.sizeBytes);
    if (host !== undefined) mapper.mapDma("guest RAM", iova(region.gpa), host, region.sizeBytes);
  }
  const ms = Math.round(performance.now() - started);
  report("info", "guest RAM is pinned and mapped for DMA", { bytes: memory.sizeBytes, ms });
  return { sizeBytes: memory.sizeBytes, ms };
}
