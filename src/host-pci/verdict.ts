import { SILENT } from "../base/silent-device.ts";
import { describeGroup, type HostFunction, isBridge, isVfioFunction, vmdReason } from "./functions.ts";
import { isSilent, silenceRemedy } from "./silence.ts";
import type { DeviceUsage } from "./usage.ts";

/**
 * Whether a function can be passed through: now, after `tsvmm bind` of the functions in `bind`, or not until what is in
 * `reason` has changed.
 */
export type Verdict =
  | { readonly state: "ready" }
  | { readonly state: "needs bind"; readonly bind: readonly string[] }
  | { readonly state: "blocked"; readonly reason: string };

/** Judges one function. Reads only: whether the VFIO nodes may be opened is for the checks before a start. */
export function judge(pciFunction: HostFunction, usage: DeviceUsage): Verdict {
  if (isBridge(pciFunction)) return { state: "blocked", reason: "it is a bridge" };
  const behindVmd = vmdReason(pciFunction);
  if (behindVmd !== undefined) return { state: "blocked", reason: behindVmd };
  if (isSilent(pciFunction.path)) {
    return { state: "blocked", reason: `${SILENT} (${silenceRemedy(pciFunction.bdf)})` };
  }
  if (pciFunction.group === undefined) return { state: "blocked", reason: "no IOMMU translates for it" };
  if (pciFunction.isNoIommuGroup) return { state: "blocked", reason: "its group has no IOMMU behind it" };
  const [reason] = usage.reasons(pciFunction);
  if (reason !== undefined) return { state: "blocked", reason };
  const obstacles = (describeGroup(pciFunction)?.obstacles ?? []).filter(({ bdf }) => bdf !== pciFunction.bdf);
  for (const member of obstacles) {
    const [why] = usage.reasons(member);
    if (why !== undefined) return { state: "blocked", reason: `${member.bdf} of its group: ${why}` };
  }
  const others = obstacles.map(({ bdf }) => bdf);
  const bind = isVfioFunction(pciFunction) ? others : [pciFunction.bdf, ...others];
  return bind.length === 0 ? { state: "ready" } : { state: "needs bind", bind };
}
