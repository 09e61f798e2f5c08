import { PAGE_SIZE } from "../base/units.ts";
import { PCI_CAP_ID_MSI, PCI_CAP_ID_MSIX, PCI_CAPABILITY_LIST, PCI_INTERRUPT_PIN } from "../pci/ids.ts";
import {
  type DeviceBackend,
  INTERRUPT_KINDS,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_ROM_REGION_INDEX,
} from "./backend.ts";
import {
  type DeviceRecording,
  hexLines,
  RECORDING_VERSION,
  type RecordedInterrupt,
  type RecordedRegion,
} from "./recording.ts";

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

/** What is known of a function that was not opened. */
export interface UnopenedFunction {
  /** `0000:01:00.0` */
  readonly bdf: string;
  readonly resetMethods: readonly string[];
  /** BARs (0 to 5) and ROM (6) that it has. */
  readonly resources: readonly {
    readonly index: number;
    readonly sizeBytes: number;
    readonly kind: "memory" | "io";
  }[];
}

/**
 * Records a function that was not opened. Configuration space and sizes are the device's own. Mappable areas and
 * interrupts are what vfio-pci would most likely tell.
 *
 * @param config 256 or 4096 bytes.
 */
export function recordUnopened(
  { bdf, resetMethods, resources }: UnopenedFunction,
  config: Uint8Array,
): DeviceRecording {
  const view = new DataView(config.buffer, config.byteOffset, config.byteLength);
  return {
    version: RECORDING_VERSION,
    name: bdf,
    source: "sysfs",
    resetMethods,
    configSpaceBytes: config.length,
    configSpace: hexLines(config),
    regions: likelyRegions(resources, view),
    interrupts: likelyInterrupts(view),
  };
}

function likelyRegions(resources: UnopenedFunction["resources"], config: DataView): readonly RecordedRegion[] {
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

/**
 * Offset of a capability; `undefined` for none. A list that runs in circles ends after as many links as there is room
 * for.
 */
function findCapability(config: DataView, id: number): number | undefined {
  let offset = config.getUint8(PCI_CAPABILITY_LIST) & 0xfc;
  for (let links = 0; links < 48 && offset >= 0x40; links++) {
    if (config.getUint8(offset) === id) return offset;
    offset = config.getUint8(offset + 1) & 0xfc;
  }
  return undefined;
}
