import { type BarModel, registerOf, replayedBars } from "./bar-model.ts";
import { extendedCapabilities } from "./extended-model.ts";
import { VectorsModel } from "./vectors-model.ts";
import type { FuzzedFunction } from "./world.ts";

interface Structure {
  readonly bar: number;
  readonly offset: number;
  readonly sizeBytes: number;
}

/** Where a BAR answers by its registers. */
export interface Decoded {
  readonly bar: BarModel;
  readonly bus: "mmio" | "ports";
  readonly base: number;
}

/** Behind the start of a capability nothing is taken for a device's own register so far. */
const RESERVED = 0x60;
/**
 * What must hold of one function after every write of the guest. It covers the configuration space byte by byte, the
 * BARs' addresses by the registers, the MSI-X table and the vectors. Written from the specifications, not from the
 * code. Bits that a guest may change are listed; all others keep their first value. Bytes that a device may change
 * itself are not judged.
 */
export class FunctionModel {
  readonly name: string;
  readonly bars: readonly BarModel[];
  readonly sizeBytes: number;
  readonly msix: VectorsModel | undefined;
  readonly msi: VectorsModel | undefined;
  readonly table: Structure | undefined;
  readonly pba: Structure | undefined;
  /** Nothing of it is left to the host's taste: the host arms vector by vector. */
  readonly isExact: boolean;
  /** Of the window to a virtio function's BAR. */
  readonly windowAt: number | undefined;
  powerState = 0;
  readonly #bytes: Uint8Array;
  readonly #powerOn: Uint8Array;
  readonly #writable: Uint8Array;
  readonly #unjudged: Uint8Array;
  readonly #raw: Uint8Array;
  readonly #entries: DataView;
  readonly #capabilities: ReadonlyMap<number, number>;
  readonly #keepsStateInD3: boolean;

  constructor({ name, pci, backend }: FuzzedFunction) {
    this.name = name;
    this.sizeBytes = pci.config.sizeBytes;
    this.#bytes = pci.config.image();
    this.#writable = new Uint8Array(this.sizeBytes);
    this.#unjudged = new Uint8Array(this.sizeBytes);
    this.#raw = new Uint8Array(this.sizeBytes);
    this.bars = backend === undefined ? [{ index: 0, kind: "mem64", sizeBytes: 0x8000 }] : replayedBars(backend);
    this.#capabilities = this.#walk();
    this.#headerRules();
    if (backend !== undefined) this.#unjudged.fill(1, 0x40, this.sizeBytes);
    this.#capabilityRules(backend?.config);
    this.windowAt = this.#virtioWindow();

    const view = new DataView(this.#bytes.buffer);
    const at = this.#capabilities.get(0x11);
    const vectorCount = at === undefined ? 0 : (view.getUint16(at + 2, true) & 0x7ff) + 1;
    const place = (register: number, sizeBytes: number): Structure | undefined =>
      at === undefined
        ? undefined
        : {
            bar: view.getUint32(at + register, true) & 7,
            offset: (view.getUint32(at + register, true) & ~7) >>> 0,
            sizeBytes,
          };
    this.table = place(4, 16 * vectorCount);
    this.pba = place(8, 8 * Math.ceil(vectorCount / 64));
    this.#entries = new DataView(new ArrayBuffer(16 * vectorCount));
    this.#maskEntries();
    this.msix = at === undefined ? undefined : this.#msixModel(at, vectorCount);
    const msi = this.#capabilities.get(0x05);
    this.msi = msi === undefined ? undefined : this.#msiModel(msi);
    this.isExact = backend?.interrupt("msix").canGrow === true;
    const power = this.#capabilities.get(0x01);
    this.#keepsStateInD3 = power !== undefined && (this.get8(power + 4) & 8) !== 0;

    this.#powerOn = this.#bytes.map((byte, at) => (at === 0x3c ? byte : byte & ~(this.#writable[at] ?? 0)));
  }

  get8(offset: number): number {
    return this.#bytes[offset] ?? 0xff;
  }

  get16(offset: number): number {
    return this.get8(offset) + 256 * this.get8(offset + 1);
  }

  get32(offset: number): number {
    return this.get16(offset) + 65536 * this.get16(offset + 2);
  }

  get command(): number {
    return this.get16(0x04);
  }

  /** What is wrong with a configuration read, `undefined` when nothing is. */
  judgeRead(offset: number, width: number, value: number): string | undefined {
    for (let byte = 0; byte < width; byte++) {
      const at = offset + byte;
      if (at < this.sizeBytes && this.#unjudged[at] === 1) continue;
      const expected = this.get8(at);
      const found = Math.floor(value / 2 ** (8 * byte)) & 0xff;
      if (found !== expected) {
        const [place, read, wanted] = [at, found, expected].map((value) => `0x${value.toString(16)}`);
        return `${this.name}: configuration byte ${place} reads ${read}, not ${wanted}`;
      }
    }
    return undefined;
  }

  /**
   * A guest write to configuration space. @returns Vectors whose pending signal is due now, and whether the function
   * was reset.
   */
  write(offset: number, width: number, value: number): { readonly isReset: boolean; readonly due: readonly number[] } {
    for (let byte = 0; byte < width; byte++) {
      const at = offset + byte;
      const mask = this.#writable[at] ?? 0;
      if (at >= this.sizeBytes || mask === 0) continue;
      const written = Math.floor(value / 2 ** (8 * byte)) & 0xff;
      this.#bytes[at] = (this.get8(at) & ~mask) | (written & mask);
    }
    const byteAt = (at: number): number | undefined =>
      at >= offset && at < offset + width ? Math.floor(value / 2 ** (8 * (at - offset))) & 0xff : undefined;
    if (this.#isReset(byteAt)) {
      this.reset();
      return { isReset: true, due: [] };
    }
    // A table of hundreds is not looked through for a write to a base address.
    const touches = (id: number, sizeBytes: number): boolean => {
      const at = this.#capabilities.get(id);
      return at !== undefined && offset < at + sizeBytes && offset + width > at;
    };
    if (touches(0x05, 24)) this.msi?.changed();
    return { isReset: false, due: touches(0x11, 4) ? (this.msix?.changed() ?? []) : [] };
  }

  /** Back to power-on, but for what firmware assigned. */
  reset(): void {
    for (const [at, mask] of this.#writable.entries()) {
      this.#bytes[at] = (this.get8(at) & ~mask) | ((this.#powerOn[at] ?? 0) & mask);
    }
    new Uint8Array(this.#entries.buffer).fill(0);
    this.#maskEntries();
    this.powerState = 0;
    this.msi?.changed();
    this.msix?.changed();
  }

  /** Takes a register over as firmware wrote it. */
  adopt(offset: number, value: number): void {
    for (let byte = 0; byte < 4; byte++) this.#bytes[offset + byte] = Math.floor(value / 2 ** (8 * byte)) & 0xff;
  }

  /** The address in a BAR's registers, decoded or not. */
  address(index: number): number {
    const bar = this.bars.find((candidate) => candidate.index === index);
    if (bar === undefined) return 0;
    const flags = bar.kind === "io" ? 3 : bar.kind === "rom" ? 0x7ff : 0xf;
    const low = (this.get32(registerOf(index)) & ~flags) >>> 0;
    return bar.kind === "mem64" ? this.get32(registerOf(index) + 4) * 2 ** 32 + low : low;
  }

  /** Where the registers say that BARs answer; what lies above every address space is left out. */
  decoded(): readonly Decoded[] {
    return this.bars.flatMap((bar): readonly Decoded[] => {
      if ((this.command & (bar.kind === "io" ? 1 : 2)) === 0) return [];
      if (bar.kind === "rom" && (this.get8(0x30) & 1) === 0) return [];
      const base = this.address(bar.index);
      return base > Number.MAX_SAFE_INTEGER ? [] : [{ bar, bus: bar.kind === "io" ? "ports" : "mmio", base }];
    });
  }

  /** A byte of the table, `undefined` when the offset is not in it. */
  tableByte(bar: number, offset: number): number | undefined {
    const at = inside(this.table, bar, offset);
    return at === undefined ? undefined : this.#entries.getUint8(at);
  }

  pbaByte(bar: number, offset: number): number | undefined {
    const at = inside(this.pba, bar, offset);
    if (at === undefined) return undefined;
    let value = 0;
    for (let bit = 0; bit < 8; bit++) if (this.msix?.pending.has(8 * at + bit) === true) value |= 1 << bit;
    return value;
  }

  /** A guest write to a byte of a BAR. @returns The vector whose entry it changed. */
  writeTableByte(bar: number, offset: number, value: number): number | undefined {
    const at = inside(this.table, bar, offset);
    if (at === undefined) return undefined;
    const field = at % 16;
    const mask = field === 0 ? 0xfc : field === 12 ? 0x01 : field > 12 ? 0 : 0xff;
    this.#entries.setUint8(at, value & mask);
    return Math.floor(at / 16);
  }

  #isReset(byteAt: (at: number) => number | undefined): boolean {
    const power = this.#capabilities.get(0x01);
    const state = power === undefined ? undefined : byteAt(power + 4);
    if (state !== undefined && this.#isReplayed) {
      const isWaking = this.powerState === 3 && (state & 3) === 0 && !this.#keepsStateInD3;
      this.powerState = state & 3;
      if (isWaking) return true;
    }
    const express = this.#capabilities.get(0x10);
    if (express !== undefined && ((byteAt(express + 9) ?? 0) & 0x80) !== 0 && (this.get8(express + 7) & 0x10) !== 0) {
      return true;
    }
    const features = this.#capabilities.get(0x13);
    return features !== undefined && ((byteAt(features + 4) ?? 0) & 1) !== 0 && (this.get8(features + 3) & 2) !== 0;
  }

  get #isReplayed(): boolean {
    return this.windowAt === undefined;
  }

  #maskEntries(): void {
    for (let at = 12; at < this.#entries.byteLength; at += 16) this.#entries.setUint8(at, 1);
  }

  #msixModel(at: number, count: number): VectorsModel {
    const control = (): number => this.get16(at + 2);
    return new VectorsModel(
      count,
      () => (control() & 0x8000) !== 0,
      (vector) => ({
        message: {
          addressLow: this.#entries.getUint32(16 * vector, true),
          addressHigh: this.#entries.getUint32(16 * vector + 4, true),
          data: this.#entries.getUint32(16 * vector + 8, true),
        },
        isMasked: (control() & 0x4000) !== 0 || (this.#entries.getUint8(16 * vector + 12) & 1) !== 0,
      }),
    );
  }

  #msiModel(at: number): VectorsModel {
    const control = (): number => this.get16(at + 2);
    const has64 = (control() & 0x80) !== 0;
    const dataAt = at + (has64 ? 12 : 8);
    const masks = (): number => ((control() & 0x100) === 0 ? 0 : this.get32(dataAt + 4));
    const count = 2 ** ((control() >> 1) & 7);
    return new VectorsModel(
      count,
      () => (control() & 1) !== 0,
      (vector) => {
        const enabled = Math.min(count, 2 ** ((control() >> 4) & 7));
        if (vector >= enabled) return undefined;
        return {
          message: {
            addressLow: this.get32(at + 4),
            addressHigh: has64 ? this.get32(at + 8) : 0,
            data: this.get16(dataAt) - (this.get16(dataAt) % enabled) + vector,
          },
          isMasked: ((masks() >>> vector) & 1) !== 0,
        };
      },
    );
  }

  #headerRules(): void {
    this.#allow(0x04, [0x47, 0x05]);
    this.#unjudged.fill(1, 0x06, 0x08);
    this.#allow(0x0c, [0xff, 0xff]);
    this.#allow(0x3c, [0xff]);
    for (const { index, kind, sizeBytes } of this.bars) {
      const low = sizeBytes >= 2 ** 32 ? 0 : 2 ** 32 - sizeBytes + (kind === "rom" ? 1 : 0);
      this.#allow(registerOf(index), bytesOf(low));
      const high = sizeBytes > 2 ** 32 ? 2 ** 32 - sizeBytes / 2 ** 32 : 0xffff_ffff;
      if (kind === "mem64") this.#allow(registerOf(index) + 4, bytesOf(high));
    }
  }

  /** @param device The device's own configuration space, where there is one: it has capabilities that are hidden. */
  #capabilityRules(device: DataView | undefined): void {
    const starts = [...this.#capabilities.values()];
    for (const [id, at] of this.#capabilities) {
      const end = Math.min(0x100, ...starts.filter((start) => start > at));
      const judge = (sizeBytes: number): void => void this.#unjudged.fill(0, at, Math.min(at + sizeBytes, end));
      const live = (from: number, sizeBytes: number): void =>
        void this.#unjudged.fill(1, Math.min(at + from, end), Math.min(at + from + sizeBytes, end));
      switch (id) {
        case 0x01:
          judge(8);
          live(4, 4);
          break;
        case 0x05:
          this.#msiRules(at, judge);
          break;
        case 0x10:
          judge(60);
          live(8, 4);
          live(16, 4); // link control and status
          live(40, 4);
          live(48, 4);
          break;
        case 0x11:
          judge(12);
          this.#allow(at + 2, [0x00, 0xc0]);
          break;
        case 0x13:
          judge(8);
          live(4, 2);
          break;
        default:
          judge(2); // a vendor's own
      }
    }
    if (this.sizeBytes < 4096) return;
    if (device === undefined) return;
    this.#raw.fill(1, 0x40);
    for (const at of starts) this.#raw.fill(0, at, at + RESERVED);
    this.#raw.fill(0, 0x100, 0x104);
    this.#unjudged.fill(0, 0x100, 0x104);
    for (const { id, at, end } of extendedCapabilities(device)) {
      this.#raw.fill(0, at, Math.max(at + RESERVED, end));
      const isShown = id === 0x03 || id === 0x0b || id === 0x23;
      const judgedEnd = isShown && id !== 0x03 ? at + 4 : end;
      this.#unjudged.fill(0, at, judgedEnd);
      if (!isShown) this.#bytes.fill(0, at === 0x100 ? 0x104 : at, end);
    }
  }

  /**
   * True for a byte outside all capabilities, at least {@link RESERVED} bytes behind the start of one. Guest accesses
   * go to the device as they are.
   */
  isRaw(offset: number): boolean {
    return this.#raw[offset] === 1;
  }

  #msiRules(at: number, judge: (sizeBytes: number) => void): void {
    const control = this.get16(at + 2);
    const has64 = (control & 0x80) !== 0;
    const hasMasks = (control & 0x100) !== 0;
    const dataAt = at + (has64 ? 12 : 8);
    judge(dataAt - at + (hasMasks ? 12 : 4));
    this.#allow(at + 2, [0x71]);
    this.#allow(at + 4, [0xfc, 0xff, 0xff, 0xff]);
    if (has64) this.#allow(at + 8, [0xff, 0xff, 0xff, 0xff]);
    this.#allow(dataAt, [0xff, 0xff]);
    if (!hasMasks) return;
    this.#allow(dataAt + 4, bytesOf(2 ** (2 ** ((control >> 1) & 7)) - 1));
    this.#unjudged.fill(1, dataAt + 8, dataAt + 12); // pending bits
  }

  /** VIRTIO 1.2 §4.1.4.9 */
  #virtioWindow(): number | undefined {
    if (this.get16(0) !== 0x1af4) return undefined;
    for (let at = this.get8(0x34); at !== 0; at = this.get8(at + 1)) {
      if (this.get8(at) !== 0x09 || this.get8(at + 3) !== 5) continue;
      this.#allow(at + 4, [0xff]);
      this.#allow(at + 8, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
      this.#unjudged.fill(1, at + 16, at + 20);
      return at;
    }
    return undefined;
  }

  /** First capability of each id. */
  #walk(): ReadonlyMap<number, number> {
    const found = new Map<number, number>();
    for (let at = this.get8(0x34); at >= 0x40 && found.size < 48; at = this.get8(at + 1)) {
      if (!found.has(this.get8(at))) found.set(this.get8(at), at);
    }
    return found;
  }

  #allow(offset: number, masks: readonly number[]): void {
    this.#writable.set(masks, offset);
  }
}

function inside(structure: Structure | undefined, bar: number, offset: number): number | undefined {
  if (structure === undefined || bar !== structure.bar) return undefined;
  const at = offset - structure.offset;
  return at >= 0 && at < structure.sizeBytes ? at : undefined;
}

const bytesOf = (value: number): readonly number[] =>
  [0, 8, 16, 24].map((shift) => Math.floor(value / 2 ** shift) & 0xff);
