import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import type { IovaRange } from "../../base/mappings.ts";
import { RESOURCE } from "../../host/constants.ts";
import { libc } from "../../host/libc.ts";
import { hasCapability, memoryLockLimit } from "../../host/limits.ts";
import type { HostCheck } from "../../host-pci/check.ts";
import type { FunctionFacts, HostFunction } from "../../host-pci/functions.ts";
import type { MemoryLock } from "../../host-pci/platform-checks.ts";
import { type PreflightOptions, passthroughChecks, preflight } from "../../host-pci/preflight.ts";
import type { VfioLibc } from "../../vfio/calls.ts";
import { GroupSource } from "../../vfio/group-source.ts";
import type { ResolvedDevice, ResolvedMachine } from "../shared/resolved-machine.ts";
import type { MachineSpec } from "../spec/spec.ts";

/** What of the host is looked at; tests have their own. */
export type HostView = Partial<Pick<PreflightOptions, "root" | "memoryLock">>;

/**
 * Looks whether the functions of a machine can be passed through, and what sysfs tells of each. The control thread does
 * so once a start, and the device thread works with the answer.
 *
 * @throws HostError with a remedy.
 */
export function resolveMachine(spec: MachineSpec, facts: FunctionFacts, view: HostView = {}): ResolvedMachine {
  if (spec.devices.length > 0) {
    const paths = spec.devices.map(({ path }) => path);
    const vfTokens = new Map(
      spec.devices.flatMap(({ path, vfToken }) => (vfToken === undefined ? [] : [[path, vfToken]])),
    );
    preflight({ paths, facts, vfTokens, ramBytes: spec.memory.sizeBytes, memoryLock: memoryLock(), ...view });
  }
  const devices = spec.devices.map((device): ResolvedDevice => {
    const host = facts.at(device.path);
    const p2p = device.p2p ?? (spec.platform.vfioP2pDma ? undefined : false);
    if (host !== undefined) return { ...device, host, ...(p2p === undefined ? {} : { p2p }) };
    throw new HostError(
      "TSVMM_NOT_PCI_FUNCTION",
      `Cannot pass ${device.path} through: it is not a PCI function's directory`,
    );
  });
  return { ...spec, devices };
}

/**
 * Asks the IOMMU which addresses it translates for these functions, all in one address space: its width, less what
 * firmware and platform reserved. The functions' groups are taken for the question and given back, so that RAM can be
 * laid out before anything is mapped.
 *
 * @returns In order; all addresses when the kernel does not tell (before 5.4). `undefined` without functions.
 * @throws HostError with advice, as opening the functions would.
 */
export function askIovaRanges(
  functions: readonly (HostFunction & { readonly vfToken?: string })[],
  report: Report,
  calls: VfioLibc = libc,
): readonly IovaRange[] | undefined {
  return functions.length === 0 ? undefined : GroupSource.askAddresses(calls, functions, report);
}

/**
 * The checks of {@link resolveMachine} with their states, for `tsvmm doctor`: a start ends at the first that failed.
 */
export function passthroughState(
  paths: readonly string[],
  facts: FunctionFacts,
  ramBytes: number,
): readonly HostCheck[] {
  return passthroughChecks({ paths, facts, ramBytes, memoryLock: memoryLock() });
}

function memoryLock(): MemoryLock {
  return { limitBytes: memoryLockLimit().current, isUnlimited: hasCapability(RESOURCE.CAP_IPC_LOCK) };
}
