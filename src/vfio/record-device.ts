import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Report } from "../base/backends.ts";
import { errnoOf, HostError } from "../base/errors.ts";
import type { VfioFiles } from "../base/mappings.ts";
import { PAGE_SIZE } from "../base/units.ts";
import type { HostFunction } from "../host-pci/functions.ts";
import {
  type DeviceBackend,
  INTERRUPT_KINDS,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_ROM_REGION_INDEX,
} from "../passthrough/backend.ts";
import {
  type DeviceRecording,
  hexLines,
  RECORDING_VERSION,
  type RecordedInterrupt,
  type RecordedRegion,
} from "../passthrough/recording.ts";
import { PCI_CAP_ID_MSI, PCI_CAP_ID_MSIX, PCI_CAPABILITY_LIST, PCI_INTERRUPT_PIN } from "../pci/ids.ts";
import type { VfioLibc } from "./calls.ts";
import { VfioContainer } from "./container.ts";
import { VfioDevice } from "./device.ts";

/** Nobody does DMA by a container that only answers questions. */
const NO_FILES: VfioFiles = { addFile: () => undefined, removeFile: () => undefined };

/**
 * Records a function that is bound to vfio-pci, by opening it, which resets it.
 *
 * @throws HostError with advice, as a start would.
 */
export function recordThroughVfio(libc: VfioLibc, pciFunction: HostFunction, report: Report): DeviceRecording {
  const { bdf, group, resetMethods } = pciFunction;
  if (group === undefined) throw new HostError(`Cannot record ${bdf}: no IOMMU translates for it`);
  const container = VfioContainer.open(libc, NO_FILES, report);
  try {
    container.attachGroup(group);
    const device = new VfioDevice(libc, container.openDevice(group, bdf), bdf, resetMethods);
    try {
      return recordBackend(device, resetMethods);
    } finally {
      device.close();
    }
  } finally {
    container.close();
  }
}

/** Records what a device shows of itself. */
export function recordBackend(device: DeviceBackend, resetMethods: readonly string[]): DeviceRecording {
  const configSpaceBytes = device.region(VFIO_PCI_CONFIG_REGION_INDEX)?.sizeBytes ?? 0;
  const config = new DataView(new ArrayBuffer(configSpaceBytes));
  for (let offset = 0; offset < configSpaceBytes; offset += 4) {
    // What does not answer reads as all ones on a bus.
    const value = device.readRegion(VFIO_PCI_CONFIG_REGION_INDEX, offset, 4) ?? 0xffff_ffff;
    config.setUint32(offset, value, true);
  }
  const regions = Array.from({ length: VFIO_PCI_CONFIG_REGION_INDEX + 1 }, (_, index) => device.region(index));
  const interrupts = INTERRUPT_KINDS.map((kind) => ({ kind, ...device.interrupt(kind) }));
  return {
    version: RECORDING_VERSION,
    name: device.name,
    source: "vfio",
    resetMethods,
    configSpaceBytes,
    configSpace: hexLines(new Uint8Array(config.buffer)),
    regions: regions.flatMap((region) => {
      if (region === undefined || region.sizeBytes === 0) return [];
      const { index, sizeBytes, isReadable, isWritable, mappableAreas, isMsixMappable } = region;
      const flags = [
        ...(isReadable ? (["read"] as const) : []),
        ...(isWritable ? (["write"] as const) : []),
        ...(mappableAreas.length > 0 ? (["mmap"] as const) : []),
      ];
      const mmapAreas = mappableAreas.map((area) => ({ offset: area.offset, size: area.sizeBytes }));
      return [{ index, size: sizeBytes, flags, mmapAreas, msixMappable: isMsixMappable }];
    }),
    interrupts: interrupts.flatMap(({ kind, count, canGrow, isAutomasked }) => {
      if (count === 0) return [];
      const flags = [...(isAutomasked ? (["automasked"] as const) : []), ...(canGrow ? [] : (["noresize"] as const))];
      return [{ kind, count, flags }];
    }),
  };
}

/**
 * Records a function from sysfs, without taking it from its driver: configuration space and sizes are the device's own; what may be
 * mapped and which interrupts there are is what vfio-pci would most likely tell.
 *
 * @throws HostError when configuration space cannot be read whole, which takes root.
 */
export function recordFromSysfs(pciFunction: HostFunction): DeviceRecording {
  const { bdf, path, resetMethods } = pciFunction;
  let config: Uint8Array;
  try {
    config = readFileSync(join(path, "config"));
  } catch (error) {
    throw new HostError(`Cannot record ${bdf}: reading its configuration space failed with ${errnoOf(error)}`);
  }
  if (config.length !== 256 && config.length !== 4096) {
    const found = `only ${config.length} bytes of its configuration space can be read`;
    throw new HostError(`Cannot record ${bdf}: ${found}`, "run as root");
  }
  const view = new DataView(config.buffer, config.byteOffset, config.byteLength);
  return {
    version: RECORDING_VERSION,
    name: bdf,
    source: "sysfs",
    resetMethods,
    configSpaceBytes: config.length,
    configSpace: hexLines(config),
    regions: likelyRegions(pciFunction, view),
    interrupts: likelyInterrupts(view),
  };
}

function likelyRegions({ resources }: HostFunction, config: DataView): readonly RecordedRegion[] {
  const msix = findCapability(config, PCI_CAP_ID_MSIX);
  const tableBar = msix === undefined ? undefined : config.getUint32(msix + 4, true) & 7;
  const regions = resources.map(({ index, sizeBytes, kind }): RecordedRegion => {
    if (index === VFIO_PCI_ROM_REGION_INDEX) {
      return { index, size: sizeBytes, flags: ["read"], mmapAreas: [], msixMappable: false };
    }
    const isMappable = kind === "memory" && sizeBytes >= PAGE_SIZE;
    return {
      index,
      size: sizeBytes,
      flags: isMappable ? ["read", "write", "mmap"] : ["read", "write"],
      mmapAreas: isMappable ? [{ offset: 0, size: sizeBytes }] : [],
      msixMappable: isMappable && index === tableBar,
    };
  });
  const size = config.byteLength;
  const space: RecordedRegion = {
    index: VFIO_PCI_CONFIG_REGION_INDEX,
    size,
    flags: ["read", "write"],
    mmapAreas: [],
    msixMappable: false,
  };
  return [...regions, space];
}

function likelyInterrupts(config: DataView): readonly RecordedInterrupt[] {
  const found: RecordedInterrupt[] = [];
  if (config.getUint8(PCI_INTERRUPT_PIN) !== 0) found.push({ kind: "intx", count: 1, flags: ["automasked"] });
  const msi = findCapability(config, PCI_CAP_ID_MSI);
  // Multiple Message Capable, bits 3:1 of Message Control, is a power of two. PCI Local Bus 3.0 §6.8.1.3
  if (msi !== undefined) {
    const count = 1 << ((config.getUint16(msi + 2, true) >>> 1) & 7);
    found.push({ kind: "msi", count, flags: ["noresize"] });
  }
  const msix = findCapability(config, PCI_CAP_ID_MSIX);
  if (msix !== undefined) {
    const count = (config.getUint16(msix + 2, true) & 0x7ff) + 1;
    found.push({ kind: "msix", count, flags: ["noresize"] });
  }
  return [
    ...found,
    { kind: "error", count: 1, flags: ["noresize"] },
    { kind: "request", count: 1, flags: ["noresize"] },
  ];
}

/** Offset of a capability; `undefined` for none. A list that runs in circles ends after as many links as there is room for. */
function findCapability(config: DataView, id: number): number | undefined {
  let offset = config.getUint8(PCI_CAPABILITY_LIST) & 0xfc;
  for (let links = 0; links < 48 && offset >= 0x40; links++) {
    if (config.getUint8(offset) === id) return offset;
    offset = config.getUint8(offset + 1) & 0xfc;
  }
  return undefined;
}
