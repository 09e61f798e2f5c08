import type { VfioLibc } from "../../src/vfio/calls.ts";
import { VfioIrqs } from "./fake-vfio-irqs.ts";

/** A device of the pretended kernel. */
export interface KernelDevice {
  readonly bdf: string;
  readonly group: number;
  /** 1 reset, 2 PCI. */
  readonly flags: number;
  /** By index; a hole answers EINVAL. */
  readonly regions: readonly (KernelRegion | undefined)[];
  /** Vectors and flags by VFIO index; a hole answers EINVAL. */
  readonly irqs: readonly (readonly [count: number, flags: number] | undefined)[];
  /**
   * Functions that a reset of its bus hits, as "0000:01:00.1" and group; without it neither bus nor slot can be reset.
   */
  readonly resetSet?: readonly (readonly [bdf: string, group: number])[];
  /**
   * A virtual function whose physical one belongs to vfio-pci, or that physical one with virtual functions in use: both
   * are opened with this UUID only. Absent: a token is refused.
   */
  readonly vfToken?: string;
  /** A real descriptor to be given for the device, where its BARs are mapped; it is never closed here. */
  readonly file?: number;
}

export interface KernelRegion {
  readonly size: number;
  /** 1 read, 2 write, 4 mmap. */
  readonly flags: number;
  readonly sparse?: readonly (readonly [offset: number, size: number])[];
  readonly isMsixMappable?: boolean;
}

const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  EBADF: 9,
  EACCES: 13,
  EBUSY: 16,
  EINVAL: 22,
  ENOTTY: 25,
  EEXIST: 17,
  ENODEV: 19,
  ENOSPC: 28,
} as const;
const CONTAINER = 10;
const GROUP = 100;
const DEVICE = 1000;

/**
 * The kernel's side of VFIO, group interface, as tests need it. The order is the kernel's: no IOMMU without a group, no
 * device without an IOMMU. No group leaves its container while a device is open. Violations answer EINVAL or EBUSY.
 * Numbers are written out.
 *
 * With {@link isIommufd} the container is iommufd's: Linux drivers/iommu/iommufd/vfio_compat.c. Names of devices with
 * tokens are taken as vfio_pci_core_match() and vfio_pci_validate_vf_token() take them, in
 * drivers/vfio/pci/vfio_pci_core.c.
 */
export class FakeVfioKernel implements VfioLibc {
  readonly log: string[] = [];
  readonly irqs: VfioIrqs = new VfioIrqs();
  /** Errno that a request (by its number) or an open (by path) answers with. */
  readonly failures: Map<number | string, number> = new Map();
  readonly notViable: Set<number> = new Set();
  /** DMA mappings: iova to [vaddr, size]. */
  readonly mappings: Map<number, readonly [vaddr: number, size: number]> = new Map();
  iovaRanges: readonly (readonly [start: bigint, end: bigint])[] = [
    [0n, 0xfedf_ffffn],
    [0xfef0_0000n, 0x7f_ffff_ffffn],
  ];
  /** Reads and writes of the devices' files, as "pread 8 at 0x10". */
  readonly accesses: string[] = [];
  /** Bytes behind the devices' files, by file offset. */
  readonly bytes: Map<number, number> = new Map();
  /**
   * iommufd serves /dev/vfio/vfio. It knows the IOMMU only when a device is opened. Until then all of 2^64 addresses
   * are usable. Refusals of a group's attachment (EPERM, EINVAL) come then too.
   */
  isIommufd = false;
  /** Errno of the first open of a device, which iommufd puts into the address space. */
  bindFailure: number | undefined;
  /** False: reads and writes of the device files fail with EIO. */
  isAnswering = true;
  readonly #devices: readonly KernelDevice[];
  readonly #inContainer: Set<number> = new Set();
  readonly #open: Map<number, KernelDevice> = new Map();
  #hasIommu = false;
  #errno = 0;

  constructor(devices: readonly KernelDevice[]) {
    this.#devices = devices;
  }

  errno(): number {
    return this.#errno;
  }

  open(path: string): number {
    const failure = this.failures.get(path);
    if (failure !== undefined) return this.#fail(failure);
    this.log.push(`open ${path}`);
    if (path === "/dev/vfio/vfio") return CONTAINER;
    const group = Number(/^\/dev\/vfio\/(\d+)$/.exec(path)?.[1] ?? "-1");
    return this.#devices.some((device) => device.group === group) ? GROUP + group : this.#fail(ERRNO.ENOENT);
  }

  close(fd: number): number {
    const device = this.#open.get(fd);
    this.#open.delete(fd);
    this.log.push(`close ${device?.bdf ?? (fd === CONTAINER ? "container" : `group ${fd - GROUP}`)}`);
    return 0;
  }

  ioctl(fd: number, request: number, argument: number): number {
    return this.#failing(request) ?? (fd === CONTAINER ? this.#container(request, argument) : this.#plain(fd, request));
  }

  ioctlStruct(fd: number, request: number, argument: Uint8Array): number {
    const failure = this.#failing(request);
    if (failure !== undefined) return failure;
    const view = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
    if (fd === CONTAINER) return this.#containerStruct(request, view);
    const device = this.#open.get(fd);
    return device === undefined
      ? this.#group(fd - GROUP, request, argument, view)
      : this.#device(device, request, view);
  }

  pread(_fd: number, buffer: Uint8Array, sizeBytes: number, offset: number): number {
    this.accesses.push(`pread ${sizeBytes} at 0x${offset.toString(16)}`);
    if (!this.isAnswering) return this.#fail(ERRNO.EIO);
    for (let at = 0; at < sizeBytes; at++) buffer[at] = this.bytes.get(offset + at) ?? 0;
    return sizeBytes;
  }

  pwrite(_fd: number, buffer: Uint8Array, sizeBytes: number, offset: number): number {
    this.accesses.push(`pwrite ${sizeBytes} at 0x${offset.toString(16)}`);
    if (!this.isAnswering) return this.#fail(ERRNO.EIO);
    for (let at = 0; at < sizeBytes; at++) this.bytes.set(offset + at, buffer[at] ?? 0);
    return sizeBytes;
  }

  #container(request: number, argument: number): number {
    switch (request) {
      case 0x3b64:
        return 0; // VFIO_GET_API_VERSION
      case 0x3b65:
        return argument === 3 ? 1 : 0; // VFIO_CHECK_EXTENSION, type 1 v2
      case 0x3b66: // VFIO_SET_IOMMU
        if (this.isIommufd && this.#inContainer.size === 0) return this.#fail(ERRNO.ENODEV);
        if (this.#inContainer.size === 0 || argument !== 3) return this.#fail(ERRNO.EINVAL);
        if (this.#hasIommu && !this.isIommufd) return this.#fail(ERRNO.EINVAL);
        this.#hasIommu = true;
        this.log.push("set iommu 3");
        return 0;
      default:
        return this.#fail(ERRNO.ENOTTY);
    }
  }

  #plain(fd: number, request: number): number {
    const device = this.#open.get(fd);
    if (request === 0x3b6f && device !== undefined) {
      this.log.push(`reset ${device.bdf}`);
      return 0;
    }
    if (request !== 0x3b69) return this.#fail(ERRNO.ENOTTY);
    const group = fd - GROUP; // VFIO_GROUP_UNSET_CONTAINER
    if ([...this.#open.values()].some((opened) => opened.group === group)) return this.#fail(ERRNO.EBUSY);
    if (!this.#inContainer.delete(group)) return this.#fail(ERRNO.EINVAL);
    this.log.push(`unset container of group ${group}`);
    return 0;
  }

  #containerStruct(request: number, view: DataView): number {
    switch (request) {
      case 0x3b70:
        return this.#iommuInfo(view);
      case 0x3b71: {
        if (view.getUint32(0, true) !== 32 || view.getUint32(4, true) !== 3) return this.#fail(ERRNO.EINVAL);
        const [vaddr, iova, size] = [8, 16, 24].map((at) => Number(view.getBigUint64(at, true)));
        if (vaddr === undefined || iova === undefined || size === undefined) return this.#fail(ERRNO.EINVAL);
        if (this.mappings.has(iova)) return this.#fail(ERRNO.EEXIST);
        this.mappings.set(iova, [vaddr, size]);
        this.log.push(`map 0x${iova.toString(16)}`);
        return 0;
      }
      case 0x3b72: {
        if (view.getUint32(0, true) !== 24) return this.#fail(ERRNO.EINVAL);
        const iova = Number(view.getBigUint64(8, true));
        this.mappings.delete(iova);
        this.log.push(`unmap 0x${iova.toString(16)}`);
        return 0;
      }
      default:
        return this.#fail(ERRNO.ENOTTY);
    }
  }

  #iommuInfo(view: DataView): number {
    if (this.isIommufd && this.#inContainer.size === 0) return this.#fail(ERRNO.ENODEV);
    const isUnknown = this.isIommufd && this.#open.size === 0;
    const ranges = isUnknown ? [[0n, 0xffff_ffff_ffff_ffffn] as const] : this.iovaRanges;
    const rangeBytes = 16 + 16 * ranges.length;
    const needed = 24 + rangeBytes + 12;
    const argsz = view.getUint32(0, true);
    view.setUint32(4, 3, true); // page sizes and capabilities
    view.setBigUint64(8, isUnknown ? 0xffff_ffff_ffff_f000n : 0x4020_1000n, true);
    view.setUint32(0, needed, true);
    if (argsz < needed) {
      view.setUint32(16, 0, true);
      return 0;
    }
    view.setUint32(16, 24, true);
    // type1 tells the ranges first, iommufd what is left of the mappings.
    const [rangesAt, availableAt] = this.isIommufd ? [24 + 12, 24] : [24, 24 + rangeBytes];
    header(view, rangesAt, 1, this.isIommufd ? 0 : availableAt);
    view.setUint32(rangesAt + 8, ranges.length, true);
    for (const [index, [start, end]] of ranges.entries()) {
      view.setBigUint64(rangesAt + 16 + 16 * index, start, true);
      view.setBigUint64(rangesAt + 24 + 16 * index, end, true);
    }
    header(view, availableAt, 3, this.isIommufd ? rangesAt : 0);
    view.setUint32(availableAt + 8, this.isIommufd ? 0xffff_ffff : 65535, true);
    return 0;
  }

  #group(group: number, request: number, argument: Uint8Array, view: DataView): number {
    switch (request) {
      case 0x3b67:
        view.setUint32(4, (this.notViable.has(group) ? 0 : 1) | (this.#inContainer.has(group) ? 2 : 0), true);
        return 0;
      case 0x3b68:
        if (view.getInt32(0, true) !== CONTAINER) return this.#fail(ERRNO.EBADF);
        this.#inContainer.add(group);
        this.log.push(`set container of group ${group}`);
        return 0;
      case 0x3b6a: {
        const [bdf, option, ...rest] = new TextDecoder().decode(argument).replace(/\0$/, "").split(" ");
        const device = this.#devices.find((candidate) => candidate.bdf === bdf && candidate.group === group);
        if (device === undefined || !this.#hasIommu) return this.#fail(ERRNO.ENODEV);
        const token = /^vf_token=([\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})$/i.exec(option ?? "")?.[1];
        if ((option !== undefined && token === undefined) || rest.length > 0) return this.#fail(ERRNO.EINVAL);
        if (device.vfToken === undefined && token !== undefined) return this.#fail(ERRNO.EINVAL);
        if (device.vfToken?.toLowerCase() !== token?.toLowerCase()) return this.#fail(ERRNO.EACCES);
        if (this.isIommufd && this.bindFailure !== undefined) return this.#fail(this.bindFailure);
        const fd = device.file ?? DEVICE + this.#open.size;
        this.#open.set(fd, device);
        this.log.push(`open ${device.bdf}`);
        return fd;
      }
      default:
        return this.#fail(ERRNO.ENOTTY);
    }
  }

  #device(device: KernelDevice, request: number, view: DataView): number {
    switch (request) {
      case 0x3b6b:
        view.setUint32(4, device.flags, true);
        view.setUint32(8, device.regions.length, true);
        view.setUint32(12, device.irqs.length, true);
        return 0;
      case 0x3b6c:
        return this.#regionInfo(device.regions[view.getUint32(8, true)], view);
      case 0x3b6d: {
        const irq = device.irqs[view.getUint32(8, true)];
        if (irq === undefined) return this.#fail(ERRNO.EINVAL);
        view.setUint32(4, irq[1], true);
        view.setUint32(12, irq[0], true);
        return 0;
      }
      case 0x3b6e: {
        const answer = this.irqs.set(view);
        return answer < 0 ? this.#fail(-answer) : answer;
      }
      case 0x3b70:
        return this.#hotResetInfo(device, view);
      case 0x3b71: {
        const count = view.getUint32(8, true);
        if (view.getUint32(0, true) !== 12 + 4 * count) return this.#fail(ERRNO.EINVAL);
        const groups = Array.from({ length: count }, (_, index) => view.getInt32(12 + 4 * index, true) - GROUP);
        if (!(device.resetSet ?? []).every(([, group]) => groups.includes(group))) return this.#fail(ERRNO.EINVAL);
        this.log.push(`reset bus of ${device.bdf} with groups ${groups.join(" ")}`);
        return 0;
      }
      default:
        return this.#fail(ERRNO.ENOTTY);
    }
  }

  #hotResetInfo({ resetSet }: KernelDevice, view: DataView): number {
    if (resetSet === undefined) return this.#fail(ERRNO.ENODEV);
    view.setUint32(8, resetSet.length, true);
    if (view.getUint32(0, true) < 12 + 8 * resetSet.length) return this.#fail(ERRNO.ENOSPC);
    for (const [index, [bdf, group]] of resetSet.entries()) {
      const [segment, bus, device, fn] = bdf.split(/[:.]/).map((part) => Number.parseInt(part, 16));
      view.setUint32(12 + 8 * index, group, true);
      view.setUint16(16 + 8 * index, segment ?? 0, true);
      view.setUint8(18 + 8 * index, bus ?? 0);
      view.setUint8(19 + 8 * index, ((device ?? 0) << 3) | (fn ?? 0));
    }
    return 0;
  }

  #regionInfo(region: KernelRegion | undefined, view: DataView): number {
    if (region === undefined) return this.#fail(ERRNO.EINVAL);
    const sparseBytes = region.sparse === undefined ? 0 : 16 + 16 * region.sparse.length;
    const needed = 32 + sparseBytes + (region.isMsixMappable === true ? 8 : 0);
    const argsz = view.getUint32(0, true);
    view.setUint32(0, needed, true);
    view.setUint32(4, region.flags | (needed > 32 ? 8 : 0), true);
    view.setBigUint64(16, BigInt(region.size), true);
    view.setBigUint64(24, BigInt(view.getUint32(8, true)) << 40n, true);
    view.setUint32(12, 0, true);
    if (needed === 32 || argsz < needed) return 0;
    view.setUint32(12, 32, true);
    if (region.sparse !== undefined) {
      header(view, 32, 1, region.isMsixMappable === true ? 32 + sparseBytes : 0);
      view.setUint32(32 + 8, region.sparse.length, true);
      for (const [index, [offset, size]] of region.sparse.entries()) {
        view.setBigUint64(48 + 16 * index, BigInt(offset), true);
        view.setBigUint64(56 + 16 * index, BigInt(size), true);
      }
    }
    if (region.isMsixMappable === true) header(view, 32 + sparseBytes, 3, 0);
    return 0;
  }

  #failing(request: number): number | undefined {
    const failure = this.failures.get(request);
    return failure === undefined ? undefined : this.#fail(failure);
  }

  #fail(errno: number): -1 {
    this.#errno = errno;
    return -1;
  }
}

function header(view: DataView, at: number, id: number, next: number): void {
  view.setUint16(at, id, true);
  view.setUint16(at + 2, 1, true);
  view.setUint32(at + 4, next, true);
}
