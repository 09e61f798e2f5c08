import { SpecError } from "../../base/errors.ts";
import type { PciWindows } from "../../pci/bar-placement.ts";
import type { PciRoot, UnplacedBar } from "../../pci/root.ts";
import { type OwnedBar, unplacedBarError } from "../shared/bar-places.ts";
import type { NewFunction } from "./kinds/device-kind.ts";

/** What wants a slot, and the part of the specification that it comes from. */
export interface SlotRequest extends NewFunction {
  readonly part: string;
}

/** Slots of bus 0; the first is the host bridge's. PCI Local Bus 3.0 §3.2.2.3.2 */
const SLOT_COUNT = 32;

/**
 * Plugs everything into bus 0. What has a wish comes first, so that none of the others is in its way.
 *
 * @throws SpecError when all slots are taken.
 */
export function plugAll(requests: readonly SlotRequest[]): void {
  const taken = new Set([0]);
  for (const request of requests) {
    if (request.slot === undefined) continue;
    taken.add(request.slot);
    request.plug(request.slot);
  }
  for (const request of requests) {
    if (request.slot !== undefined) continue;
    const slot = Array.from({ length: SLOT_COUNT }, (_, index) => index).find((index) => !taken.has(index));
    if (slot === undefined)
      throw new SpecError("TSVMM_PCI_SLOTS_FULL", request.part, "bus 0 has 31 slots for devices, and all are taken");
    taken.add(slot);
    request.plug(slot);
  }
}

/** @throws HostError when a BAR finds no room, of another process's device or unlike what sysfs told of the host's. */
export function assignBars(root: PciRoot, windows: PciWindows): void {
  const owned = ({ function: { name }, request }: UnplacedBar): OwnedBar => ({ owner: name, request });
  const unplaced = root.assignBars().map(owned);
  const all = root.functions.flatMap(({ function: fn, bars }) =>
    bars.requests.map((request) => owned({ function: fn, request })),
  );
  const error = unplacedBarError(unplaced, all, windows);
  if (error !== undefined) throw error;
}
