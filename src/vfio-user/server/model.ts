import { allOnes, TWO_POW_32, type Width } from "../../base/units.ts";
import { VFIO_PCI_CONFIG_REGION_INDEX } from "../../passthrough/backend.ts";
import { ConfigSpace } from "../../pci/config-space.ts";
import {
  barOffset,
  PCI_BASE_ADDRESS_MEM_PREFETCH,
  PCI_BASE_ADDRESS_MEM_TYPE_64,
  PCI_BASE_ADDRESS_SPACE_IO,
  PCI_CAP_ID_MSI,
  PCI_CAP_ID_MSIX,
  PCI_CFG_SPACE_SIZE,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_MASTER,
  PCI_MSI_FLAGS_64BIT,
} from "../../pci/ids.ts";
import {
  INFO_CAP_HEADER,
  REGION_INFO,
  SPARSE_MMAP,
  SPARSE_MMAP_AREA,
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
} from "../../vfio/abi.ts";
import { setU64 } from "../../vfio/calls.ts";
import type { DeviceBar, UserPciDevice } from "./device.ts";
import type { MemoryBlock } from "./memory-block.ts";

/** What follows the command register. */
export interface CommandObserver {
  readonly onMaster: (isEnabled: boolean) => void;
  readonly onIntxDisable: (isDisabled: boolean) => void;
}

/** A region as DEVICE_GET_REGION_INFO tells of it. */
export interface RegionDescription {
  readonly bytes: Uint8Array;
  /** What can be mapped, where its file goes along. */
  readonly memory: MemoryBlock | undefined;
}

/**
 * A device as vfio-user sees it: regions to be read and written, configuration space among them. Nothing here throws
 * for a client's sake.
 */
export class DeviceModel {
  readonly config: ConfigSpace;
  readonly #device: UserPciDevice;
  readonly #observer: CommandObserver;

  /** @throws RangeError for a device that cannot be: memory outside its BAR, capabilities without room. */
  constructor(device: UserPciDevice, observer: CommandObserver) {
    this.#device = device;
    this.#observer = observer;
    this.config = new ConfigSpace(device.name, PCI_CFG_SPACE_SIZE);
    this.config.setIdentity(device.identity);
    for (const bar of device.bars) this.#addBar(bar);
    this.#addInterrupts();
    this.config.capture();
    this.config.onWrite(PCI_COMMAND, 2, () => this.#followCommand());
  }

  /** As after power-on, the device too. */
  reset(): void {
    this.config.restore();
    this.#followCommand();
    this.#device.reset();
  }

  /**
   * What a client that has gone keeps mapped is the device's no longer. To be followed by a reset. @throws SyscallError
   */
  renewMemory(): void {
    for (const { memory } of this.#device.bars) memory?.renew();
  }

  /** 0 for regions that the device does not have. */
  sizeBytes(index: number): number {
    if (index === VFIO_PCI_CONFIG_REGION_INDEX) return this.config.sizeBytes;
    return this.#bar(index)?.request.sizeBytes ?? 0;
  }

  /**
   * struct vfio_region_info with its capability chain, and the file to map. Where `room` is too small it is cut to its
   * fixed part, and neither a chain nor a file goes along: QEMU's client refuses FLAG_CAPS without a chain, and
   * libvfio-user does not set it then either.
   *
   * @param canMap False for a client that takes no descriptors.
   */
  describe(index: number, room: number, canMap: boolean): RegionDescription {
    const sizeBytes = this.sizeBytes(index);
    const memory = canMap ? this.#bar(index)?.memory : undefined;
    const chainBytes = memory === undefined ? 0 : SPARSE_MMAP.size + SPARSE_MMAP_AREA.size;
    const needed = REGION_INFO.size + chainBytes;
    const hasRoom = room >= needed;
    const bytes = new Uint8Array(hasRoom ? needed : REGION_INFO.size);
    const view = new DataView(bytes.buffer);
    const access = sizeBytes === 0 ? 0 : VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    const chain = hasRoom ? VFIO_REGION_INFO_FLAG_CAPS : 0;
    const mapping = memory === undefined ? 0 : VFIO_REGION_INFO_FLAG_MMAP | chain;
    view.setUint32(REGION_INFO.argsz, needed, true);
    view.setUint32(REGION_INFO.flags, access | mapping, true);
    view.setUint32(REGION_INFO.index, index, true);
    setU64(view, REGION_INFO.region_size, sizeBytes);
    if (memory === undefined || !hasRoom) return { bytes, memory: undefined };
    view.setUint32(REGION_INFO.cap_offset, REGION_INFO.size, true);
    const at = REGION_INFO.size;
    view.setUint16(at + INFO_CAP_HEADER.id, VFIO_REGION_INFO_CAP_SPARSE_MMAP, true);
    view.setUint16(at + INFO_CAP_HEADER.version, 1, true);
    view.setUint32(at + SPARSE_MMAP.nr_areas, 1, true);
    setU64(view, at + SPARSE_MMAP.areas + SPARSE_MMAP_AREA.offset, memory.offset);
    setU64(view, at + SPARSE_MMAP.areas + SPARSE_MMAP_AREA.area_size, memory.sizeBytes);
    return { bytes, memory };
  }

  /** The caller has checked the range against {@link sizeBytes}. */
  read(index: number, offset: number, count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    const view = new DataView(bytes.buffer);
    forEachAccess(offset, count, (at, width) => {
      const value = this.#read(index, at, width);
      if (width === 4) view.setUint32(at - offset, value, true);
      else if (width === 2) view.setUint16(at - offset, value, true);
      else view.setUint8(at - offset, value);
    });
    return bytes;
  }

  /** The caller has checked the range against {@link sizeBytes}. */
  write(index: number, offset: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    forEachAccess(offset, bytes.length, (at, width) => {
      const from = at - offset;
      const value =
        width === 4 ? view.getUint32(from, true) : width === 2 ? view.getUint16(from, true) : view.getUint8(from);
      this.#write(index, at, width, value);
    });
  }

  #read(index: number, offset: number, width: Width): number {
    if (index === VFIO_PCI_CONFIG_REGION_INDEX) return this.config.read(offset, width);
    const bar = this.#bar(index);
    const bytes = memoryAt(bar, offset, width);
    if (bytes === undefined) return ((bar?.registers?.read(offset, width) ?? 0) & allOnes(width)) >>> 0;
    if (width === 4) return bytes.getUint32(0, true);
    return width === 2 ? bytes.getUint16(0, true) : bytes.getUint8(0);
  }

  #write(index: number, offset: number, width: Width, value: number): void {
    if (index === VFIO_PCI_CONFIG_REGION_INDEX) return this.config.write(offset, width, value);
    const bar = this.#bar(index);
    const bytes = memoryAt(bar, offset, width);
    if (bytes === undefined) bar?.registers?.write(offset, width, value);
    else if (width === 4) bytes.setUint32(0, value, true);
    else if (width === 2) bytes.setUint16(0, value, true);
    else bytes.setUint8(0, value);
  }

  #followCommand(): void {
    const command = this.config.get16(PCI_COMMAND);
    this.#observer.onMaster((command & PCI_COMMAND_MASTER) !== 0);
    this.#observer.onIntxDisable((command & PCI_COMMAND_INTX_DISABLE) !== 0);
  }

  #bar(index: number): DeviceBar | undefined {
    return this.#device.bars.find(({ request }) => request.index === index);
  }

  /**
   * Kind in the low bits; above them the guest, or the client, writes an address and finds the size. PCI Local Bus 3.0
   * §6.2.5.1
   */
  #addBar({ request, memory }: DeviceBar): void {
    if (memory !== undefined) {
      if (memory.offset + memory.sizeBytes > request.sizeBytes) {
        throw new RangeError(`Cannot serve ${this.#device.name}: the memory of BAR ${request.index} is not inside it`);
      }
    }
    const at = barOffset(request.index);
    const prefetch = request.kind !== "io" && request.isPrefetchable ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0;
    const type = request.kind === "mem64" ? PCI_BASE_ADDRESS_MEM_TYPE_64 : 0;
    this.config.set32(at, request.kind === "io" ? PCI_BASE_ADDRESS_SPACE_IO : type | prefetch);
    const { sizeBytes } = request;
    this.config.allowWrites(at, 4, sizeBytes >= TWO_POW_32 ? 0 : -sizeBytes >>> 0);
    if (request.kind === "mem64") this.config.allowWrites(at + 4, 4, -Math.max(1, sizeBytes / TWO_POW_32) >>> 0);
  }

  /** The client gives the guest capabilities that work; these are what it makes them from. */
  #addInterrupts(): void {
    const { msi, msix } = this.#device.interrupts;
    if (msi !== undefined) {
      const log2 = [1, 2, 4, 8, 16, 32].indexOf(msi);
      if (log2 < 0) throw new RangeError(`Cannot serve ${this.#device.name}: it has ${msi} MSI vectors`);
      const flags = PCI_MSI_FLAGS_64BIT | (log2 << 1);
      this.config.addCapability(PCI_CAP_ID_MSI, Uint8Array.of(flags & 0xff, flags >> 8, ...new Array(10).fill(0)));
    }
    if (msix !== undefined) {
      const body = new DataView(new ArrayBuffer(10));
      body.setUint16(0, msix.vectors - 1, true);
      body.setUint32(2, msix.table.offset + msix.table.bar, true);
      body.setUint32(6, msix.pba.offset + msix.pba.bar, true);
      this.config.addCapability(PCI_CAP_ID_MSIX, new Uint8Array(body.buffer));
    }
  }
}

/** The bytes of a BAR's memory that an access meets. */
function memoryAt(bar: DeviceBar | undefined, offset: number, width: Width): DataView | undefined {
  const memory = bar?.memory;
  if (memory === undefined) return undefined;
  const within = offset - memory.offset;
  if (within < 0 || within + width > memory.sizeBytes) return undefined;
  const { buffer, byteOffset } = memory.bytes;
  return new DataView(buffer, byteOffset + within, width);
}

/** Splits a range into accesses that a device knows: 4, 2 or 1 bytes, aligned, in order of address. */
function forEachAccess(offset: number, count: number, access: (at: number, width: Width) => void): void {
  for (let at = offset; at < offset + count; ) {
    const left = offset + count - at;
    const width: Width = at % 4 === 0 && left >= 4 ? 4 : at % 2 === 0 && left >= 2 ? 2 : 1;
    access(at, width);
    at += width;
  }
}
