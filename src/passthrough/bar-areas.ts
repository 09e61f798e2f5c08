import { alignDown, alignUp, PAGE_SIZE } from "../base/units.ts";
import type { RegionArea, RegionInfo } from "./backend.ts";

/** Why a piece of a BAR is not a memory slot. */
export type TrapReason =
  | "bars=trap"
  | "excluded by the user"
  | "MSI-X table"
  | "MSI-X pending bits"
  | "the host does not map it"
  | "mapping it failed"
  | "dead: it can neither be mapped nor read"
  | "not a whole page";

/** A piece of a BAR whose accesses exit to us. */
export interface TrappedArea extends RegionArea {
  readonly reason: TrapReason;
}

/**
 * How a memory BAR is reached: areas that become memory slots, and the rest. Together they cover the BAR, in order of
 * offset.
 */
export interface BarPlan {
  readonly mapped: readonly RegionArea[];
  readonly trapped: readonly TrappedArea[];
}

/** A structure that the guest must not reach in hardware. */
export interface BarHole extends RegionArea {
  readonly reason: "MSI-X table" | "MSI-X pending bits";
}

export interface BarChoice {
  readonly bars: "map" | "trap";
  readonly isExcluded: boolean;
}

/**
 * Divides a memory BAR. Pure arithmetic.
 *
 * Slots are made of whole pages. Pages that hold a byte of the MSI-X table or of the pending bits are left out.
 * Registers beside the table in such a page stay reachable, by exits. The MSI-X table is always trapped, even where the
 * host allows mapping it: entries are emulated and routed through KVM. The PBA is always trapped: masking detaches the
 * irqfd, so the device does not know what is pending.
 *
 * A BAR shorter than a page is mapped as one page when the host offers it: it then reserved the rest of the page.
 */
export function planBar(region: RegionInfo, holes: readonly BarHole[], choice: BarChoice): BarPlan {
  const sizeBytes = region.sizeBytes;
  const whole = (reason: TrapReason): BarPlan => ({ mapped: [], trapped: [{ offset: 0, sizeBytes, reason }] });
  if (sizeBytes === 0) return { mapped: [], trapped: [] };
  if (choice.isExcluded) return whole("excluded by the user");
  if (choice.bars === "trap") return whole("bars=trap");
  if (region.mappableAreas.length === 0) return whole("the host does not map it");

  const edges = new Set([0, sizeBytes]);
  const cover = (areas: readonly RegionArea[]): void => {
    for (const area of areas) edges.add(area.offset).add(area.offset + area.sizeBytes);
  };
  const pages = region.mappableAreas.map((area) => wholePages(area, sizeBytes)).filter((area) => area.sizeBytes > 0);
  const pageHoles = holes.map((hole) => ({ ...hole, ...surroundingPages(hole) }));
  cover(region.mappableAreas);
  cover(pages);
  cover(pageHoles);

  const mapped: RegionArea[] = [];
  const trapped: TrappedArea[] = [];
  const sorted = [...edges].filter((edge) => edge <= sizeBytes).sort((a, b) => a - b);
  for (const [index, offset] of sorted.entries()) {
    const end = sorted[index + 1];
    if (end === undefined) break;
    const holds = (area: RegionArea): boolean => offset >= area.offset && offset < area.offset + area.sizeBytes;
    const hole = pageHoles.find(holds);
    if (hole === undefined && pages.some(holds)) mapped.push({ offset, sizeBytes: end - offset });
    else {
      const reason =
        hole?.reason ?? (region.mappableAreas.some(holds) ? "not a whole page" : "the host does not map it");
      append(trapped, { offset, sizeBytes: end - offset, reason });
    }
  }
  return { mapped, trapped };
}

/** The pages that lie wholly in an area; a whole BAR shorter than a page counts as one. */
function wholePages(area: RegionArea, barBytes: number): RegionArea {
  if (area.offset === 0 && area.sizeBytes === barBytes && barBytes < PAGE_SIZE)
    return { offset: 0, sizeBytes: PAGE_SIZE };
  const offset = alignUp(area.offset, PAGE_SIZE);
  return { offset, sizeBytes: alignDown(area.offset + area.sizeBytes, PAGE_SIZE) - offset };
}

function surroundingPages(area: RegionArea): RegionArea {
  const offset = alignDown(area.offset, PAGE_SIZE);
  return { offset, sizeBytes: alignUp(area.offset + area.sizeBytes, PAGE_SIZE) - offset };
}

/** Adds a piece, joining it to the last one where they touch and agree. */
function append(areas: TrappedArea[], area: TrappedArea): void {
  const last = areas.at(-1);
  if (last === undefined || last.offset + last.sizeBytes !== area.offset || last.reason !== area.reason)
    areas.push(area);
  else areas[areas.length - 1] = { ...last, sizeBytes: last.sizeBytes + area.sizeBytes };
}
