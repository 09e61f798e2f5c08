import { HostError } from "../base/errors.ts";
import { UndoStack } from "../base/undo-stack.ts";
import { alignUp, type Fd, type Halves, MIB, PAGE_SIZE, type Width } from "../base/units.ts";
import { MMAN } from "../host/constants.ts";
import { check } from "../host/errors.ts";
import { HostMapping } from "../host/memory/mapping.ts";
import {
  type DeviceBackend,
  FewerVectors,
  INTERRUPT_KINDS,
  type InterruptInfo,
  type InterruptKind,
  type MappedRegion,
  type RegionArea,
  type RegionInfo,
  type ResetMethod,
  VFIO_PCI_CONFIG_REGION_INDEX,
} from "../passthrough/backend.ts";
import {
  DEVICE_INFO,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
} from "./abi.ts";
import { type VfioLibc, vfioStruct } from "./calls.ts";
import { CAUSES } from "./causes.ts";
import { type BusResettable, type OwnReset, queryResetSet, type ResetMember, resetBusOf } from "./hot-reset.ts";
import { encodeIrqSet, type IrqAction, queryInterrupt } from "./irqs.ts";
import { queryRegion, type VfioRegion } from "./region.ts";

/** The kernel maps device memory in pages of this size where addresses allow. */
const HUGE_PAGE: number = 2 * MIB;
const GIGANTIC_PAGE: number = 1024 * MIB;

/** A device behind a VFIO device descriptor, whether a group or a device file gave it. Owns the descriptor. */
export class VfioDevice implements DeviceBackend, BusResettable, Disposable {
  readonly name: string;
  readonly ownReset: OwnReset;
  readonly #libc: VfioLibc;
  readonly #device: Fd;
  readonly #canReset: boolean;
  readonly #resetMethod: ResetMethod;
  readonly #regions: readonly (VfioRegion | undefined)[];
  readonly #interrupts: ReadonlyMap<InterruptKind, InterruptInfo>;
  readonly #buffer: DataView = new DataView(new ArrayBuffer(8));
  readonly #bufferBytes: Uint8Array = new Uint8Array(this.#buffer.buffer);
  #isClosed = false;

  /**
   * Asks the kernel what the device has. On failure the descriptor is closed.
   *
   * @param device From VFIO_GROUP_GET_DEVICE_FD.
   * @param resetMethods sysfs `reset_method`, the preferred one first; empty when the kernel does not tell.
   * @throws SyscallError, or HostError when it is not a PCI device.
   */
  constructor(libc: VfioLibc, device: Fd, name: string, resetMethods: readonly string[]) {
    this.name = name;
    this.#libc = libc;
    this.#device = device;
    this.#resetMethod = resetMethods[0] ?? "unknown";
    const undo = new UndoStack();
    undo.add(() => libc.close(device));
    try {
      const { bytes, view } = vfioStruct(DEVICE_INFO.size);
      check(
        libc.ioctlStruct(device, VFIO_DEVICE_GET_INFO, bytes),
        `examine ${name}`,
        "VFIO_DEVICE_GET_INFO",
        "TSVMM_VFIO_REFUSED",
        libc,
      );
      const flags = view.getUint32(DEVICE_INFO.flags, true);
      if ((flags & VFIO_DEVICE_FLAGS_PCI) === 0)
        throw new HostError("TSVMM_DEVICE_UNUSABLE", `Cannot use ${name}: it is not a PCI device`);
      this.#canReset = (flags & VFIO_DEVICE_FLAGS_RESET) !== 0;
      // VFIO_DEVICE_RESET takes the first method that works, and a trip through D3 always does.
      this.ownReset = !this.#canReset ? "none" : resetMethods[0] === "pm" ? "power" : "full";
      const regionCount = Math.min(view.getUint32(DEVICE_INFO.num_regions, true), VFIO_PCI_CONFIG_REGION_INDEX + 1);
      // A region that the kernel does not know leaves a hole: the indices are the BARs' numbers.
      this.#regions = Array.from({ length: regionCount }, (_, index) => queryRegion(libc, device, name, index));
      this.#interrupts = new Map(INTERRUPT_KINDS.map((kind) => [kind, queryInterrupt(libc, device, name, kind)]));
    } catch (error) {
      throw undo.after(error);
    }
  }

  region(index: number): RegionInfo | undefined {
    return this.#regions[index]?.info;
  }

  interrupt(kind: InterruptKind): InterruptInfo {
    return this.#interrupts.get(kind) ?? { count: 0, canGrow: false, isAutomasked: false };
  }

  readRegion(index: number, offset: number, width: Width): number | undefined {
    const region = this.#inside(index, offset, width);
    if (region === undefined) return undefined;
    // pread of an aligned 1, 2 or 4 bytes is one access of that width on the device. A device that does not answer
    // gives EIO, not a signal.
    const count = this.#libc.pread(this.#device, this.#bufferBytes, width, region.fileOffset + offset);
    if (count !== width) return undefined;
    if (width === 4) return this.#buffer.getUint32(0, true);
    return width === 2 ? this.#buffer.getUint16(0, true) : this.#buffer.getUint8(0);
  }

  writeRegion(index: number, offset: number, width: Width, value: number): boolean {
    const region = this.#inside(index, offset, width);
    if (region === undefined) return false;
    if (width === 4) this.#buffer.setUint32(0, value, true);
    else if (width === 2) this.#buffer.setUint16(0, value, true);
    else this.#buffer.setUint8(0, value);
    return this.#libc.pwrite(this.#device, this.#bufferBytes, width, region.fileOffset + offset) === width;
  }

  readWide(index: number, offset: number): Halves | undefined {
    const region = this.#inside(index, offset, 8);
    // Linux 6.11 makes of eight aligned bytes one access of the device; before, it makes two of four.
    const count = region && this.#libc.pread(this.#device, this.#bufferBytes, 8, region.fileOffset + offset);
    return count === 8 ? { low: this.#buffer.getUint32(0, true), high: this.#buffer.getUint32(4, true) } : undefined;
  }

  writeWide(index: number, offset: number, value: Halves): boolean {
    const region = this.#inside(index, offset, 8);
    if (region === undefined) return false;
    this.#buffer.setUint32(0, value.low, true);
    this.#buffer.setUint32(4, value.high, true);
    return this.#libc.pwrite(this.#device, this.#bufferBytes, 8, region.fileOffset + offset) === 8;
  }

  readBytes(index: number, target: Uint8Array): number {
    const region = this.#regions[index];
    if (region === undefined) return 0;
    let done = 0;
    while (done < target.length) {
      const rest = target.subarray(done);
      const count = this.#libc.pread(this.#device, rest, rest.length, region.fileOffset + done);
      if (count <= 0) break;
      done += count;
    }
    return done;
  }

  mapRegion(index: number, area: RegionArea): MappedRegion {
    const region = this.#regions[index];
    if (region === undefined) throw new RangeError(`Cannot map region ${index} of ${this.name}: it has none`);
    const protection = (region.info.isReadable ? MMAN.PROT_READ : 0) | (region.info.isWritable ? MMAN.PROT_WRITE : 0);
    return HostMapping.ofFile(
      `BAR ${index} of ${this.name}`,
      this.#device,
      region.fileOffset + area.offset,
      alignUp(area.sizeBytes, PAGE_SIZE),
      { protection, ...mappingPlace(area) },
    );
  }

  setTrigger(kind: InterruptKind, start: number, triggers: readonly Fd[]): void {
    const end = start + triggers.length;
    const granted = this.#setIrqs(kind, { kind: "trigger", start, eventFds: triggers }, `arm ${end} ${kind} vectors`);
    // Not an error to the kernel, which has undone it all and says how many it could have given.
    if (granted > 0) {
      const action = `arm ${end} ${kind} vectors of ${this.name}`;
      throw new FewerVectors(`Cannot ${action}: the host has ${granted} left`, granted);
    }
  }

  disableInterrupts(kind: InterruptKind): void {
    if (this.interrupt(kind).count === 0) return;
    this.#setIrqs(kind, { kind: "disable" }, `disable the ${kind} interrupts`);
  }

  maskIntx(): void {
    this.#setIrqs("intx", { kind: "mask" }, "mask INTx");
  }

  unmaskIntx(): void {
    this.#setIrqs("intx", { kind: "unmask" }, "unmask INTx");
  }

  setIntxResample(resample: Fd): void {
    this.#setIrqs("intx", { kind: "unmaskOn", eventFd: resample }, "let KVM unmask INTx");
  }

  setErrorEvent(event: Fd): void {
    this.setTrigger("error", 0, [event]);
  }

  setRequestEvent(event: Fd): void {
    this.setTrigger("request", 0, [event]);
  }

  reset(): ResetMethod | false {
    if (!this.#canReset) return false;
    const result = this.#libc.ioctl(this.#device, VFIO_DEVICE_RESET, 0);
    check(result, `reset ${this.name}`, "VFIO_DEVICE_RESET", "TSVMM_RESET_FAILED", this.#libc);
    return this.#resetMethod;
  }

  resetSet(): readonly ResetMember[] | undefined {
    return queryResetSet(this.#libc, this.#device, this.name);
  }

  resetBus(groups: readonly Fd[]): void {
    resetBusOf(this.#libc, this.#device, this.name, groups);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#libc.close(this.#device);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #inside(index: number, offset: number, width: number): VfioRegion | undefined {
    const region = this.#regions[index];
    return region !== undefined && offset + width <= region.info.sizeBytes ? region : undefined;
  }

  #setIrqs(kind: InterruptKind, action: IrqAction, what: string): number {
    const result = this.#libc.ioctlStruct(this.#device, VFIO_DEVICE_SET_IRQS, encodeIrqSet(kind, action));
    return check(result, `${what} of ${this.name}`, "VFIO_DEVICE_SET_IRQS", CAUSES.setInterrupts, this.#libc);
  }
}

/** Where in this process an area is mapped: at a remainder modulo an alignment. */
interface MappingPlace {
  readonly alignment: number;
  readonly remainder: number;
}

/**
 * Chooses the largest page of which a whole one lies in the area. The kernel (6.12 and newer) uses a huge page only
 * where host-physical and host-virtual address agree below its size. KVM needs the guest-physical address to agree as
 * well. BARs are naturally aligned on both sides, so the address has to agree with the offset: also behind an MSI-X
 * table.
 */
export function mappingPlace({ offset, sizeBytes }: RegionArea): MappingPlace {
  for (const alignment of [GIGANTIC_PAGE, HUGE_PAGE]) {
    if (alignUp(offset, alignment) + alignment <= offset + sizeBytes) {
      return { alignment, remainder: offset % alignment };
    }
  }
  return { alignment: PAGE_SIZE, remainder: 0 };
}
