import type { HostSegment } from "../../../src/base/guest-memory.ts";
import { type Gpa, gpa } from "../../../src/base/units.ts";
import { FAKE_HOST_BASE, FakeGuestMemory } from "../../support/fake-memory.ts";

/** Where queues and buffers of the fuzzed guest are. Far from zero, so that a random address is hardly ever RAM. */
export const RAM_BASE = 0xab_cd00_0000;
export const RAM_BYTES: number = 1 << 20;
/** RAM that no address of the guest's names: it keeps what it has. It differs from {@link RAM_BASE} in four bytes. */
export const GUARD_BASE = 0x5e_1770_0000;
const GUARD_BYTES = 0x1000;
const GUARD_BYTE = 0x5a;

/** Descriptors remembered at most; an operation handles far fewer. */
const MAX_HANDED = 1 << 17;
/** Used rings remembered; a queue is enabled again with another one only after a reset. */
const MAX_USED_RINGS = 16;

interface Range {
  readonly start: number;
  readonly end: number;
}

/**
 * Guest RAM that records where devices may store. A range with the write flag counts from the moment that a device
 * loads its descriptor. A used ring counts from the moment that a device has checked the queue. A device's store
 * anywhere else is a violation. The loads and stores of devices are counted too: they measure the work that an access
 * causes.
 */
export class HandedMemory extends FakeGuestMemory {
  readonly violations: string[] = [];
  /** Loads and stores by devices since {@link startOperation}. */
  touches = 0;
  #handed: Range[] = [];
  #usedRings: Range[] = [];
  #questions: readonly Range[] = [];
  #lastLoad = -1;
  #words: readonly number[] = [];
  #isGuest = false;

  constructor() {
    super([
      { gpa: RAM_BASE, sizeBytes: RAM_BYTES },
      { gpa: GUARD_BASE, sizeBytes: GUARD_BYTES },
    ]);
    this.bytes(GUARD_BASE, GUARD_BYTES).fill(GUARD_BYTE);
  }

  /** A new operation of the guest begins. */
  startOperation(): void {
    this.touches = 0;
    if (this.#handed.length > MAX_HANDED) this.#handed = this.#handed.slice(-MAX_HANDED / 2);
  }

  /**
   * The driver has reset the device that uses this part of RAM. The device may no longer store to its rings. It may
   * store to buffers only if requests are under way.
   */
  takeBack(offset: number, sizeBytes: number, isBusy: boolean): void {
    const start = RAM_BASE + offset;
    const isLeft = (range: Range): boolean => range.end <= start || range.start >= start + sizeBytes;
    this.#usedRings = this.#usedRings.filter(isLeft);
    if (!isBusy) this.#handed = this.#handed.filter(isLeft);
  }

  /** The guest's own stores, which may go anywhere. */
  asGuest(work: () => void): void {
    this.#isGuest = true;
    try {
      work();
    } finally {
      this.#isGuest = false;
    }
  }

  isGuardIntact(): boolean {
    return this.bytes(GUARD_BASE, GUARD_BYTES).every((byte) => byte === GUARD_BYTE);
  }

  /** A backend is about to store through the host's address. */
  checkHostStore(segment: HostSegment): void {
    const offset = segment.address - FAKE_HOST_BASE;
    const isRam = offset >= 0 && offset + segment.sizeBytes <= RAM_BYTES;
    this.#store(isRam ? RAM_BASE + offset : offset, segment.sizeBytes);
  }

  override readU16(address: Gpa): number | undefined {
    this.touches++;
    return super.readU16(address);
  }

  override readU32(address: Gpa): number | undefined {
    this.touches++;
    const value = super.readU32(address);
    if (!this.#isGuest && value !== undefined) this.#noticeDescriptor(address, value);
    return value;
  }

  override writeU8(address: Gpa, value: number): boolean {
    this.#store(address, 1);
    return super.writeU8(address, value);
  }

  override writeU16(address: Gpa, value: number): boolean {
    this.#store(address, 2);
    return super.writeU16(address, value);
  }

  override writeU32(address: Gpa, value: number): boolean {
    this.#store(address, 4);
    return super.writeU32(address, value);
  }

  override writeU64(address: Gpa, value: number): boolean {
    this.#store(address, 8);
    return super.writeU64(address, value);
  }

  override write(address: Gpa, source: Uint8Array): boolean {
    this.#store(address, source.length);
    return super.write(address, source);
  }

  override fill(address: Gpa, sizeBytes: number): boolean {
    this.#store(address, sizeBytes);
    return super.fill(address, sizeBytes);
  }

  override contains(address: Gpa, sizeBytes: number): boolean {
    this.#questions = [...this.#questions.slice(-2), { start: address, end: address + sizeBytes }];
    this.#noticeQueue();
    return super.contains(address, sizeBytes);
  }

  /** Three questions whose sizes are those of one queue's parts: the third is its used ring. VIRTIO 1.2 §2.7 */
  #noticeQueue(): void {
    const [descriptors, available, used] = this.#questions;
    if (descriptors === undefined || available === undefined || used === undefined) return;
    const size = (descriptors.end - descriptors.start) / 16;
    if (available.end - available.start !== 6 + 2 * size || used.end - used.start !== 6 + 8 * size) return;
    this.#usedRings = [...this.#usedRings.slice(-MAX_USED_RINGS), used];
  }

  #store(address: number, sizeBytes: number): void {
    this.touches++;
    if (this.#isGuest || !super.contains(gpa(address), sizeBytes)) return; // what is not RAM is refused
    const end = address + sizeBytes;
    if (this.#usedRings.some((ring) => address >= ring.start && end <= ring.end)) return;
    for (let at = this.#handed.length - 1; at >= 0; at--) {
      const range = this.#handed[at];
      if (range !== undefined && address >= range.start && end <= range.end) return;
    }
    this.violations.push(
      `a device stored ${sizeBytes} bytes at 0x${address.toString(16)}, which no descriptor gave it`,
    );
  }

  /** Four loads of neighbouring words are a descriptor: address, size, flags and next. VIRTIO 1.2 §2.7.5 */
  #noticeDescriptor(address: number, value: number): void {
    this.#words = address === this.#lastLoad + 4 ? [...this.#words, value] : [value];
    this.#lastLoad = address;
    const [low = 0, high = 0, sizeBytes = 0, flags = 0] = this.#words;
    if (this.#words.length < 4) return;
    this.#words = [];
    if ((flags & 2) === 0) return;
    const start = high * 2 ** 32 + low;
    this.#handed.push({ start, end: start + sizeBytes });
  }
}
