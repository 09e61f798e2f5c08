import type { Report } from "../base/backends.ts";
import { codeAndAdvice, HostError } from "../base/errors.ts";
import type { DmaMapper, IovaRange, Mapping, VfioFiles } from "../base/mappings.ts";
import { allOrNothing } from "../base/undo-stack.ts";
import { type Fd, fd, type Hva, hex, type Iova } from "../base/units.ts";
import { FCNTL } from "../host/constants.ts";
import { type CausesByErrno, check, errnoName, SyscallError } from "../host/errors.ts";
import { attachCauses } from "../host-pci/attach-causes.ts";
import {
  DMA_MAP,
  DMA_UNMAP,
  GROUP_STATUS,
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from "./abi.ts";
import { setU64, type VfioLibc, vfioStruct } from "./calls.ts";
import { CAUSES, NO_IOMMU_DRIVER } from "./causes.ts";
import { type IommuInfo, queryIommu } from "./iommu-info.ts";

const CONTAINER_NODE = "/dev/vfio/vfio";

/** Advice that depends on what the host is like, for errnos that have several causes; tests have their own host. */
export type AttachCausesOf = (group: number, hasOthers: boolean) => Pick<CausesByErrno, "EPERM" | "EINVAL">;

/**
 * The DMA address space that all passed-through devices of a machine share, and the IOMMU groups in it.
 *
 * Lifecycle: open, attach every group, map guest RAM, open devices. At the end close the devices, then {@link close},
 * which undoes the rest in the order that the kernel wants. Every method but `close` throws a HostError with advice.
 * Device thread only.
 */
export class VfioContainer implements DmaMapper, Disposable {
  readonly #libc: VfioLibc;
  readonly #files: VfioFiles;
  readonly #report: Report;
  readonly #container: Fd;
  readonly #causesOf: AttachCausesOf;
  readonly #groups: Map<number, Fd> = new Map();
  readonly #mappings: Set<DmaMapping> = new Set();
  #info: IommuInfo | undefined;
  #isClosed = false;

  private constructor(libc: VfioLibc, files: VfioFiles, report: Report, container: Fd, causesOf: AttachCausesOf) {
    this.#causesOf = causesOf;
    this.#libc = libc;
    this.#files = files;
    this.#report = report;
    this.#container = container;
  }

  /** @param files KVM's VFIO device: each group is put there before its first device is opened. */
  static open(
    libc: VfioLibc,
    files: VfioFiles,
    report: Report,
    causesOf: AttachCausesOf = attachCauses,
  ): VfioContainer {
    const action = "open the VFIO container";
    return allOrNothing((undo) => {
      const opened = libc.open(CONTAINER_NODE, FCNTL.O_RDWR | FCNTL.O_CLOEXEC, 0);
      const container = fd(check(opened, action, `open ${CONTAINER_NODE}`, CAUSES.openNode, libc));
      undo.add(() => libc.close(container));
      const version = check(
        libc.ioctl(container, VFIO_GET_API_VERSION, 0),
        action,
        "VFIO_GET_API_VERSION",
        "TSVMM_VFIO_REFUSED",
        libc,
      );
      if (version !== VFIO_API_VERSION)
        throw new HostError("TSVMM_VFIO_REFUSED", `Cannot use VFIO: its API version is ${version}, not 0`);
      if (libc.ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) !== 1) {
        const [code, advice] = codeAndAdvice(NO_IOMMU_DRIVER);
        throw new HostError(code, "Cannot use VFIO: it offers no type 1 v2 IOMMU", advice);
      }
      return new VfioContainer(libc, files, report, container, causesOf);
    });
  }

  /**
   * IOVA ranges that devices can be given, in order; all of them when the kernel does not tell. Known from the first
   * group on, with iommufd from the first device on.
   */
  get iovaRanges(): readonly IovaRange[] {
    return this.#info?.iovaRanges ?? [{ start: 0, end: Number.MAX_SAFE_INTEGER }];
  }

  /**
   * False while the kernel answers that all of 2^64 addresses are usable, which no IOMMU translates. iommufd asks the
   * IOMMU when a device is opened. Linux drivers/iommu/iommufd/vfio_compat.c, iommufd_fill_cap_iova()
   */
  get knowsAddresses(): boolean {
    const ranges = this.#info?.iovaRanges;
    return !(ranges?.length === 1 && ranges[0]?.start === 0 && ranges[0].end === Number.MAX_SAFE_INTEGER);
  }

  /** The smallest page the IOMMU maps, in bytes. */
  get pageSizeBytes(): number {
    return this.#info?.pageSizeBytes ?? 4096;
  }

  /** How many more mappings the kernel allows; `undefined` when it does not tell. */
  get dmaAvailable(): number | undefined {
    return this.#info?.dmaAvailable;
  }

  /** Bytes of DMA mappings that are in place. */
  get mappedBytes(): number {
    let total = 0;
    for (const mapping of this.#mappings) total += mapping.sizeBytes;
    return total;
  }

  /** True when the range lies in one of the {@link iovaRanges}. */
  canMap(address: Iova, sizeBytes: number): boolean {
    return this.iovaRanges.some((range) => address >= range.start && address + sizeBytes - 1 <= range.end);
  }

  /** Opens an IOMMU group and puts it into the container; one that is there already is left as it is. */
  attachGroup(number: number): void {
    if (this.#groups.has(number)) return;
    const libc = this.#libc;
    const node = `/dev/vfio/${number}`;
    const action = `take IOMMU group ${number}`;
    allOrNothing((undo) => {
      const opened = libc.open(node, FCNTL.O_RDWR | FCNTL.O_CLOEXEC, 0);
      const group = fd(check(opened, action, `open ${node}`, CAUSES.openNode, libc));
      undo.add(() => libc.close(group));
      this.#mustBeFree(number, group);
      const container = new Uint8Array(4);
      new DataView(container.buffer).setInt32(0, this.#container, true);
      const attached = libc.ioctlStruct(group, VFIO_GROUP_SET_CONTAINER, container);
      if (attached < 0) check(attached, action, "VFIO_GROUP_SET_CONTAINER", this.#attachCauses(number), libc);
      undo.add(() => libc.ioctl(group, VFIO_GROUP_UNSET_CONTAINER, 0));
      if (this.#groups.size === 0) {
        // Only a container with a group in it knows what IOMMU there is, and only once may it be told.
        const chosen = libc.ioctl(this.#container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
        if (chosen < 0) check(chosen, action, "VFIO_SET_IOMMU", this.#attachCauses(number), libc);
      }
      this.#info = queryIommu(libc, this.#container); // each group may narrow the ranges
      this.#files.addFile(group);
      this.#groups.set(number, group);
    });
  }

  /**
   * Opens a device of an attached group. The kernel resets it if it can, and allows no other process to open it.
   *
   * @param bdf `0000:01:00.0`.
   * @param vfToken UUID that opens a virtual function of a physical one with a VFIO driver. Such a physical function
   *   sets it for its virtual ones. Linux drivers/vfio/pci/vfio_pci_core.c, vfio_pci_validate_vf_token()
   * @returns The device's descriptor, the caller's to close.
   */
  openDevice(group: number, bdf: string, vfToken?: string): Fd {
    const groupFd = this.#groups.get(group);
    if (groupFd === undefined) throw new RangeError(`Cannot open ${bdf}: group ${group} is not in the container`);
    const name = vfToken === undefined ? bdf : `${bdf} vf_token=${vfToken}`;
    const device = this.#libc.ioctlStruct(groupFd, VFIO_GROUP_GET_DEVICE_FD, new TextEncoder().encode(`${name}\0`));
    if (device < 0)
      check(device, `open ${bdf}`, "VFIO_GROUP_GET_DEVICE_FD", this.#openCauses(group, vfToken), this.#libc);
    if (!this.knowsAddresses) this.#info = queryIommu(this.#libc, this.#container);
    return fd(device);
  }

  /** The file of a group that was attached; the container's to close. */
  groupFile(number: number): Fd | undefined {
    return this.#groups.get(number);
  }

  /**
   * Gives a group back before the end, when none of its devices is open. The host waits for that while a driver is
   * unbound. With the last group the DMA mappings go too. Never throws; calling it twice is harmless.
   */
  releaseGroup(number: number): void {
    const group = this.#groups.get(number);
    if (group === undefined) return;
    this.#forget(number, group);
    if (this.#groups.size === 1) this.#unmapAll();
    this.#detach(number, group);
  }

  mapDma(name: string, address: Iova, host: Hva, sizeBytes: number): Mapping {
    const action = `map ${name} for DMA at ${hex(address)}`;
    if (!this.canMap(address, sizeBytes)) {
      const ranges = this.iovaRanges.map((range) => `${hex(range.start)}-${hex(range.end)}`).join(", ");
      throw new HostError("TSVMM_IOMMU_RANGE", `Cannot ${action}: the IOMMU takes ${ranges} only`);
    }
    const { bytes, view } = vfioStruct(DMA_MAP.size);
    view.setUint32(DMA_MAP.flags, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE, true);
    setU64(view, DMA_MAP.vaddr, host);
    setU64(view, DMA_MAP.iova, address);
    setU64(view, DMA_MAP.map_size, sizeBytes);
    const result = this.#libc.ioctlStruct(this.#container, VFIO_IOMMU_MAP_DMA, bytes);
    check(result, action, "VFIO_IOMMU_MAP_DMA", CAUSES.mapDma, this.#libc);
    const mapping = new DmaMapping(address, sizeBytes, () => {
      if (this.#mappings.delete(mapping)) this.#unmapDma(name, address, sizeBytes);
    });
    this.#mappings.add(mapping);
    return mapping;
  }

  /**
   * Gives everything back: KVM's references, DMA mappings, groups, container. Devices must have been closed before: the
   * kernel keeps a group in its container while one is open. Never throws; what fails is reported. Calling it twice is
   * harmless.
   */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const [number, group] of this.#groups) this.#forget(number, group);
    this.#unmapAll();
    for (const [number, group] of this.#groups) this.#detach(number, group);
    this.#libc.close(this.#container);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #attachCauses(number: number): CausesByErrno {
    return { ...CAUSES.attach, ...this.#causesOf(number, this.#groups.size > 0) };
  }

  /** Of iommufd a device is asked only when it is opened what a group is asked of otherwise. */
  #openCauses(number: number, vfToken: string | undefined): CausesByErrno {
    const token = vfToken === undefined ? CAUSES.openDevice : { ...CAUSES.openDevice, ...CAUSES.openWithToken };
    return this.knowsAddresses ? token : { ...token, ...this.#causesOf(number, this.#groups.size > 1) };
  }

  #forget(number: number, group: Fd): void {
    try {
      this.#files.removeFile(group);
    } catch (error) {
      this.#report("warn", `Cannot take IOMMU group ${number} from KVM: ${String(error)}`);
    }
  }

  #unmapAll(): void {
    for (const mapping of [...this.#mappings]) {
      try {
        mapping.unmap();
      } catch (error) {
        this.#report("warn", String(error)); // closing the container ends the mapping all the same
      }
    }
  }

  #detach(number: number, group: Fd): void {
    const result = this.#libc.ioctl(group, VFIO_GROUP_UNSET_CONTAINER, 0);
    const errno = result < 0 ? errnoName(this.#libc.errno()) : "";
    // EINVAL: it is in none. The kernel (6.1 does) takes it out itself when its last device was unbound on the host
    // meanwhile.
    if (result < 0 && errno !== "EINVAL") {
      this.#report("warn", `Cannot take IOMMU group ${number} out of its container: ${errno}`);
    }
    this.#libc.close(group);
    this.#groups.delete(number);
  }

  #mustBeFree(number: number, group: Fd): void {
    const { bytes, view } = vfioStruct(GROUP_STATUS.size);
    const result = this.#libc.ioctlStruct(group, VFIO_GROUP_GET_STATUS, bytes);
    check(result, `examine IOMMU group ${number}`, "VFIO_GROUP_GET_STATUS", "TSVMM_VFIO_REFUSED", this.#libc);
    const flags = view.getUint32(GROUP_STATUS.flags, true);
    if ((flags & VFIO_GROUP_FLAGS_VIABLE) === 0) {
      const found = "a host driver still has a device in it";
      throw new HostError("TSVMM_GROUP_NOT_VIABLE", `Cannot take IOMMU group ${number}: ${found}`);
    }
    if ((flags & VFIO_GROUP_FLAGS_CONTAINER_SET) !== 0) {
      throw new HostError("TSVMM_GROUP_BUSY", `Cannot take IOMMU group ${number}: it is in another container`);
    }
  }

  #unmapDma(name: string, address: Iova, sizeBytes: number): void {
    const { bytes, view } = vfioStruct(DMA_UNMAP.size);
    setU64(view, DMA_UNMAP.iova, address);
    setU64(view, DMA_UNMAP.unmap_size, sizeBytes);
    if (this.#libc.ioctlStruct(this.#container, VFIO_IOMMU_UNMAP_DMA, bytes) >= 0) return;
    const error = new SyscallError(
      "TSVMM_DMA_REFUSED",
      `unmap ${name} for DMA`,
      "VFIO_IOMMU_UNMAP_DMA",
      errnoName(this.#libc.errno()),
    );
    // Going on would let the device write into memory that is about to be someone else's; the caller decides what to
    // stop.
    throw error;
  }
}

class DmaMapping implements Mapping {
  readonly address: Iova;
  readonly sizeBytes: number;
  readonly unmap: () => void;

  constructor(address: Iova, sizeBytes: number, unmap: () => void) {
    this.address = address;
    this.sizeBytes = sizeBytes;
    this.unmap = unmap;
  }
}
