import type { MsiMessage, MsiRouter } from "../base/signals.ts";
import type { Width } from "../base/units.ts";
import type { ConfigSpace } from "./config-space.ts";
import {
  PCI_CAP_ID_MSI,
  PCI_MSI_ADDRESS_HI,
  PCI_MSI_ADDRESS_LO,
  PCI_MSI_DATA_32,
  PCI_MSI_DATA_64,
  PCI_MSI_FLAGS,
  PCI_MSI_FLAGS_64BIT,
  PCI_MSI_FLAGS_ENABLE,
  PCI_MSI_FLAGS_MASKBIT,
  PCI_MSI_FLAGS_QSIZE,
  PCI_MSI_MASK_32,
  PCI_MSI_MASK_64,
  PCI_MSI_PENDING_32,
  PCI_MSI_PENDING_64,
} from "./ids.ts";
import { type VectorHost, VectorSet, type VectorState, type VectorsInspection } from "./vectors.ts";

/** How an MSI capability looks and where it goes. */
export interface MsiOptions {
  readonly config: ConfigSpace;
  readonly router: MsiRouter;
  /** How many messages the function can send: 1, 2, 4, 8, 16 or 32. */
  readonly vectorCount: number;
  /** Offset of the capability, to keep a real device's layout; anywhere when absent. */
  readonly at?: number;
  /** Whether addresses have 64 bits; `true` when absent. */
  readonly is64Bit?: boolean;
  /** Whether vectors have mask and pending bits; `true` when absent. */
  readonly hasMaskBits?: boolean;
  readonly host?: VectorHost;
  /** Called when a guest write changed the control word, after routes and host have followed. */
  readonly controlChanged?: (old: number, now: number) => void;
}

const QSIZE_SHIFT = 4;

/**
 * MSI: up to 32 messages to one address whose data differ in the low bits. PCI Local Bus 3.0 §6.8.1
 *
 * The registers are the configuration space's own bytes; after each guest write that touches them the routes follow.
 */
export class MsiCapability {
  /** Where the capability lies in the configuration space. */
  readonly offset: number;
  readonly vectorCount: number;
  readonly #config: ConfigSpace;
  readonly #vectors: VectorSet;
  readonly #is64Bit: boolean;
  readonly #maskOffset: number | undefined;
  #control: number; // as last acted on

  /** @throws RangeError for a vector count MSI does not have, or when the capability does not fit. */
  constructor(options: MsiOptions) {
    const { config, vectorCount } = options;
    const log2 = [1, 2, 4, 8, 16, 32].indexOf(vectorCount);
    if (log2 < 0)
      throw new RangeError(`Cannot give ${config.name} ${vectorCount} MSI vectors: not 1, 2, 4, 8, 16 or 32`);
    const is64Bit = options.is64Bit ?? true;
    const hasMaskBits = options.hasMaskBits ?? true;
    const dataOffset = is64Bit ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32;
    this.#config = config;
    this.#is64Bit = is64Bit;
    this.vectorCount = vectorCount;
    this.#vectors = new VectorSet("msi", config.name, vectorCount, options.router, options.host);
    const sizeBytes = hasMaskBits ? dataOffset + 12 : dataOffset + 2;
    this.offset = config.addCapability(PCI_CAP_ID_MSI, new Uint8Array(sizeBytes - 2), options.at);

    const format = (is64Bit ? PCI_MSI_FLAGS_64BIT : 0) | (hasMaskBits ? PCI_MSI_FLAGS_MASKBIT : 0);
    config.set16(this.offset + PCI_MSI_FLAGS, format | (log2 << 1));
    config.allowWrites(this.offset + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
    config.allowWrites(this.offset + PCI_MSI_ADDRESS_LO, 4, 0xffff_fffc);
    if (is64Bit) config.allowWrites(this.offset + PCI_MSI_ADDRESS_HI, 4, 0xffff_ffff);
    config.allowWrites(this.offset + dataOffset, 2, 0xffff);
    if (hasMaskBits) {
      this.#maskOffset = this.offset + (is64Bit ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32);
      config.allowWrites(this.#maskOffset, 4, 0xffff_ffff >>> (32 - vectorCount));
      const pendingOffset = this.offset + (is64Bit ? PCI_MSI_PENDING_64 : PCI_MSI_PENDING_32);
      const read = (offset: number, width: Width): number => {
        const word = this.#vectors.pendingWord(0) >>> (8 * (offset - pendingOffset));
        return width === 4 ? word : word & (width === 2 ? 0xffff : 0xff);
      };
      config.overlay(pendingOffset, 4, { read, peek: (offset) => read(offset, 1) });
    }
    this.#control = config.get16(this.offset + PCI_MSI_FLAGS);
    config.onWrite(this.offset + PCI_MSI_FLAGS, sizeBytes - PCI_MSI_FLAGS, (at) => {
      const old = this.#control;
      this.#sync();
      const flagsAt = this.offset + PCI_MSI_FLAGS;
      if (this.#control !== old) options.controlChanged?.(old, this.#control);
      else if (this.isEnabled && at < flagsAt + 2) options.host?.controlRewritten?.("msi", flagsAt, this.#control);
    });
  }

  get isEnabled(): boolean {
    return this.#vectors.isEnabled;
  }

  /** How many messages the guest lets the function send: a power of two up to `vectorCount`. */
  get enabledCount(): number {
    const flags = this.#config.get16(this.offset + PCI_MSI_FLAGS);
    return Math.min(this.vectorCount, 1 << ((flags & PCI_MSI_FLAGS_QSIZE) >> QSIZE_SHIFT));
  }

  /**
   * Sends a message: at once, or at unmask while its bit masks it. Dropped while MSI is off or the guest enabled fewer.
   */
  signal(vector: number): void {
    if (vector < this.enabledCount) this.#vectors.signal(vector);
  }

  /** How its vectors are set up; plain data. */
  inspect(): VectorsInspection {
    return {
      isEnabled: this.isEnabled,
      count: this.vectorCount,
      vectors: this.isEnabled ? this.#vectors.inspect(this.#states()) : [],
    };
  }

  /** Disabled, one message, nothing masked or pending. */
  reset(): void {
    const config = this.#config;
    const flags = config.get16(this.offset + PCI_MSI_FLAGS);
    config.set16(this.offset + PCI_MSI_FLAGS, flags & ~(PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE));
    config.set32(this.offset + PCI_MSI_ADDRESS_LO, 0);
    if (this.#is64Bit) config.set32(this.offset + PCI_MSI_ADDRESS_HI, 0);
    config.set16(this.offset + (this.#is64Bit ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), 0);
    if (this.#maskOffset !== undefined) config.set32(this.#maskOffset, 0);
    this.#sync();
  }

  #sync(): void {
    const config = this.#config;
    this.#control = config.get16(this.offset + PCI_MSI_FLAGS);
    const isEnabled = (this.#control & PCI_MSI_FLAGS_ENABLE) !== 0;
    if (!isEnabled && !this.isEnabled) return;
    this.#vectors.sync(isEnabled, 0, this.vectorCount, this.#states(), this.enabledCount);
  }

  /** What the registers say of each vector. */
  #states(): (vector: number) => VectorState | undefined {
    const count = this.enabledCount;
    const masks = this.#maskOffset === undefined ? 0 : this.#config.get32(this.#maskOffset);
    const base = this.#message();
    return (vector) => {
      if (vector >= count) return undefined;
      // The function owns the low log2(count) bits of the data; what the guest wrote there is replaced.
      const data = (base.data & ~(count - 1)) | vector;
      return { message: { ...base, data }, isMasked: ((masks >>> vector) & 1) !== 0 };
    };
  }

  #message(): MsiMessage {
    return {
      addressLow: this.#config.get32(this.offset + PCI_MSI_ADDRESS_LO),
      addressHigh: this.#is64Bit ? this.#config.get32(this.offset + PCI_MSI_ADDRESS_HI) : 0,
      data: this.#config.get16(this.offset + (this.#is64Bit ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32)),
    };
  }
}
