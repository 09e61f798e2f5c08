import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import type { HostMemory, Mapping, SlotMapper } from "../base/mappings.ts";
import { type Fd, type Gpa, type Halves, PAGE_SIZE, type Width } from "../base/units.ts";
import {
  type DeviceBackend,
  type InterruptInfo,
  type InterruptKind,
  type MappedRegion,
  type RegionArea,
  type RegionInfo,
  type ResetMethod,
  VFIO_PCI_ROM_REGION_INDEX,
} from "./backend.ts";

/** What the guest sees instead of a device's own expansion ROM: no ROM, or an image of 1 byte to 16 MiB. */
export type OtherRomContent = "none" | Uint8Array;

/**
 * PCI Firmware 3.0 §5.1: an image is a multiple of 512 bytes; the smallest BAR for one is 2 KiB. PCI Local Bus 3.0
 * §6.2.5.2
 */
const ROM_GRAIN = 2048;

/**
 * Gives a device another expansion ROM, or takes it away.
 *
 * @param rom The device's own when absent.
 * @returns The device itself for its own ROM, else one in front of it that owns it.
 */
export function withRom(device: DeviceBackend, rom: OtherRomContent | undefined): DeviceBackend {
  if (rom === undefined) return device;
  return new OtherRom(device, rom === "none" ? undefined : rom);
}

/** What the copy of a ROM is handed of the machine. */
export interface RomHost {
  readonly slots: SlotMapper;
  readonly createMemory: (name: string, sizeBytes: number) => HostMemory;
  readonly report: Report;
}

/**
 * A device's expansion ROM as the guest reads it. It is copied in large reads when the guest first decodes it; then it
 * is a read-only memory slot. For each single read, vfio-pci enables the device's ROM decoder, maps it, walks its
 * images and disables it. That takes tens of microseconds.
 */
export class RomCopy {
  readonly #backend: DeviceBackend;
  readonly #host: RomHost;
  readonly #isTrapped: boolean;
  readonly #bytes: Uint8Array;
  #isRead = false;
  #memory: HostMemory | undefined;
  #slot: Mapping | undefined;

  /**
   * @param sizeBytes Of the base address register.
   * @param isTrapped Without a slot: every read exits, and is answered from the copy.
   */
  constructor(backend: DeviceBackend, sizeBytes: number, isTrapped: boolean, host: RomHost) {
    this.#backend = backend;
    this.#host = host;
    this.#isTrapped = isTrapped;
    this.#bytes = new Uint8Array(sizeBytes).fill(0xff);
  }

  /** Bytes that the guest reads without an exit now. */
  get slotBytes(): number {
    return this.#slot === undefined ? 0 : this.#bytes.length;
  }

  read(offset: number, width: Width): number {
    let value = 0;
    for (let byte = width - 1; byte >= 0; byte--) value = value * 256 + (this.#bytes[offset + byte] ?? 0xff);
    return value;
  }

  /** The guest decodes it, and the device its memory. */
  show(address: Gpa): void {
    this.hide();
    if (!this.#isRead) this.#fill();
    if (this.#isTrapped || !this.#isRead || this.#bytes.length % PAGE_SIZE !== 0 || address % PAGE_SIZE !== 0) return;
    const name = `expansion ROM of ${this.#backend.name}`;
    try {
      this.#memory ??= this.#inMemory(name);
      this.#slot = this.#host.slots.mapSlot(name, address, this.#memory.address, this.#bytes.length, true);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#host.report("warn", `${error.message}: reads of it exit`);
    }
  }

  hide(): void {
    this.#slot?.unmap();
    this.#slot = undefined;
  }

  close(): void {
    this.hide();
    this.#memory?.unmap();
    this.#memory = undefined;
  }

  /** A device that gives nothing now is asked again at the next decode. */
  #fill(): void {
    const sizeBytes = this.#backend.region(VFIO_PCI_ROM_REGION_INDEX)?.sizeBytes ?? 0;
    const count = this.#backend.readBytes(VFIO_PCI_ROM_REGION_INDEX, this.#bytes.subarray(0, sizeBytes));
    this.#isRead = count > 0;
    if (count >= sizeBytes) return;
    const text = `Cannot read the expansion ROM of ${this.#backend.name}: it gives ${count} of ${sizeBytes} bytes`;
    this.#host.report("warn", `${text}: the rest reads as ones (rom=file=PATH shows another)`);
  }

  #inMemory(name: string): HostMemory {
    const memory = this.#host.createMemory(name, this.#bytes.length);
    new Uint8Array(memory.view()).set(this.#bytes);
    return memory;
  }
}

/** A device whose ROM region is bytes of ours; all else goes to the device. */
class OtherRom implements DeviceBackend {
  readonly name: string;
  readonly #device: DeviceBackend;
  readonly #bytes: Uint8Array;
  readonly #info: RegionInfo | undefined;

  constructor(device: DeviceBackend, content: Uint8Array | undefined) {
    this.name = device.name;
    this.#device = device;
    // A region is a power of two; what is behind the image reads as erased flash.
    const sizeBytes = content === undefined ? 0 : Math.max(ROM_GRAIN, 2 ** Math.ceil(Math.log2(content.length)));
    this.#bytes = new Uint8Array(sizeBytes).fill(0xff);
    if (content !== undefined) this.#bytes.set(content);
    this.#info =
      content === undefined
        ? undefined
        : {
            index: VFIO_PCI_ROM_REGION_INDEX,
            sizeBytes,
            isReadable: true,
            isWritable: false,
            mappableAreas: [],
            isMsixMappable: false,
          };
  }

  region(index: number): RegionInfo | undefined {
    return index === VFIO_PCI_ROM_REGION_INDEX ? this.#info : this.#device.region(index);
  }

  readRegion(index: number, offset: number, width: Width): number | undefined {
    if (index !== VFIO_PCI_ROM_REGION_INDEX) return this.#device.readRegion(index, offset, width);
    if (offset + width > this.#bytes.length) return undefined;
    let value = 0;
    for (let byte = width - 1; byte >= 0; byte--) value = value * 256 + (this.#bytes[offset + byte] ?? 0xff);
    return value;
  }

  writeRegion(index: number, offset: number, width: Width, value: number): boolean {
    return index !== VFIO_PCI_ROM_REGION_INDEX && this.#device.writeRegion(index, offset, width, value);
  }

  readWide(index: number, offset: number): Halves | undefined {
    if (index !== VFIO_PCI_ROM_REGION_INDEX) return this.#device.readWide(index, offset);
    const low = this.readRegion(index, offset, 4);
    const high = this.readRegion(index, offset + 4, 4);
    return low === undefined || high === undefined ? undefined : { low, high };
  }

  writeWide(index: number, offset: number, value: Halves): boolean {
    return index !== VFIO_PCI_ROM_REGION_INDEX && this.#device.writeWide(index, offset, value);
  }

  readBytes(index: number, target: Uint8Array): number {
    if (index !== VFIO_PCI_ROM_REGION_INDEX) return this.#device.readBytes(index, target);
    target.set(this.#bytes.subarray(0, target.length));
    return Math.min(target.length, this.#bytes.length);
  }

  interrupt(kind: InterruptKind): InterruptInfo {
    return this.#device.interrupt(kind);
  }

  mapRegion(index: number, area: RegionArea): MappedRegion {
    return this.#device.mapRegion(index, area);
  }

  setTrigger(kind: InterruptKind, start: number, triggers: readonly Fd[]): void {
    this.#device.setTrigger(kind, start, triggers);
  }

  disableInterrupts(kind: InterruptKind): void {
    this.#device.disableInterrupts(kind);
  }

  maskIntx(): void {
    this.#device.maskIntx();
  }

  unmaskIntx(): void {
    this.#device.unmaskIntx();
  }

  setIntxResample(resample: Fd): void {
    this.#device.setIntxResample(resample);
  }

  setErrorEvent(event: Fd): void {
    this.#device.setErrorEvent(event);
  }

  setRequestEvent(event: Fd): void {
    this.#device.setRequestEvent(event);
  }

  reset(): ResetMethod | false {
    return this.#device.reset();
  }

  close(): void {
    this.#device.close();
  }
}
