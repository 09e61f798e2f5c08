import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Report } from "../base/backends.ts";
import { errnoOf, HostError } from "../base/errors.ts";
import type { HostFunction } from "../host-pci/functions.ts";
import { recordBackend, recordUnopened } from "../passthrough/record.ts";
import type { DeviceRecording } from "../passthrough/recording.ts";
import type { VfioLibc } from "../vfio/calls.ts";
import { GroupSource } from "../vfio/group-source.ts";

/**
 * Records a function that is bound to vfio-pci, by opening it, which resets it.
 *
 * @throws HostError with advice, as a start would.
 */
export function recordThroughVfio(libc: VfioLibc, pciFunction: HostFunction, report: Report): DeviceRecording {
  const { bdf, group, resetMethods } = pciFunction;
  if (group === undefined) throw new HostError("TSVMM_NO_IOMMU", `Cannot record ${bdf}: no IOMMU translates for it`);
  const source = GroupSource.open(libc, [pciFunction], report);
  try {
    const device = source.open(pciFunction);
    try {
      return recordBackend(device, resetMethods);
    } finally {
      device.close();
    }
  } finally {
    source.close();
  }
}

/**
 * Records a function from sysfs, without taking it from its driver. Configuration space and sizes are the device's own.
 * Mappable areas and interrupts are those that vfio-pci would most likely report.
 *
 * @throws HostError when configuration space cannot be read whole, which takes root.
 */
export function recordFromSysfs(pciFunction: HostFunction): DeviceRecording {
  const { bdf, path } = pciFunction;
  let config: Uint8Array;
  try {
    config = readFileSync(join(path, "config"));
  } catch (error) {
    throw new HostError(
      "TSVMM_DEVICE_UNREADABLE",
      `Cannot record ${bdf}: reading its configuration space failed with ${errnoOf(error)}`,
    );
  }
  if (config.length !== 256 && config.length !== 4096) {
    const found = `only ${config.length} bytes of its configuration space can be read`;
    throw new HostError("TSVMM_DEVICE_UNREADABLE", `Cannot record ${bdf}: ${found}`, "run as root");
  }
  return recordUnopened(pciFunction, config);
}
