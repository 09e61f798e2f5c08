import { HostError } from "../../src/base/errors.ts";
import { type Fd, fd, type Halves, hva, type Width } from "../../src/base/units.ts";
import {
  type DeviceBackend,
  FewerVectors,
  type InterruptInfo,
  type InterruptKind,
  type MappedRegion,
  type RegionArea,
  type RegionInfo,
  type ResetMethod,
} from "../../src/passthrough/backend.ts";
import { FakeVfioConfig } from "./fake-vfio-config.ts";

/** A device as a test describes it: what VFIO would tell of it. */
export interface FakeDevice {
  readonly name: string;
  /** Configuration space, 256 or 4096 bytes; see `pci-image.ts`. */
  readonly image: Uint8Array;
  readonly regions: readonly FakeRegion[];
  readonly interrupts: Partial<Record<InterruptKind, Partial<InterruptInfo>>>;
  readonly resetMethod?: ResetMethod | false;
}

export interface FakeRegion {
  readonly index: number;
  readonly sizeBytes: number;
  /** All of it when absent and not `isTrapOnly`. */
  readonly sparse?: readonly RegionArea[];
  readonly isTrapOnly?: boolean;
  readonly isMsixMappable?: boolean;
}

const CONFIG = 7;
const EXCLUSIVE: readonly InterruptKind[] = ["intx", "msi", "msix"];

/**
 * A fake of vfio-pci that is strict. Kinds of interrupt exclude each other. Vectors beyond the armed ones are refused
 * where the host cannot grow the set. BARs answer only while decode is on and the device is in D0. Use after close
 * throws.
 *
 * What was done is in `log`, one line a call, in order; hand the same array to other fakes to see who came first.
 */
export class FakeDeviceBackend implements DeviceBackend {
  readonly name: string;
  readonly log: string[];
  /** The device's own configuration space; what the host's driver makes of it is in {@link vfioConfig}. */
  readonly config: DataView;
  readonly vfioConfig: FakeVfioConfig;
  /** Bytes of each region but the configuration space's, whatever the device pretends. */
  readonly memory: ReadonlyMap<number, DataView>;
  /** Eventfds by kind, as the host has them; absent while the kind is off. */
  readonly triggers: Map<InterruptKind, Fd[]> = new Map();
  /** What the next calls of these names throw. */
  readonly failures: Map<"setTrigger" | "mapRegion" | "setErrorEvent" | "reset", HostError> = new Map();
  /** Vectors that the host has for `setTrigger`. */
  vectorsLeft: number = Number.POSITIVE_INFINITY;
  resample: Fd | undefined;
  isIntxMasked = false;
  isClosed = false;
  /**
   * A BAR whose range something else of the host holds: vfio-pci can neither map nor read it, as both need
   * `pci_request_selected_regions` (vfio_pci_core_mmap, vfio_pci_core_setup_barmap in drivers/vfio/pci).
   */
  heldBar: number | undefined;
  /**
   * Pulled, or its link is down: the bus answers all ones and takes no write. What vfio-pci keeps itself (`vconfig`)
   * still answers: see {@link vconfigMask}.
   */
  isGone = false;
  resets = 0;
  readonly #device: FakeDevice;
  readonly #mapped: Set<string> = new Set();
  readonly #powerOffset: number | undefined;

  constructor(device: FakeDevice, log: string[] = []) {
    this.name = device.name;
    this.log = log;
    this.#device = device;
    this.vfioConfig = new FakeVfioConfig(device.image);
    this.config = this.vfioConfig.hardware;
    this.memory = new Map(
      device.regions.map(({ index, sizeBytes }) => [
        index,
        new DataView(new ArrayBuffer(Math.min(sizeBytes, 1 << 20))),
      ]),
    );
    this.#powerOffset = this.vfioConfig.find(0x01);
  }

  /** Areas of device memory that are mapped now, as "index offset size". */
  get mappedAreas(): readonly string[] {
    return [...this.#mapped];
  }

  get isDecodingMemory(): boolean {
    return this.vfioConfig.isDecoding("memory") && !this.isAsleep;
  }

  get isAsleep(): boolean {
    return this.#powerOffset !== undefined && (this.config.getUint16(this.#powerOffset + 4, true) & 3) !== 0;
  }

  region(index: number): RegionInfo | undefined {
    if (index === CONFIG) return { ...NO_REGION, index, sizeBytes: this.config.byteLength };
    const region = this.#device.regions.find((candidate) => candidate.index === index);
    if (region === undefined) return index < CONFIG ? { ...NO_REGION, index } : undefined;
    const whole: readonly RegionArea[] = [{ offset: 0, sizeBytes: region.sizeBytes }];
    return {
      ...NO_REGION,
      index,
      sizeBytes: region.sizeBytes,
      mappableAreas: region.isTrapOnly === true ? [] : (region.sparse ?? whole),
      isMsixMappable: region.isMsixMappable ?? false,
    };
  }

  interrupt(kind: InterruptKind): InterruptInfo {
    return { count: 0, canGrow: false, isAutomasked: kind === "intx", ...this.#device.interrupts[kind] };
  }

  readRegion(index: number, offset: number, width: Width): number | undefined {
    this.#alive("readRegion");
    const bytes = this.#answering(index, offset, width);
    if (bytes === undefined) return undefined;
    if (this.isGone) {
      let value = 0;
      for (let byte = 0; byte < width; byte++) {
        const mask = index === CONFIG ? vconfigMask(offset + byte) : 0;
        value += ((bytes.getUint8(offset + byte) & mask) | (~mask & 0xff)) * 2 ** (8 * byte);
      }
      return value;
    }
    if (index === CONFIG) return this.vfioConfig.read(offset, width);
    if (width === 4) return bytes.getUint32(offset, true);
    return width === 2 ? bytes.getUint16(offset, true) : bytes.getUint8(offset);
  }

  writeRegion(index: number, offset: number, width: Width, value: number): boolean {
    this.#alive("writeRegion");
    this.log.push(
      `write ${index === CONFIG ? "config" : `region ${index}`} ${hexText(offset)}/${width} = ${hexText(value)}`,
    );
    const bytes = this.#answering(index, offset, width);
    if (bytes === undefined) return false;
    if (this.isGone) return true; // the kernel does not learn that a write went nowhere
    if (index === CONFIG) this.vfioConfig.write(offset, width, value);
    else if (width === 4) bytes.setUint32(offset, value, true);
    else if (width === 2) bytes.setUint16(offset, value, true);
    else bytes.setUint8(offset, value);
    return true;
  }

  /** As Linux' drivers/vfio/pci/vfio_pci_rdwr.c since 6.11: eight aligned bytes are one access of the device. */
  readWide(index: number, offset: number): Halves | undefined {
    this.#alive("readWide");
    const bytes = this.#answering(index, offset, 4);
    if (bytes === undefined || offset + 8 > bytes.byteLength) return undefined;
    if (this.isGone) return { low: 0xffff_ffff, high: 0xffff_ffff };
    return { low: bytes.getUint32(offset, true), high: bytes.getUint32(offset + 4, true) };
  }

  writeWide(index: number, offset: number, { low, high }: Halves): boolean {
    this.#alive("writeWide");
    this.log.push(`write region ${index} ${hexText(offset)}/8 = ${hexText(high)}:${hexText(low)}`);
    const bytes = this.#answering(index, offset, 4);
    if (bytes === undefined || offset + 8 > bytes.byteLength) return false;
    bytes.setUint32(offset, low, true);
    bytes.setUint32(offset + 4, high, true);
    return true;
  }

  /** As Linux' vfio_pci_bar_rw(): one call reads as much as there is of the region. */
  readBytes(index: number, target: Uint8Array): number {
    this.#alive("readBytes");
    const bytes = this.#answering(index, 0, 1);
    if (bytes === undefined) return 0;
    this.log.push(`read region ${index} ${target.length} bytes`);
    const count = Math.min(target.length, bytes.byteLength);
    target.set(new Uint8Array(bytes.buffer, 0, count));
    return count;
  }

  mapRegion(index: number, area: RegionArea): MappedRegion {
    this.#alive("mapRegion");
    this.#fail("mapRegion");
    if (index === this.heldBar)
      throw new HostError("TSVMM_HOST_CALL", `Cannot map BAR ${index} of ${this.name}: mmap failed with EBUSY`);
    const sizeBytes = Math.ceil(area.sizeBytes / 4096) * 4096;
    if (area.offset % 4096 !== 0) throw new Error(`region ${index} is mapped at the unaligned ${hexText(area.offset)}`);
    const isOffered = this.region(index)?.mappableAreas.some(
      (offered) => area.offset >= offered.offset && area.offset + area.sizeBytes <= offered.offset + offered.sizeBytes,
    );
    if (isOffered !== true) throw new Error(`region ${index} cannot be mapped at ${hexText(area.offset)}`);
    const key = `${index} ${hexText(area.offset)}+${hexText(sizeBytes)}`;
    this.log.push(`mmap ${key}`);
    this.#mapped.add(key);
    return {
      address: hva(0x7000_0000_0000 + index * 0x10_0000_0000 + area.offset),
      sizeBytes,
      unmap: () => {
        if (this.#mapped.delete(key)) this.log.push(`munmap ${key}`);
      },
    };
  }

  setTrigger(kind: InterruptKind, start: number, triggers: readonly Fd[]): void {
    this.#alive("setTrigger");
    this.#fail("setTrigger");
    const { count, canGrow } = this.interrupt(kind);
    const end = start + triggers.length;
    if (end > count) throw new Error(`${kind} vector ${end - 1} does not exist`);
    if (end > this.vectorsLeft)
      throw new FewerVectors(`Cannot arm ${end} ${kind} vectors: the host has ${this.vectorsLeft}`, this.vectorsLeft);
    if (EXCLUSIVE.includes(kind)) {
      const other = EXCLUSIVE.find((candidate) => candidate !== kind && this.triggers.has(candidate));
      if (other !== undefined) throw new Error(`${kind} is armed while ${other} is on`);
    }
    const armed = this.triggers.get(kind);
    if (armed !== undefined && end > armed.length && !canGrow)
      throw new Error(`${kind} vector ${end - 1} is not armed`);
    const next = armed ?? [];
    while (next.length < end) next.push(fd(-1));
    next.splice(start, triggers.length, ...triggers);
    this.triggers.set(kind, next);
    if (kind === "msi" || kind === "msix") this.vfioConfig.switchMessages(kind, next.length);
    if (kind === "intx") this.isIntxMasked = false;
    this.log.push(`arm ${kind} ${start}: ${triggers.join(" ")}`);
  }

  disableInterrupts(kind: InterruptKind): void {
    this.#alive("disableInterrupts");
    if (!this.triggers.delete(kind)) return;
    if (kind === "msi" || kind === "msix") this.vfioConfig.switchMessages(kind, 0);
    if (kind === "intx") this.resample = undefined;
    this.log.push(`disarm ${kind}`);
  }

  maskIntx(): void {
    this.#intx("mask intx");
    this.isIntxMasked = true;
  }

  unmaskIntx(): void {
    this.#intx("unmask intx");
    this.isIntxMasked = false;
  }

  setIntxResample(resample: Fd): void {
    this.#intx("resample intx");
    this.resample = resample;
  }

  setErrorEvent(event: Fd): void {
    this.#fail("setErrorEvent");
    this.setTrigger("error", 0, [event]);
  }

  setRequestEvent(event: Fd): void {
    this.setTrigger("request", 0, [event]);
  }

  reset(): ResetMethod | false {
    this.#alive("reset");
    this.log.push("reset");
    this.#fail("reset");
    this.resets++;
    return this.#device.resetMethod ?? "flr";
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.log.push("close device");
  }

  #answering(index: number, offset: number, width: Width): DataView | undefined {
    if (index === CONFIG) return offset + width <= this.config.byteLength ? this.config : undefined;
    const bytes = this.memory.get(index);
    if (bytes === undefined || offset + width > bytes.byteLength) return undefined;
    const register = index < 6 ? this.config.getUint32(0x10 + 4 * index, true) : 0;
    const isPort = (register & 1) !== 0;
    if (index === this.heldBar) return undefined;
    return isPort || this.isDecodingMemory ? bytes : undefined;
  }

  #intx(action: string): void {
    this.#alive(action);
    if (!this.triggers.has("intx")) throw new Error(`${action} while INTx has no trigger`);
    this.log.push(action);
  }

  #fail(call: "setTrigger" | "mapRegion" | "setErrorEvent" | "reset"): void {
    const failure = this.failures.get(call);
    if (failure !== undefined) throw failure;
  }

  #alive(action: string): void {
    if (this.isClosed) throw new Error(`${this.name}: ${action} after close`);
  }
}

const NO_REGION: RegionInfo = {
  index: 0,
  sizeBytes: 0,
  isReadable: true,
  isWritable: true,
  mappableAreas: [],
  isMsixMappable: false,
};

/**
 * Bits of a byte of the standard header that vfio-pci answers without asking the device: init_pci_cap_basic_perm() in
 * Linux drivers/vfio/pci/vfio_pci_config.c. Class, revision, COMMAND but for INTx Disable, and STATUS but for the
 * capability list's bit are the device's.
 */
function vconfigMask(offset: number): number {
  if (offset < 4 || (offset >= 0x10 && offset < 0x28) || (offset >= 0x30 && offset < 0x35)) return 0xff;
  if (offset === 0x3c || offset === 0x3d) return 0xff;
  if (offset === 0x05) return 0x04;
  return offset === 0x06 ? 0x10 : 0;
}

const hexText = (value: number): string => `0x${value.toString(16)}`;
