import type { MsiRouter } from "../base/signals.ts";
import type { Width } from "../base/units.ts";
import type { ConfigSpace } from "./config-space.ts";
import type { BarIndex } from "./function.ts";
import {
  PCI_CAP_ID_MSIX,
  PCI_CAP_MSIX_SIZEOF,
  PCI_MSIX_ENTRY_CTRL_MASKBIT,
  PCI_MSIX_ENTRY_DATA,
  PCI_MSIX_ENTRY_LOWER_ADDR,
  PCI_MSIX_ENTRY_SIZE,
  PCI_MSIX_ENTRY_UPPER_ADDR,
  PCI_MSIX_ENTRY_VECTOR_CTRL,
  PCI_MSIX_FLAGS,
  PCI_MSIX_FLAGS_ENABLE,
  PCI_MSIX_FLAGS_MASKALL,
  PCI_MSIX_PBA,
  PCI_MSIX_TABLE,
} from "./ids.ts";
import { type VectorHost, VectorSet, type VectorState, type VectorsInspection } from "./vectors.ts";

/** A place in one of the function's BARs; the offset is a multiple of 8. */
export interface BarOffset {
  readonly bar: BarIndex;
  readonly offset: number;
}

/** How many vectors, where table and pending bits are, where the capability goes. */
export interface MsixOptions {
  readonly config: ConfigSpace;
  readonly router: MsiRouter;
  /** 1 to 2048. */
  readonly vectorCount: number;
  readonly table: BarOffset;
  readonly pba: BarOffset;
  /** Offset of the capability, to keep a real device's layout; anywhere when absent. */
  readonly at?: number;
  readonly host?: VectorHost;
  /** Called when a guest write changed the control word, after routes and host have followed. */
  readonly controlChanged?: (old: number, now: number) => void;
}

/** What is at an offset of the table, as text. PCI Local Bus 3.0 §6.8.2.6 to .9 */
export function nameTableEntry(offset: number): string {
  const fields = ["address", "upper address", "data", "vector control"];
  const field = fields[(offset % PCI_MSIX_ENTRY_SIZE) >>> 2];
  return `MSI-X entry ${Math.floor(offset / PCI_MSIX_ENTRY_SIZE)} ${field}`;
}

/**
 * MSI-X: a table of messages in a BAR, each with a mask bit, and an array of pending bits. PCI Local Bus 3.0 §6.8.2
 *
 * The function decodes its BAR. It hands accesses inside table and array to `readTable`, `writeTable` and `readPba`.
 * The control word is in the configuration space, and the routes follow it.
 */
export class MsixCapability {
  /** Where the capability lies in the configuration space. */
  readonly offset: number;
  readonly vectorCount: number;
  readonly table: BarOffset;
  readonly pba: BarOffset;
  readonly tableSizeBytes: number;
  /** A bit a vector, in whole quadwords. */
  readonly pbaSizeBytes: number;
  readonly #config: ConfigSpace;
  readonly #vectors: VectorSet;
  readonly #entries: DataView;
  #control: number; // as last acted on

  /**
   * @throws RangeError for a count MSI-X does not have, a place that is no multiple of 8, or when the capability does
   *   not fit.
   */
  constructor(options: MsixOptions) {
    const { config, vectorCount, table, pba } = options;
    if (!(Number.isInteger(vectorCount) && vectorCount >= 1 && vectorCount <= 2048)) {
      throw new RangeError(`Cannot give ${config.name} ${vectorCount} MSI-X vectors: not 1 to 2048`);
    }
    if (table.offset % 8 !== 0 || pba.offset % 8 !== 0) {
      throw new RangeError(`Cannot place the MSI-X table of ${config.name}: an offset is no multiple of 8`);
    }
    this.#config = config;
    this.vectorCount = vectorCount;
    this.table = table;
    this.pba = pba;
    this.tableSizeBytes = PCI_MSIX_ENTRY_SIZE * vectorCount;
    this.pbaSizeBytes = 8 * Math.ceil(vectorCount / 64);
    this.#entries = new DataView(new ArrayBuffer(this.tableSizeBytes));
    this.#vectors = new VectorSet("msix", config.name, vectorCount, options.router, options.host);
    this.offset = config.addCapability(PCI_CAP_ID_MSIX, new Uint8Array(PCI_CAP_MSIX_SIZEOF - 2), options.at);
    config.set16(this.offset + PCI_MSIX_FLAGS, vectorCount - 1);
    config.allowWrites(this.offset + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    config.set32(this.offset + PCI_MSIX_TABLE, table.offset + table.bar);
    config.set32(this.offset + PCI_MSIX_PBA, pba.offset + pba.bar);
    this.#control = config.get16(this.offset + PCI_MSIX_FLAGS);
    config.onWrite(this.offset + PCI_MSIX_FLAGS, 2, () => {
      const old = this.#control;
      this.#sync(0, vectorCount);
      const flagsAt = this.offset + PCI_MSIX_FLAGS;
      if (this.#control !== old) options.controlChanged?.(old, this.#control);
      else if (this.isEnabled) options.host?.controlRewritten?.("msix", flagsAt, this.#control);
    });
    this.#maskEntries();
  }

  get isEnabled(): boolean {
    return this.#vectors.isEnabled;
  }

  get isFunctionMasked(): boolean {
    return (this.#config.get16(this.offset + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_MASKALL) !== 0;
  }

  /**
   * Sends a vector's message: at once, or at unmask while the entry or the function is masked. Dropped while MSI-X is
   * off.
   */
  signal(vector: number): void {
    this.#vectors.signal(vector);
  }

  /** @param offset From the start of the table; zeroes beyond its end. */
  readTable(offset: number, width: Width): number {
    return gather(offset, width, (at) => (at < this.tableSizeBytes ? this.#entries.getUint8(at) : 0));
  }

  /** @param offset From the start of the table; any alignment, bytes beyond its end are dropped. */
  writeTable(offset: number, width: Width, value: number): void {
    for (let byte = 0; byte < width; byte++) {
      const at = offset + byte;
      if (at < 0 || at >= this.tableSizeBytes) continue;
      this.#entries.setUint8(at, (value >>> (8 * byte)) & writableBits(at % PCI_MSIX_ENTRY_SIZE));
    }
    const first = Math.max(0, Math.floor(offset / PCI_MSIX_ENTRY_SIZE));
    const end = Math.min(this.vectorCount, Math.floor((offset + width - 1) / PCI_MSIX_ENTRY_SIZE) + 1);
    this.#sync(first, end);
  }

  /**
   * @param offset From the start of the pending bits; zeroes beyond their end. Writes to them do nothing: drop them.
   */
  readPba(offset: number, width: Width): number {
    return gather(offset, width, (at) => (at < this.pbaSizeBytes ? this.#vectors.pendingWord(8 * at) & 0xff : 0));
  }

  /** How its vectors are set up; plain data. */
  inspect(): VectorsInspection {
    const isFunctionMasked = this.isFunctionMasked;
    const vectors = this.#vectors.inspect((vector) => this.#state(vector, isFunctionMasked));
    return { isEnabled: this.isEnabled, count: this.vectorCount, vectors };
  }

  /** Disabled, every entry masked and empty, nothing pending. */
  reset(): void {
    const control = this.#config.get16(this.offset + PCI_MSIX_FLAGS);
    const mask = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL;
    this.#config.set16(this.offset + PCI_MSIX_FLAGS, control & ~mask);
    new Uint8Array(this.#entries.buffer).fill(0);
    this.#maskEntries();
    this.#sync(0, this.vectorCount);
  }

  #maskEntries(): void {
    for (let vector = 0; vector < this.vectorCount; vector++) {
      const control = vector * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL;
      this.#entries.setUint32(control, PCI_MSIX_ENTRY_CTRL_MASKBIT, true);
    }
  }

  #sync(first: number, end: number): void {
    this.#control = this.#config.get16(this.offset + PCI_MSIX_FLAGS);
    const isEnabled = (this.#control & PCI_MSIX_FLAGS_ENABLE) !== 0;
    if (!isEnabled && !this.isEnabled) return;
    const isFunctionMasked = this.isFunctionMasked;
    this.#vectors.sync(isEnabled, first, end, (vector) => this.#state(vector, isFunctionMasked));
  }

  #state(vector: number, isFunctionMasked: boolean): VectorState {
    const entry = vector * PCI_MSIX_ENTRY_SIZE;
    const control = this.#entries.getUint32(entry + PCI_MSIX_ENTRY_VECTOR_CTRL, true);
    return {
      message: {
        addressLow: this.#entries.getUint32(entry + PCI_MSIX_ENTRY_LOWER_ADDR, true),
        addressHigh: this.#entries.getUint32(entry + PCI_MSIX_ENTRY_UPPER_ADDR, true),
        data: this.#entries.getUint32(entry + PCI_MSIX_ENTRY_DATA, true),
      },
      isMasked: isFunctionMasked || (control & PCI_MSIX_ENTRY_CTRL_MASKBIT) !== 0,
    };
  }
}

/**
 * Bits of a byte of an entry that can be set: addresses are dword-aligned, and of the control word only the mask bit
 * exists.
 */
function writableBits(byte: number): number {
  if (byte === PCI_MSIX_ENTRY_LOWER_ADDR) return 0xfc;
  if (byte === PCI_MSIX_ENTRY_VECTOR_CTRL) return PCI_MSIX_ENTRY_CTRL_MASKBIT;
  return byte > PCI_MSIX_ENTRY_VECTOR_CTRL ? 0 : 0xff;
}

function gather(offset: number, width: Width, byteAt: (offset: number) => number): number {
  let value = 0;
  for (let byte = 0; byte < width; byte++) if (offset + byte >= 0) value += byteAt(offset + byte) * 2 ** (8 * byte);
  return value;
}
