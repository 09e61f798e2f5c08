import type { GuestMemory, HostSegment, RamRegion } from "../../src/base/guest-memory.ts";
import { type Gpa, gpa, type Hva, highHalf, hva, lowHalf, u64FromHalves } from "../../src/base/units.ts";

/** Where the fake's RAM file pretends to be mapped in this process. */
export const FAKE_HOST_BASE = 0x7000_0000_0000;

/**
 * Guest RAM in a plain array. Regions lie one after another in it; `hostAddress` answers {@link FAKE_HOST_BASE} plus
 * the offset in the array, and {@link atHost} goes the other way, so that fake backends can do their transfers.
 */
export class FakeGuestMemory implements GuestMemory {
  readonly regions: readonly RamRegion[];
  readonly sizeBytes: number;
  /**
   * Called before every load that succeeds: lets a test count them, or play a guest that changes memory between two
   * loads.
   */
  onLoad: ((address: number, sizeBytes: number) => void) | undefined;
  /** Called at every fence: where a test plays the guest that runs at the worst moment. */
  onFence: (() => void) | undefined;
  readonly #bytes: Uint8Array;
  readonly #hostBase: number;
  readonly #view: DataView;

  /**
   * @param regions Sizes in bytes, addresses guest-physical; by default 1 MiB at 0.
   * @param host Memory of this process and its address, for backends that make system calls; by default an address
   *   without memory.
   */
  constructor(
    regions: readonly { readonly gpa: number; readonly sizeBytes: number }[] = [{ gpa: 0, sizeBytes: 1 << 20 }],
    host?: { readonly bytes: Uint8Array; readonly address: number },
  ) {
    let fileOffset = 0;
    const placed: RamRegion[] = [];
    for (const region of regions) {
      placed.push({ gpa: gpa(region.gpa), sizeBytes: region.sizeBytes, fileOffset });
      fileOffset += region.sizeBytes;
    }
    this.regions = placed;
    this.sizeBytes = fileOffset;
    this.#bytes = host?.bytes ?? new Uint8Array(fileOffset);
    this.#hostBase = host?.address ?? FAKE_HOST_BASE;
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, fileOffset);
  }

  /** The bytes of a range, shared, not copied. @throws RangeError when it is not RAM: the test is wrong. */
  bytes(address: number, sizeBytes: number): Uint8Array {
    const offset = this.#offset(address, sizeBytes);
    if (offset === undefined) throw new RangeError(`No fake RAM at ${address}, ${sizeBytes} bytes`);
    return this.#bytes.subarray(offset, offset + sizeBytes);
  }

  /** The bytes a host segment names, shared, not copied. @throws RangeError when it reaches outside the fake's RAM. */
  atHost(segment: HostSegment): Uint8Array {
    const offset = segment.address - this.#hostBase;
    if (!(offset >= 0) || offset + segment.sizeBytes > this.sizeBytes) throw new RangeError("No fake RAM there");
    return this.#bytes.subarray(offset, offset + segment.sizeBytes);
  }

  readU8(address: Gpa): number | undefined {
    const offset = this.#load(address, 1);
    return offset === undefined ? undefined : this.#view.getUint8(offset);
  }

  readU16(address: Gpa): number | undefined {
    const offset = this.#load(address, 2);
    return offset === undefined ? undefined : this.#view.getUint16(offset, true);
  }

  readU32(address: Gpa): number | undefined {
    const offset = this.#load(address, 4);
    return offset === undefined ? undefined : this.#view.getUint32(offset, true);
  }

  readU64(address: Gpa): number | undefined {
    const offset = this.#load(address, 8);
    if (offset === undefined) return undefined;
    return u64FromHalves(this.#view.getUint32(offset, true), this.#view.getUint32(offset + 4, true));
  }

  writeU8(address: Gpa, value: number): boolean {
    const offset = this.#offset(address, 1);
    if (offset === undefined) return false;
    this.#view.setUint8(offset, value);
    return true;
  }

  writeU16(address: Gpa, value: number): boolean {
    const offset = this.#offset(address, 2);
    if (offset === undefined) return false;
    this.#view.setUint16(offset, value, true);
    return true;
  }

  writeU32(address: Gpa, value: number): boolean {
    const offset = this.#offset(address, 4);
    if (offset === undefined) return false;
    this.#view.setUint32(offset, value, true);
    return true;
  }

  writeU64(address: Gpa, value: number): boolean {
    const offset = this.#offset(address, 8);
    if (offset === undefined) return false;
    this.#view.setUint32(offset, lowHalf(value), true);
    this.#view.setUint32(offset + 4, highHalf(value), true);
    return true;
  }

  read(address: Gpa, target: Uint8Array): boolean {
    const offset = this.#load(address, target.length);
    if (offset === undefined) return false;
    target.set(this.#bytes.subarray(offset, offset + target.length));
    return true;
  }

  write(address: Gpa, source: Uint8Array): boolean {
    const offset = this.#offset(address, source.length);
    if (offset === undefined) return false;
    this.#bytes.set(source, offset);
    return true;
  }

  fill(address: Gpa, sizeBytes: number): boolean {
    const offset = this.#offset(address, sizeBytes);
    if (offset === undefined) return false;
    this.#bytes.fill(0, offset, offset + sizeBytes);
    return true;
  }

  hostAddress(address: Gpa, sizeBytes: number): Hva | undefined {
    const offset = this.#offset(address, sizeBytes);
    return offset === undefined ? undefined : hva(this.#hostBase + offset);
  }

  contains(address: Gpa, sizeBytes: number): boolean {
    return this.#offset(address, sizeBytes) !== undefined;
  }

  fence(): void {
    this.onFence?.();
  }

  #load(address: number, sizeBytes: number): number | undefined {
    const offset = this.#offset(address, sizeBytes);
    if (offset !== undefined) this.onLoad?.(address, sizeBytes);
    return offset;
  }

  /** Offset in the array; `undefined` unless the whole range lies in one region. */
  #offset(address: number, sizeBytes: number): number | undefined {
    if (!(address >= 0) || !(sizeBytes >= 0)) return undefined;
    for (const region of this.regions) {
      const offset = address - region.gpa;
      if (offset >= 0 && offset + sizeBytes <= region.sizeBytes) return region.fileOffset + offset;
    }
    return undefined;
  }
}
