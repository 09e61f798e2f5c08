import { HostError } from "../base/errors.ts";
import type { DmaMapper, IovaRange } from "../base/mappings.ts";
import type { Fd, Halves, Hva, Width } from "../base/units.ts";

/** Indices of regions that are no BAR, as <linux/vfio.h> has them; BARs 0 to 5 have their number. */
export const VFIO_PCI_ROM_REGION_INDEX = 6;
export const VFIO_PCI_CONFIG_REGION_INDEX = 7;

/**
 * Interrupt sources of a device, in the order of their VFIO indices; `error` and `request` come from the host kernel.
 */
export const INTERRUPT_KINDS = ["intx", "msi", "msix", "error", "request"] as const;
export type InterruptKind = (typeof INTERRUPT_KINDS)[number];

/** The host has fewer vectors than it was asked for, and has armed none. */
export class FewerVectors extends HostError {
  readonly granted: number;

  /** @param granted How many it would have given. */
  constructor(message: string, granted: number) {
    super("TSVMM_NO_VECTORS", message);
    this.granted = granted;
  }
}

/** What the host offers of one interrupt source. */
export interface InterruptInfo {
  /** Vectors; 0 when the device has none of this kind. */
  readonly count: number;
  /** A vector beyond the armed ones can be armed alone; otherwise all are disabled and armed anew. */
  readonly canGrow: boolean;
  /** The host masks the source at each interrupt until told otherwise (INTx). */
  readonly isAutomasked: boolean;
}

/** A stretch of a region, in bytes from its start. */
export interface RegionArea {
  readonly offset: number;
  readonly sizeBytes: number;
}

/** One region: BAR 0 to 5, the ROM (6), configuration space (7). */
export interface RegionInfo {
  readonly index: number;
  /** 0 when the device does not implement it. */
  readonly sizeBytes: number;
  readonly isReadable: boolean;
  readonly isWritable: boolean;
  /** What may be mapped: the sparse areas if the host lists any, else the whole region, else nothing. */
  readonly mappableAreas: readonly RegionArea[];
  /** The host lets the MSI-X table be mapped with the rest, because interrupt remapping makes that harmless. */
  readonly isMsixMappable: boolean;
}

/** Device memory in this process. It is for memory slots: this process never dereferences it, see README.md. */
export interface MappedRegion {
  readonly address: Hva;
  readonly sizeBytes: number;
  /** Calling it twice is harmless. */
  unmap(): void;
}

/** What resetting did it: a name of sysfs `reset_method`, or `unknown` when the kernel does not tell. */
export type ResetMethod = string;

/**
 * A PCI device owned by this process, whatever the transport: VFIO group or device file, a vfio-user socket, a recorded
 * one in tests.
 *
 * Every method but {@link close} throws a HostError when the host refuses. Device thread only.
 */
export interface DeviceBackend {
  /** As messages call it: `0000:01:00.0`. */
  readonly name: string;
  region(index: number): RegionInfo | undefined;
  interrupt(kind: InterruptKind): InterruptInfo;

  /** `undefined` when the device does not answer, for example while it sleeps or its decode is off. */
  readRegion(index: number, offset: number, width: Width): number | undefined;
  /** False when the device does not answer. */
  writeRegion(index: number, offset: number, width: Width, value: number): boolean;
  /** Eight bytes of a BAR as one access of the device, where the transport can. */
  readWide(index: number, offset: number): Halves | undefined;
  writeWide(index: number, offset: number, value: Halves): boolean;
  /**
   * Fills `target` from a region's start, in as few reads as the transport allows.
   *
   * @returns How many bytes the device gave.
   */
  readBytes(index: number, target: Uint8Array): number;
  /**
   * `area` is page-aligned and lies in one of the region's {@link RegionInfo.mappableAreas}, grown to a page if
   * shorter.
   */
  mapRegion(index: number, area: RegionArea): MappedRegion;

  /**
   * Connects vectors `start`, `start` + 1, … to eventfds, -1 for none. The first call for a kind switches the device to
   * it, with `start` + `triggers.length` vectors; kinds other than `error` and `request` exclude each other.
   *
   * @throws FewerVectors
   */
  setTrigger(kind: InterruptKind, start: number, triggers: readonly Fd[]): void;
  /** Disconnects all vectors and switches the kind off; harmless when it is off. */
  disableInterrupts(kind: InterruptKind): void;
  maskIntx(): void;
  unmaskIntx(): void;
  /** A write to this eventfd unmasks INTx, without a thread of ours. Only while INTx has a trigger. */
  setIntxResample(resample: Fd): void;
  /** Signalled at uncorrectable errors, which may leave the device unusable. */
  setErrorEvent(event: Fd): void;
  /** Signalled, again and again, while the host wants the device back. */
  setRequestEvent(event: Fd): void;

  /**
   * Resets the device; false when it has no way to be reset alone. Configuration space comes back as the host keeps it.
   */
  reset(): ResetMethod | false;
  close(): void;
}

/** What a {@link DeviceSource} has to know of a function of the host, as sysfs tells it. */
export interface SourceFunction {
  /** `0000:01:00.0` */
  readonly bdf: string;
  /** IOMMU group; `undefined` when no IOMMU translates for it. */
  readonly group: number | undefined;
  /** A group that exists without an IOMMU behind it. */
  readonly isNoIommuGroup: boolean;
  /** How the kernel can reset it, the preferred way first; empty when it cannot or does not tell. */
  readonly resetMethods: readonly string[];
  /** UUID that the owner of its physical function has set, for drivers that ask for it. */
  readonly vfToken?: string;
}

/**
 * Where passed-through devices come from, and the DMA address space that they share. IOMMU groups in a VFIO container
 * are one source.
 *
 * Order of life: guest RAM is mapped before a device does DMA; at the end devices are closed, then the source. Every
 * method but {@link release} and {@link close} throws a HostError with advice when the host refuses. Device thread
 * only; a source that is only asked for its addresses may be on any thread.
 */
export interface DeviceSource extends DmaMapper, Disposable {
  /**
   * DMA addresses that devices can use, in order. It is all of them if the host does not report them, or reports them
   * only for an open device.
   */
  readonly iovaRanges: readonly IovaRange[];
  /** Opens a function, which resets it where the kernel can. The backend is the caller's to close. */
  open(pciFunction: SourceFunction): DeviceBackend;
  /**
   * Resets the open devices that have no reset of their own, each bus once, where everything on it is this machine's.
   * None may be in use. What cannot be reset is reported.
   *
   * @param level Of those reports.
   */
  resetBuses(level: "warn" | "debug"): void;
  /**
   * Gives back what this device alone needed (its group), while the others go on: the host waits for that while a
   * driver is unbound. The device is closed. Never throws; calling it twice is harmless.
   */
  release(device: DeviceBackend): void;
  /**
   * Gives everything back, DMA mappings included. Devices must have been closed. Never throws; calling it twice is
   * harmless.
   */
  close(): void;
}
