import type { Fd, Halves, Width } from "../../src/base/units.ts";
import type { InterruptKind, MappedRegion, RegionArea, ResetMethod } from "../../src/passthrough/backend.ts";
import {
  type DeviceRecording,
  recordedConfig,
  recordedInterrupt,
  recordedRegion,
} from "../../src/passthrough/recording.ts";
import { type FakeDevice, FakeDeviceBackend, type FakeRegion } from "./fake-device-backend.ts";

/** What a test may want of a replayed device besides what was recorded. */
export interface ReplayOptions {
  /** Bytes of regions that keep their value, as many registers do. */
  readonly readOnly?: readonly (RegionArea & { readonly index: number })[];
  readonly log?: string[];
}

/** Calls that cost a system call with real hardware. */
export interface HostCalls {
  configReads: number;
  configWrites: number;
  regionReads: number;
  regionWrites: number;
  interrupts: number;
  maps: number;
  resets: number;
}

const CONFIG = 7;
/**
 * Bytes that the kernel gives to extended capabilities, and lets no user write; others are the device's.
 * `pci_ext_cap_length` in Linux' drivers/vfio/pci/vfio_pci_config.c
 */
const EXTENDED_LENGTHS: ReadonlyMap<number, number> = new Map([
  [0x01, 44],
  [0x03, 12],
  [0x04, 16],
  [0x0e, 8],
  [0x0f, 8],
  [0x10, 64],
  [0x12, 40],
  [0x13, 16],
  [0x18, 8],
]);
const NO_CALLS: HostCalls = {
  configReads: 0,
  configWrites: 0,
  regionReads: 0,
  regionWrites: 0,
  interrupts: 0,
  maps: 0,
  resets: 0,
};

/** A recording in the words of a {@link FakeDeviceBackend}. */
export function fakeDeviceOf(recording: DeviceRecording): FakeDevice {
  const kinds: readonly InterruptKind[] = ["intx", "msi", "msix", "error", "request"];
  return {
    name: recording.name,
    image: recordedConfig(recording),
    regions: recording.regions.flatMap(({ index }): readonly FakeRegion[] => {
      const region = index === CONFIG ? undefined : recordedRegion(recording, index);
      if (region === undefined || region.sizeBytes === 0) return [];
      const { sizeBytes, mappableAreas, isMsixMappable } = region;
      return [{ index, sizeBytes, sparse: mappableAreas, isMsixMappable }];
    }),
    interrupts: Object.fromEntries(kinds.map((kind) => [kind, recordedInterrupt(recording, kind)])),
    resetMethod: recording.resetMethods[0] ?? false,
  };
}

/**
 * Replays a recorded device with the rules of {@link FakeDeviceBackend} and of vfio-pci's configuration space.
 * Identity, capability lists and read-only registers keep their value. A guest's function-level reset is carried out,
 * and its bit reads as zero.
 *
 * It counts calls and lists in `strays` every forbidden write. Those are writes outside a region, to the MSI-X table or
 * PBA, and to base address registers. Writes to MSI or MSI-X registers and to capabilities of the host are forbidden
 * too.
 */
export class ReplayBackend extends FakeDeviceBackend {
  readonly calls: HostCalls = { ...NO_CALLS };
  readonly strays: string[] = [];
  /** Function-level resets that guest writes brought about, and machine resets. */
  functionResets = 0;
  readonly #readOnly: readonly (RegionArea & { readonly index: number })[];
  readonly #forbidden: readonly (RegionArea & { readonly index: number; readonly what: string })[];
  readonly #forbiddenConfig: Set<number> = new Set();
  readonly #controlWords: Set<number> = new Set();
  readonly #writable: Uint8Array;
  readonly #image: Uint8Array;
  readonly #express: number | undefined;
  readonly #advancedFeatures: number | undefined;
  readonly #power: number | undefined;

  constructor(recording: DeviceRecording, options: ReplayOptions = {}) {
    super(fakeDeviceOf(recording), options.log ?? []);
    this.#readOnly = options.readOnly ?? [];
    this.#image = recordedConfig(recording);
    this.#express = this.#find(0x10);
    this.#advancedFeatures = this.#find(0x13);
    this.#power = this.#find(0x01);
    this.#forbidden = this.#msixStructures();
    this.#writable = this.#writableConfig();
  }

  /** Takes the counts so far, leaving zeroes. */
  takeCalls(): HostCalls {
    const taken = { ...this.calls };
    Object.assign(this.calls, NO_CALLS);
    return taken;
  }

  override readRegion(index: number, offset: number, width: Width): number | undefined {
    if (index === CONFIG) this.calls.configReads++;
    else this.calls.regionReads++;
    return this.#isInside(index, offset, width) ? super.readRegion(index, offset, width) : undefined;
  }

  override writeRegion(index: number, offset: number, width: Width, value: number): boolean {
    if (index === CONFIG) this.calls.configWrites++;
    else this.calls.regionWrites++;
    const at = `region ${index} at 0x${offset.toString(16)}, ${width} bytes`;
    if (!this.#isInside(index, offset, width)) {
      this.strays.push(`${at}: outside`);
      return false;
    }
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * width)) {
      this.strays.push(`${at}: ${value} is no value`);
    }
    if (index === CONFIG) return this.#writeConfig(offset, width, value);
    this.#noteStrays(index, offset, width);
    let kept = value;
    for (let byte = 0; byte < width; byte++) {
      if (!this.#isReadOnly(index, offset + byte)) continue;
      const old = this.memory.get(index)?.getUint8(offset + byte) ?? 0;
      kept += (old - (Math.floor(kept / 2 ** (8 * byte)) & 0xff)) * 2 ** (8 * byte);
    }
    return super.writeRegion(index, offset, width, kept);
  }

  override readWide(index: number, offset: number): Halves | undefined {
    this.calls.regionReads++;
    return super.readWide(index, offset);
  }

  override writeWide(index: number, offset: number, value: Halves): boolean {
    this.calls.regionWrites++;
    this.#noteStrays(index, offset, 8);
    return super.writeWide(index, offset, value);
  }

  override readBytes(index: number, target: Uint8Array): number {
    this.calls.regionReads++;
    return super.readBytes(index, target);
  }

  override mapRegion(index: number, area: RegionArea): MappedRegion {
    this.calls.maps++;
    return super.mapRegion(index, area);
  }

  override setTrigger(kind: InterruptKind, start: number, triggers: readonly Fd[]): void {
    this.calls.interrupts++;
    super.setTrigger(kind, start, triggers);
  }

  override disableInterrupts(kind: InterruptKind): void {
    this.calls.interrupts++;
    super.disableInterrupts(kind);
  }

  override reset(): ResetMethod | false {
    this.calls.resets++;
    const method = super.reset();
    if (method !== false) this.#clearState();
    return method;
  }

  #noteStrays(index: number, offset: number, width: number): void {
    for (const area of this.#forbidden) {
      const isHit = area.index === index && offset < area.offset + area.sizeBytes && offset + width > area.offset;
      if (isHit) this.strays.push(`region ${index} at 0x${offset.toString(16)}, ${width} bytes: in the ${area.what}`);
    }
  }

  #isInside(index: number, offset: number, width: Width): boolean {
    const sizeBytes = this.region(index)?.sizeBytes ?? 0;
    return Number.isInteger(offset) && offset >= 0 && offset + width <= sizeBytes;
  }

  #isReadOnly(index: number, offset: number): boolean {
    return this.#readOnly.some(
      (area) => area.index === index && offset >= area.offset && offset < area.offset + area.sizeBytes,
    );
  }

  #writeConfig(offset: number, width: Width, value: number): boolean {
    let merged = 0;
    let isReset = false;
    for (let byte = 0; byte < width; byte++) {
      const at = offset + byte;
      const written = Math.floor(value / 2 ** (8 * byte)) & 0xff;
      if (this.#isHostsOwn(at)) this.strays.push(`configuration space at 0x${at.toString(16)}`);
      const mask = this.#writable[at] ?? 0;
      merged += ((this.config.getUint8(at) & ~mask & 0xff) | (written & mask)) * 2 ** (8 * byte);
      isReset ||= this.#isFunctionReset(at, written);
    }
    const isTaken = super.writeRegion(CONFIG, offset, width, merged);
    if (isReset) {
      this.functionResets++;
      this.#clearState();
    }
    return isTaken;
  }

  /** Initiate FLR: bit 15 of device control, bit 0 of AF control, where the capabilities offer it. */
  #isFunctionReset(at: number, written: number): boolean {
    const express = this.#express;
    if (express !== undefined && at === express + 9 && (written & 0x80) !== 0) {
      return ((this.#image[express + 7] ?? 0) & 0x10) !== 0;
    }
    const features = this.#advancedFeatures;
    return features !== undefined && at === features + 4 && (written & 1) !== 0
      ? ((this.#image[features + 3] ?? 0) & 2) !== 0
      : false;
  }

  /**
   * As vfio-pci leaves a device after a reset: registers of its regions are fresh, configuration space is as it was,
   * awake.
   */
  #clearState(): void {
    for (const bytes of this.memory.values()) new Uint8Array(bytes.buffer).fill(0);
    if (this.#power !== undefined) {
      this.config.setUint8(this.#power + 4, this.config.getUint8(this.#power + 4) & ~3);
    }
  }

  /**
   * Base addresses, the ROM's address, identity, pins; MSI and MSI-X but their control words; extended
   * capabilities that a guest may not have.
   */
  #isHostsOwn(at: number): boolean {
    if (this.#controlWords.has(at)) return false;
    if (at < 0x04 || (at >= 0x08 && at < 0x0c) || (at >= 0x0e && at < 0x40)) return true;
    return this.#forbiddenConfig.has(at);
  }

  #writableConfig(): Uint8Array {
    const writable = new Uint8Array(this.#image.length);
    writable[0x04] = 0x47;
    writable[0x05] = 0x05;
    writable[0x0c] = 0xff;
    writable[0x0d] = 0xff;
    writable.fill(0xff, 0x40, 0x100);
    const forbid = (offset: number, sizeBytes: number): void => {
      for (let at = offset; at < offset + sizeBytes; at++) this.#forbiddenConfig.add(at);
    };
    for (const { id, at } of this.#capabilities()) {
      writable.fill(0, at, at + 2);
      if (id === 0x05) forbid(at, 10);
      if (id === 0x11) forbid(at, 12);
      if (id === 0x05 || id === 0x11) {
        this.#controlWords.add(at + 2).add(at + 3);
        writable.set([0x71, 0], at + 2);
      }
      if (id === 0x01) writable.set([0, 0, 0, 0, 0x03, 0x01], at); // power state, PME enable
      if (id === 0x10) {
        writable.fill(0, at, at + 60);
        writable.set([0xff, 0x7f], at + 8); // device control, but for the bit that resets
        writable.set([0xff, 0xff], at + 40);
      }
      if (id === 0x13) writable.fill(0, at, at + 6);
    }
    writable.fill(0xff, 0x100);
    writable.fill(0, 0x100, 0x104);
    for (const { id, at } of this.#extendedCapabilities()) {
      writable.fill(0, at, at + (EXTENDED_LENGTHS.get(id) ?? 4));
      // Vendor-specific, both kinds: all a guest may write to.
      if (id === 0x0b || id === 0x23) writable.fill(0xff, at + 8, at + 16);
      else forbid(at, 4);
    }
    return writable;
  }

  #msixStructures(): readonly (RegionArea & { readonly index: number; readonly what: string })[] {
    const at = this.#find(0x11);
    if (at === undefined) return [];
    const view = new DataView(this.#image.buffer);
    const vectors = (view.getUint16(at + 2, true) & 0x7ff) + 1;
    const table = view.getUint32(at + 4, true);
    const pba = view.getUint32(at + 8, true);
    return [
      { index: table & 7, offset: (table & ~7) >>> 0, sizeBytes: 16 * vectors, what: "MSI-X table" },
      { index: pba & 7, offset: (pba & ~7) >>> 0, sizeBytes: 8 * Math.ceil(vectors / 64), what: "pending bits" },
    ];
  }

  #find(id: number): number | undefined {
    return this.#capabilities().find((capability) => capability.id === id)?.at;
  }

  #capabilities(): readonly { readonly id: number; readonly at: number }[] {
    const found: { readonly id: number; readonly at: number }[] = [];
    for (let at = this.#image[0x34] ?? 0; at >= 0x40 && found.length < 48; at = this.#image[at + 1] ?? 0) {
      found.push({ id: this.#image[at] ?? 0, at });
    }
    return found;
  }

  #extendedCapabilities(): readonly { readonly id: number; readonly at: number }[] {
    const found: { readonly id: number; readonly at: number }[] = [];
    if (this.#image.length < 4096) return found;
    const view = new DataView(this.#image.buffer);
    for (let at = 0x100; at >= 0x100 && found.length < 960; at = view.getUint32(at, true) >>> 20) {
      const header = view.getUint32(at, true);
      if (header === 0) break;
      found.push({ id: header & 0xffff, at });
    }
    return found;
  }
}
