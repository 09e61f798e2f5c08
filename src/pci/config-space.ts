import type { BusDevice } from "../base/bus.ts";
import { alignUp, allOnes, hex, type Width } from "../base/units.ts";
import {
  PCI_CACHE_LINE_SIZE,
  PCI_CAPABILITY_LIST,
  PCI_CFG_SPACE_SIZE,
  PCI_CLASS_REVISION,
  PCI_COMMAND,
  PCI_DEVICE_ID,
  PCI_HEADER_TYPE,
  PCI_HEADER_TYPE_MFD,
  PCI_INTERRUPT_LINE,
  PCI_INTERRUPT_PIN,
  PCI_LATENCY_TIMER,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_STD_HEADER_SIZEOF,
  PCI_SUBSYSTEM_ID,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
} from "./ids.ts";

/** What a function says it is. PCI Local Bus 3.0 §6.2.1 */
export interface PciIdentity {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision: number;
  /** 24 bits: base class, sub-class, programming interface; 0x010802 for NVMe. */
  readonly classCode: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
  /** Layout of the header, without the multifunction bit; 0 when absent. */
  readonly headerType?: number;
  /** 1 to 4 for INTA to INTD; 0, also when absent, for a function without a pin. */
  readonly interruptPin?: number;
}

/** Bytes that live elsewhere. Offsets are from the start of the configuration space. */
export interface ConfigOverlay {
  /** Answers guest reads; without it they come from the space's own bytes. */
  readonly read?: (offset: number, width: Width) => number;
  /**
   * The byte at an offset as the guest would read it, or read it last; without any effect. Without it, the space's own.
   */
  readonly peek?: (offset: number) => number;
  /** Takes guest writes instead of the space's own bytes; without it these take them under their masks. */
  readonly write?: (offset: number, width: Width, value: number) => void;
}

interface Observer {
  readonly start: number;
  readonly end: number;
  readonly callback: (offset: number, width: Width) => void;
}

/**
 * IO, MEMORY, MASTER, PARITY, SERR, INTX_DISABLE: what a PCI Express endpoint lets software set. PCI Express Base 3.0
 * §7.5.1.1
 */
const COMMAND_WRITABLE = 0x0547;
/** The error bits of the status register, cleared by writing one. PCI Local Bus 3.0 §6.2.3 */
const STATUS_CLEARED_BY_ONE = 0xf900;
/** A list longer than this has a loop: 48 capabilities of one dword fill the space. */
const MAX_CAPABILITIES = 48;
const EXTENDED_START = PCI_CFG_SPACE_SIZE;
const MAX_EXTENDED_CAPABILITIES = 960;

/**
 * Configuration space of one function: bytes, and which of their bits the guest may change.
 *
 * `read` and `write` are the guest's side: any width at any offset, never an exception; beyond the end reads give ones
 * and writes are dropped. `get…` and `set…` are the device's side: they see the space's own bytes, past masks, overlays
 * and observers. A new space has the rules of a type 0 header built in and is otherwise read-only zeroes. Device thread
 * only.
 */
export class ConfigSpace implements BusDevice {
  readonly name: string;
  readonly sizeBytes: 256 | 4096;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #writable: Uint8Array;
  readonly #clearedByOne: Uint8Array;
  readonly #claimed: Uint8Array; // 1 where the header or a capability is
  readonly #overlays: (ConfigOverlay | undefined)[];
  readonly #observers: Observer[] = [];
  #powerOn: Uint8Array | undefined;

  constructor(name: string, sizeBytes: 256 | 4096) {
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.#bytes = new Uint8Array(sizeBytes);
    this.#view = new DataView(this.#bytes.buffer);
    this.#writable = new Uint8Array(sizeBytes);
    this.#clearedByOne = new Uint8Array(sizeBytes);
    this.#claimed = new Uint8Array(sizeBytes).fill(1, 0, PCI_STD_HEADER_SIZEOF);
    this.#overlays = new Array(sizeBytes).fill(undefined);
    this.allowWrites(PCI_COMMAND, 2, COMMAND_WRITABLE);
    this.clearOnWrite(PCI_STATUS, 2, STATUS_CLEARED_BY_ONE);
    this.allowWrites(PCI_CACHE_LINE_SIZE, 1, 0xff);
    this.allowWrites(PCI_LATENCY_TIMER, 1, 0xff);
    this.allowWrites(PCI_INTERRUPT_LINE, 1, 0xff);
  }

  // The guest's side

  read(offset: number, width: Width): number {
    let value = 0;
    for (let byte = 0; byte < width; ) {
      const at = offset + byte;
      const overlay = this.#overlays[at];
      const answer = overlay?.read;
      const count = answer === undefined ? 1 : this.#pieceWidth(overlay, at, byte, width);
      const piece = answer === undefined ? (this.#bytes[at] ?? 0xff) : answer(at, count) & allOnes(count);
      value += (piece >>> 0) * 2 ** (8 * byte);
      byte += count;
    }
    return value;
  }

  write(offset: number, width: Width, value: number): void {
    for (let byte = 0; byte < width; ) {
      const at = offset + byte;
      const overlay = this.#overlays[at];
      const take = overlay?.write;
      const count = take === undefined ? 1 : this.#pieceWidth(overlay, at, byte, width);
      const piece = ((value >>> (8 * byte)) & allOnes(count)) >>> 0;
      if (take !== undefined) take(at, count, piece);
      else this.#mergeByte(at, piece);
      byte += count;
    }
    // A copy: an observer may add observers.
    for (const { start, end, callback } of [...this.#observers]) {
      if (offset < end && offset + width > start) callback(offset, width);
    }
  }

  // The device's side

  get8(offset: number): number {
    return this.#view.getUint8(offset);
  }

  get16(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  get32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  set8(offset: number, value: number): void {
    this.#view.setUint8(offset, value);
  }

  set16(offset: number, value: number): void {
    this.#view.setUint16(offset, value, true);
  }

  set32(offset: number, value: number): void {
    this.#view.setUint32(offset, value, true);
  }

  /** Sets which bits of a field the guest may change: those in `mask`, no others. */
  allowWrites(offset: number, width: Width, mask: number): void {
    this.#setMask(this.#writable, offset, width, mask);
  }

  /** Sets which bits of a field the guest clears by writing ones. */
  clearOnWrite(offset: number, width: Width, mask: number): void {
    this.#setMask(this.#clearedByOne, offset, width, mask);
  }

  /**
   * Calls `callback` once after each guest write that overlaps the range, with the write's own offset and width, when
   * the bytes are merged. Observers run in registration order, `"first"` ones before all others. PciRoot's first
   * observer unmaps moved BARs, its last maps them again. A function's own observer therefore runs while none of them
   * is mapped.
   */
  onWrite(
    offset: number,
    length: number,
    callback: (offset: number, width: Width) => void,
    order: "first" | "later" = "later",
  ): void {
    const observer: Observer = { start: offset, end: offset + length, callback };
    if (order === "first") this.#observers.unshift(observer);
    else this.#observers.push(observer);
  }

  /**
   * Puts bytes that live elsewhere over a range. Accesses are split at its borders; inside they keep the guest's width.
   *
   * @throws RangeError when the range leaves the space or another overlay is there.
   */
  overlay(offset: number, length: number, overlay: ConfigOverlay): void {
    this.#mustFit(offset, length);
    for (let at = offset; at < offset + length; at++) {
      if (this.#overlays[at] !== undefined) {
        throw new RangeError(`Cannot overlay ${this.name} at ${hex(offset)}: another overlay is at ${hex(at)}`);
      }
    }
    this.#overlays.fill(overlay, offset, offset + length);
  }

  /** Writes the identity into the header; the multifunction bit stays. */
  setIdentity(identity: PciIdentity): void {
    this.set16(PCI_VENDOR_ID, identity.vendorId);
    this.set16(PCI_DEVICE_ID, identity.deviceId);
    this.set32(PCI_CLASS_REVISION, ((identity.classCode << 8) | (identity.revision & 0xff)) >>> 0);
    const multifunction = this.get8(PCI_HEADER_TYPE) & PCI_HEADER_TYPE_MFD;
    this.set8(PCI_HEADER_TYPE, multifunction | (identity.headerType ?? 0));
    this.set16(PCI_SUBSYSTEM_VENDOR_ID, identity.subsystemVendorId);
    this.set16(PCI_SUBSYSTEM_ID, identity.subsystemId);
    this.set8(PCI_INTERRUPT_PIN, identity.interruptPin ?? 0);
  }

  /** Whether other functions share the slot: bit 7 of the header type. */
  get isMultifunction(): boolean {
    return (this.get8(PCI_HEADER_TYPE) & PCI_HEADER_TYPE_MFD) !== 0;
  }

  set isMultifunction(isMultifunction: boolean) {
    const layout = this.get8(PCI_HEADER_TYPE) & ~PCI_HEADER_TYPE_MFD;
    this.set8(PCI_HEADER_TYPE, isMultifunction ? layout | PCI_HEADER_TYPE_MFD : layout);
  }

  /**
   * Adds a capability at the end of the list. PCI Local Bus 3.0 §6.7
   *
   * @param body What follows the id and the next pointer.
   * @param at Where it must be, a multiple of 4; the first free room from 0x40 when absent.
   * @returns Offset of its id byte.
   * @throws RangeError when there is no room (or `at` is taken, unaligned or outside 0x40 to 0xff).
   */
  addCapability(id: number, body: Uint8Array, at?: number): number {
    const sizeBytes = 2 + body.length;
    const offset = this.#claim(`capability ${hex(id)}`, sizeBytes, PCI_STD_HEADER_SIZEOF, PCI_CFG_SPACE_SIZE, at);
    this.#bytes[offset] = id;
    this.#bytes[offset + 1] = 0;
    this.#bytes.set(body, offset + 2);
    const last = this.capabilities().at(-1);
    this.set8(last === undefined ? PCI_CAPABILITY_LIST : last + 1, offset);
    this.set16(PCI_STATUS, this.get16(PCI_STATUS) | PCI_STATUS_CAP_LIST);
    return offset;
  }

  /**
   * Adds an extended capability. PCI Express Base 3.0 §7.9
   *
   * The list starts at 0x100: when the first one added lies elsewhere, a null capability there leads to it.
   *
   * @param body What follows the header dword.
   * @param at Where it must be, a multiple of 4; the first free room from 0x100 when absent.
   * @returns Offset of its header.
   * @throws RangeError when there is no room, `at` is taken or unaligned, or the space has 256 bytes.
   */
  addExtendedCapability(id: number, version: number, body: Uint8Array, at?: number): number {
    const sizeBytes = 4 + body.length;
    const offset = this.#claim(`extended capability ${hex(id)}`, sizeBytes, EXTENDED_START, this.sizeBytes, at);
    // Nothing leads to 0x100: it is where every walk starts, and a null header there may lead on already.
    const next = offset === EXTENDED_START ? this.get32(EXTENDED_START) >>> 20 : 0;
    if (offset !== EXTENDED_START) {
      const last = this.extendedCapabilities().at(-1) ?? EXTENDED_START;
      this.set32(last, ((this.get32(last) & 0x000f_ffff) | (offset << 20)) >>> 0);
    }
    this.set32(offset, ((id & 0xffff) | ((version & 0xf) << 16) | (next << 20)) >>> 0);
    this.#bytes.set(body, offset + 4);
    return offset;
  }

  /** Offset of the first capability of that id, `undefined` when there is none. */
  findCapability(id: number): number | undefined {
    return this.capabilities().find((offset) => this.get8(offset) === id);
  }

  /** Offset of the first extended capability of that id, `undefined` when there is none. */
  findExtendedCapability(id: number): number | undefined {
    return this.extendedCapabilities().find((offset) => this.get16(offset) === id);
  }

  /** Where capabilities begin, in the order of their list. */
  capabilities(): readonly number[] {
    const offsets: number[] = [];
    let offset = this.get8(PCI_CAPABILITY_LIST) & 0xfc;
    while (offset >= PCI_STD_HEADER_SIZEOF && offsets.length < MAX_CAPABILITIES) {
      offsets.push(offset);
      offset = this.get8(offset + 1) & 0xfc;
    }
    return offsets;
  }

  /** The same of extended capabilities; none in a space of 256 bytes. */
  extendedCapabilities(): readonly number[] {
    const offsets: number[] = [];
    if (this.sizeBytes === PCI_CFG_SPACE_SIZE || this.get32(EXTENDED_START) === 0) return offsets;
    let offset = EXTENDED_START;
    while (offset >= EXTENDED_START && offsets.length < MAX_EXTENDED_CAPABILITIES) {
      offsets.push(offset);
      offset = (this.get32(offset) >>> 20) & 0xffc;
    }
    return offsets;
  }

  /** Remembers the state after power-on, for {@link restore}. The root calls it when the function is plugged. */
  capture(): void {
    this.#powerOn = this.#bytes.slice();
  }

  /**
   * Puts every bit that the guest could change back to what {@link capture} saw. Observers and overlays hear nothing.
   */
  restore(): void {
    this.#powerOn?.forEach((value, at) => {
      const mask = (this.#writable[at] ?? 0) | (this.#clearedByOne[at] ?? 0);
      this.#bytes[at] = ((this.#bytes[at] ?? 0) & ~mask) | (value & mask);
    });
  }

  /** A copy of the bytes as the guest would read them, overlays included. */
  image(): Uint8Array {
    const image = new Uint8Array(this.sizeBytes);
    const view = new DataView(image.buffer);
    for (let at = 0; at < this.sizeBytes; at += 4) view.setUint32(at, this.read(at, 4), true);
    return image;
  }

  /**
   * A copy of the bytes as the guest has last read them, without any effect on the device. Registers of a device are
   * not read again; a window to other registers shows nothing.
   */
  peek(): Uint8Array {
    return this.#bytes.map((byte, at) => this.#overlays[at]?.peek?.(at) ?? byte);
  }

  /**
   * How many bytes from `at` go to the overlay in one call: the whole access if it lies inside, else aligned pieces.
   */
  #pieceWidth(overlay: ConfigOverlay | undefined, at: number, byte: number, width: Width): Width {
    const isInside = (count: number): boolean => {
      for (let i = 1; i < count; i++) if (this.#overlays[at + i] !== overlay) return false;
      return true;
    };
    if (byte === 0 && isInside(width)) return width;
    return at % 2 === 0 && byte + 2 <= width && isInside(2) ? 2 : 1;
  }

  #mergeByte(at: number, value: number): void {
    const old = this.#bytes[at];
    if (old === undefined) return; // beyond the end
    const writable = this.#writable[at] ?? 0;
    const cleared = (this.#clearedByOne[at] ?? 0) & value;
    this.#bytes[at] = ((old & ~writable) | (value & writable)) & ~cleared;
  }

  #setMask(masks: Uint8Array, offset: number, width: Width, mask: number): void {
    this.#mustFit(offset, width);
    for (let byte = 0; byte < width; byte++) masks[offset + byte] = (mask >>> (8 * byte)) & 0xff;
  }

  #mustFit(offset: number, length: number): void {
    if (offset >= 0 && length > 0 && offset + length <= this.sizeBytes) return;
    throw new RangeError(`Cannot reach ${hex(offset)}+${hex(length)} in ${this.name}: it has ${this.sizeBytes} bytes`);
  }

  /** Finds room of whole dwords for a capability and takes it. */
  #claim(what: string, sizeBytes: number, start: number, end: number, at: number | undefined): number {
    const room = alignUp(sizeBytes, 4);
    const isFree = (offset: number): boolean =>
      offset >= start && offset + room <= end && !this.#claimed.subarray(offset, offset + room).includes(1);
    let offset = at ?? start;
    if (at === undefined) while (offset < end && !isFree(offset)) offset += 4;
    if (offset % 4 !== 0 || !isFree(offset)) {
      const where = at === undefined ? "" : ` at ${hex(at)}`;
      throw new RangeError(`Cannot add ${what} to ${this.name}${where}: no room for ${sizeBytes} bytes`);
    }
    this.#claimed.fill(1, offset, offset + room);
    return offset;
  }
}
