import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import type { IovaRange, Mapping, VfioFiles } from "../base/mappings.ts";
import { allOrNothing } from "../base/undo-stack.ts";
import type { Fd, Hva, Iova } from "../base/units.ts";
import type { DeviceBackend, DeviceSource, SourceFunction } from "../passthrough/backend.ts";
import type { VfioLibc } from "./calls.ts";
import { VfioContainer } from "./container.ts";
import { VfioDevice } from "./device.ts";
import { resetBuses } from "./hot-reset.ts";

/** For a source by which no device does DMA: it only answers a question. */
const NO_FILES: VfioFiles = { addFile: () => undefined, removeFile: () => undefined };

/** Devices of IOMMU groups (`/dev/vfio/N`), all in one container. */
export class GroupSource implements DeviceSource, Disposable {
  readonly #libc: VfioLibc;
  readonly #container: VfioContainer;
  readonly #report: Report;
  /** Open devices with their groups, in the order of opening. */
  readonly #devices: Map<DeviceBackend, { readonly device: VfioDevice; readonly group: number }> = new Map();

  private constructor(libc: VfioLibc, container: VfioContainer, report: Report) {
    this.#libc = libc;
    this.#container = container;
    this.#report = report;
  }

  /**
   * Takes the groups of functions, before the first device is opened: the addresses are those that all of the groups
   * have.
   *
   * @param files KVM's VFIO device; absent for a source that no machine uses.
   * @throws HostError with advice; nothing is held then.
   */
  static open(
    libc: VfioLibc,
    functions: readonly SourceFunction[],
    report: Report,
    files: VfioFiles = NO_FILES,
  ): GroupSource {
    const groups = functions.map(groupOf);
    return allOrNothing((undo) => {
      const container = undo.own(VfioContainer.open(libc, files, report));
      for (const group of groups) container.attachGroup(group);
      return new GroupSource(libc, container, report);
    });
  }

  get iovaRanges(): readonly IovaRange[] {
    return this.#container.iovaRanges;
  }

  /**
   * Asks which addresses the functions can be given, and gives them back. They are opened, which resets them, only
   * where the kernel does not tell before.
   *
   * @throws HostError with advice, as opening them would.
   */
  static askAddresses(libc: VfioLibc, functions: readonly SourceFunction[], report: Report): readonly IovaRange[] {
    const source = GroupSource.open(libc, functions, report);
    const devices: DeviceBackend[] = [];
    try {
      if (!source.#container.knowsAddresses) for (const one of functions) devices.push(source.open(one));
      return source.iovaRanges;
    } finally {
      for (const device of devices) device.close();
      source.close();
    }
  }

  open(pciFunction: SourceFunction): DeviceBackend {
    const { bdf, resetMethods, vfToken } = pciFunction;
    const group = groupOf(pciFunction);
    return allOrNothing((undo) => {
      if (this.#container.groupFile(group) === undefined) undo.add(() => this.#container.releaseGroup(group));
      this.#container.attachGroup(group);
      const device = new VfioDevice(this.#libc, this.#container.openDevice(group, bdf, vfToken), bdf, resetMethods);
      this.#devices.set(device, { device, group });
      return device;
    });
  }

  mapDma(name: string, address: Iova, host: Hva, sizeBytes: number): Mapping {
    return this.#container.mapDma(name, address, host, sizeBytes);
  }

  resetBuses(level: "warn" | "debug"): void {
    const devices = [...this.#devices.values()].map(({ device }) => device);
    resetBuses(devices, (group): Fd | undefined => this.#container.groupFile(group), this.#report, level);
  }

  release(device: DeviceBackend): void {
    const released = this.#devices.get(device);
    if (released === undefined) return;
    this.#devices.delete(device);
    released.device.close();
    const isLast = ![...this.#devices.values()].some(({ group }) => group === released.group);
    if (isLast) this.#container.releaseGroup(released.group);
  }

  close(): void {
    this.#devices.clear();
    this.#container.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** @throws HostError for a function without an IOMMU. */
function groupOf({ bdf, group, isNoIommuGroup }: SourceFunction): number {
  if (group !== undefined && !isNoIommuGroup) return group;
  throw new HostError("TSVMM_NO_IOMMU", `Cannot pass ${bdf} through: no IOMMU translates for it`);
}
