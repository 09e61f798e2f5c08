import type { Report } from "../base/backends.ts";
import { RESOURCE } from "../host/constants.ts";
import { libc } from "../host/libc.ts";
import { hasCapability, memoryLockLimit } from "../host/limits.ts";
import type { IovaRange } from "../vfio/iommu-info.ts";
import { probeIovaRanges } from "../vfio/iova-probe.ts";
import { preflight } from "../vfio/preflight.ts";
import type { MachineSpec } from "./spec.ts";

/**
 * Looks whether the functions of a machine can be passed through, and which addresses their DMA can have. To be asked before memory is
 * laid out, by the control thread; nothing is held afterwards.
 *
 * @returns `undefined` for a machine without such functions.
 * @throws HostError with a remedy.
 */
export function checkPassthrough(spec: MachineSpec, report: Report): readonly IovaRange[] | undefined {
  const paths = spec.devices.map(({ path }) => path);
  if (paths.length === 0) return undefined;
  const memoryLock = { limitBytes: memoryLockLimit().current, isUnlimited: hasCapability(RESOURCE.CAP_IPC_LOCK) };
  preflight({ paths, ramBytes: spec.memory.sizeBytes, memoryLock });
  return probeIovaRanges(libc, paths, report);
}
