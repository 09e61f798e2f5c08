import type { Report } from "../../base/backends.ts";
import { RESOURCE } from "../../host/constants.ts";
import { libc } from "../../host/libc.ts";
import { hasCapability, memoryLockLimit } from "../../host/limits.ts";
import type { HostCheck } from "../../host-pci/check.ts";
import type { MemoryLock } from "../../host-pci/platform-checks.ts";
import { passthroughChecks, preflight } from "../../host-pci/preflight.ts";
import type { IovaRange } from "../../vfio/iommu-info.ts";
import { probeIovaRanges } from "../../vfio/iova-probe.ts";
import type { MachineSpec } from "../spec/spec.ts";

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
  preflight({ paths, ramBytes: spec.memory.sizeBytes, memoryLock: memoryLock() });
  return probeIovaRanges(libc, paths, report);
}

/** The same checks with their states, for `tsvmm doctor`: a start ends at the first that failed. */
export function passthroughState(paths: readonly string[], ramBytes: number): readonly HostCheck[] {
  return passthroughChecks({ paths, ramBytes, memoryLock: memoryLock() });
}

function memoryLock(): MemoryLock {
  return { limitBytes: memoryLockLimit().current, isUnlimited: hasCapability(RESOURCE.CAP_IPC_LOCK) };
}
