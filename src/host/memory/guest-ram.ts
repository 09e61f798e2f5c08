import { HostError } from "../../base/errors.ts";
import type { GuestMemory, RamRegion } from "../../base/guest-memory.ts";
import {
  type Fd,
  fd,
  GIB,
  type Gpa,
  gpa,
  type Hva,
  hex,
  highHalf,
  hva,
  KIB,
  lowHalf,
  u64FromHalves,
} from "../../base/units.ts";
import { check, ERRNO } from "../errors.ts";
import { IovecArray } from "../iovec.ts";
import { libc, MAX_VIEW_SIZE } from "../libc.ts";
import type { HostMapping } from "./mapping.ts";
import { checkRegions, type GuestRamOptions, makeRamFile, ramFileSize } from "./ram-file.ts";

/** RAM that is mapped already: what a worker needs to use it. Plain data. */
export interface GuestRamAttachment {
  readonly address: Hva;
  readonly regions: readonly RamRegion[];
  /** The memfd, to be handed to other processes; the maker of the RAM keeps it open. */
  readonly file: Fd;
}

/**
 * A piece of the mapping as typed arrays of each width over the same bytes: an element of them is one load or store.
 */
interface Piece {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
}

/** What fills memory, a stretch at a time. */
const ZEROES: Uint8Array = new Uint8Array(64 * KIB);

const NOWHERE: RamRegion = { gpa: gpa(0), sizeBytes: -1, fileOffset: 0 };

/**
 * Place in its piece of an offset in the file; below 2^32, so bit operators may be used on it. `%` would be a call of
 * fmod.
 */
const inPiece = (offset: number): number =>
  offset < MAX_VIEW_SIZE ? offset : offset - Math.floor(offset / MAX_VIEW_SIZE) * MAX_VIEW_SIZE;

/**
 * Guest RAM: a memfd mapped shared, once, as a whole; the file's bytes lie in the order of the regions' file offsets.
 *
 * Views are created lazily, one per 4 GiB, by the first scalar access or `read`; `readFile`, `write` and `fill` need
 * none. V8 counts a view as external memory and may collect garbage for it. So only the device thread should use the
 * accessors.
 */
export class GuestRam implements GuestMemory, Disposable {
  readonly hostBase: Hva;
  readonly sizeBytes: number;
  readonly #fileBytes: number;
  readonly #mapping: HostMapping | undefined;
  readonly #pieces: (Piece | undefined)[] = [];
  readonly #fence: Int32Array = new Int32Array(new SharedArrayBuffer(4));
  readonly #iovec: IovecArray = new IovecArray(1);
  #regions: readonly RamRegion[];
  #last: RamRegion = NOWHERE; // accesses come in runs in one region
  #fd: number;

  private constructor(regions: readonly RamRegion[], base: Hva, file: number, mapping: HostMapping | undefined) {
    this.#regions = regions;
    this.hostBase = base;
    this.#fd = file;
    this.#mapping = mapping;
    this.sizeBytes = regions.reduce((sum, region) => sum + region.sizeBytes, 0);
    this.#fileBytes = ramFileSize(regions);
  }

  /**
   * Makes and maps the RAM file.
   *
   * @throws SyscallError with advice, for example when the host has too few huge pages.
   * @throws RangeError when regions overlap.
   */
  static create(options: GuestRamOptions): GuestRam {
    const { file, mapping } = makeRamFile(options);
    return new GuestRam(options.regions, mapping.address, file, mapping);
  }

  /**
   * Uses RAM that another thread of this process made with {@link create} and keeps until this one is done:
   * {@link close} only forgets it.
   */
  static attach(attachment: GuestRamAttachment): GuestRam {
    checkRegions(attachment.regions);
    return new GuestRam(attachment.regions, attachment.address, attachment.file, undefined);
  }

  /** What another thread gives to {@link attach}. */
  get attachment(): GuestRamAttachment {
    return { address: this.hostBase, regions: this.#regions, file: this.fd };
  }

  get regions(): readonly RamRegion[] {
    return this.#regions;
  }

  /** The memfd; -1 when closed. Only the object that made it closes it. */
  get fd(): Fd {
    return fd(this.#fd);
  }

  readU8(address: Gpa): number | undefined {
    const offset = this.#offset(address, 1);
    return offset < 0 ? undefined : this.#pieceOf(offset).u8[inPiece(offset)];
  }

  readU16(address: Gpa): number | undefined {
    const offset = this.#offset(address, 2);
    if (offset < 0) return undefined;
    if ((inPiece(offset) & 1) === 0) return this.#pieceOf(offset).u16[inPiece(offset) >>> 1];
    return this.#byte(offset) + this.#byte(offset + 1) * 0x100;
  }

  readU32(address: Gpa): number | undefined {
    const offset = this.#offset(address, 4);
    return offset < 0 ? undefined : this.#loadU32(offset);
  }

  readU64(address: Gpa): number | undefined {
    const offset = this.#offset(address, 8);
    return offset < 0 ? undefined : u64FromHalves(this.#loadU32(offset), this.#loadU32(offset + 4));
  }

  writeU8(address: Gpa, value: number): boolean {
    const offset = this.#offset(address, 1);
    if (offset < 0) return false;
    this.#pieceOf(offset).u8[inPiece(offset)] = value;
    return true;
  }

  writeU16(address: Gpa, value: number): boolean {
    const offset = this.#offset(address, 2);
    if (offset < 0) return false;
    if ((inPiece(offset) & 1) === 0) this.#pieceOf(offset).u16[inPiece(offset) >>> 1] = value;
    else this.#storeBytes(offset, value, 2);
    return true;
  }

  writeU32(address: Gpa, value: number): boolean {
    const offset = this.#offset(address, 4);
    if (offset < 0) return false;
    this.#storeU32(offset, value);
    return true;
  }

  /** Two stores of four bytes, the low half first. */
  writeU64(address: Gpa, value: number): boolean {
    const offset = this.#offset(address, 8);
    if (offset < 0) return false;
    this.#storeU32(offset, lowHalf(value));
    this.#storeU32(offset + 4, highHalf(value));
    return true;
  }

  read(address: Gpa, target: Uint8Array): boolean {
    let offset = this.#offset(address, target.length);
    if (offset < 0) return false;
    for (let done = 0; done < target.length; ) {
      const start = inPiece(offset);
      const count = Math.min(target.length - done, MAX_VIEW_SIZE - start);
      target.set(this.#pieceOf(offset).u8.subarray(start, start + count), done);
      offset += count;
      done += count;
    }
    return true;
  }

  write(address: Gpa, source: Uint8Array): boolean {
    let offset = this.#offset(address, source.length);
    if (offset < 0) return false;
    for (let done = 0; done < source.length; ) {
      const start = inPiece(offset);
      const count = Math.min(source.length - done, MAX_VIEW_SIZE - start);
      this.#copyIn(offset, source.subarray(done, done + count));
      offset += count;
      done += count;
    }
    return true;
  }

  fill(address: Gpa, sizeBytes: number): boolean {
    let offset = this.#offset(address, sizeBytes);
    if (offset < 0) return false;
    for (let left = sizeBytes; left > 0; ) {
      const start = inPiece(offset);
      const count = Math.min(left, MAX_VIEW_SIZE - start, ZEROES.length);
      this.#copyIn(offset, ZEROES.subarray(0, count));
      offset += count;
      left -= count;
    }
    return true;
  }

  hostAddress(address: Gpa, sizeBytes: number): Hva | undefined {
    const offset = this.#offset(address, sizeBytes);
    return offset < 0 ? undefined : hva(this.hostBase + offset);
  }

  contains(address: Gpa, sizeBytes: number): boolean {
    return this.#offset(address, sizeBytes) >= 0;
  }

  fence(): void {
    Atomics.add(this.#fence, 0, 1); // a locked instruction, which is a full fence on x86
  }

  /**
   * Reads a file straight into guest RAM, without a buffer between.
   *
   * @returns False when the range is not RAM of one region; nothing was read then.
   * @throws SyscallError when reading fails; HostError when the file ends early.
   */
  readFile(file: Fd, fileOffset: number, address: Gpa, sizeBytes: number): boolean {
    const target = this.hostAddress(address, sizeBytes);
    if (target === undefined) return false;
    for (let done = 0; done < sizeBytes; ) {
      this.#iovec.set(0, target + done, Math.min(sizeBytes - done, GIB));
      const count = libc.preadv(file, this.#iovec.bytes, 1, fileOffset + done);
      if (count < 0 && libc.errno() === ERRNO.EINTR) continue;
      check(
        count,
        `read ${hex(sizeBytes)} bytes at ${hex(fileOffset)} into guest RAM`,
        "preadv",
        "TSVMM_FILE_UNREADABLE",
      );
      if (count === 0) {
        throw new HostError(
          "TSVMM_FILE_UNREADABLE",
          `Cannot read ${hex(sizeBytes)} bytes at ${hex(fileOffset)}: the file ends after ${hex(done)}`,
        );
      }
      done += count;
    }
    return true;
  }

  /** Unmaps the memory and closes the file, if this object made them. Every range is no RAM from then on. */
  close(): void {
    this.#regions = [];
    this.#last = NOWHERE;
    this.#pieces.length = 0;
    this.#mapping?.unmap();
    if (this.#mapping !== undefined && this.#fd >= 0) libc.close(this.#fd);
    this.#fd = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Offset in the file, or -1 unless the whole range is RAM of one region. */
  #offset(address: number, sizeBytes: number): number {
    const last = this.#last;
    const offset = address - last.gpa;
    if (offset >= 0 && offset + sizeBytes <= last.sizeBytes) return last.fileOffset + offset;
    for (const region of this.#regions) {
      const within = address - region.gpa;
      if (within < 0 || within + sizeBytes > region.sizeBytes) continue;
      this.#last = region;
      return region.fileOffset + within;
    }
    return -1;
  }

  /**
   * Copies bytes that lie in one piece. Without a view of it yet, past V8: a machine's start writes tables, and should
   * not pay for a view.
   */
  #copyIn(offset: number, source: Uint8Array): void {
    const piece = this.#pieces[Math.floor(offset / MAX_VIEW_SIZE)];
    if (piece !== undefined) piece.u8.set(source, inPiece(offset));
    else if (source.length > 0) libc.memcpy(this.hostBase + offset, libc.addressOf(source), source.length);
  }

  #pieceOf(offset: number): Piece {
    const index = offset < MAX_VIEW_SIZE ? 0 : Math.floor(offset / MAX_VIEW_SIZE);
    return this.#pieces[index] ?? this.#makePiece(index);
  }

  #makePiece(index: number): Piece {
    const start = index * MAX_VIEW_SIZE;
    const buffer = libc.view(this.hostBase + start, Math.min(MAX_VIEW_SIZE, this.#fileBytes - start));
    const piece = { u8: new Uint8Array(buffer), u16: new Uint16Array(buffer), u32: new Uint32Array(buffer) };
    this.#pieces[index] = piece;
    return piece;
  }

  #byte(offset: number): number {
    return this.#pieceOf(offset).u8[inPiece(offset)] ?? 0;
  }

  #loadU32(offset: number): number {
    if ((inPiece(offset) & 3) === 0) return this.#pieceOf(offset).u32[inPiece(offset) >>> 2] ?? 0;
    let value = 0;
    for (let byte = 0; byte < 4; byte++) value += this.#byte(offset + byte) * 2 ** (8 * byte);
    return value;
  }

  #storeU32(offset: number, value: number): void {
    if ((inPiece(offset) & 3) === 0) this.#pieceOf(offset).u32[inPiece(offset) >>> 2] = value;
    else this.#storeBytes(offset, value, 4);
  }

  #storeBytes(offset: number, value: number, count: number): void {
    for (let byte = 0; byte < count; byte++) {
      this.#pieceOf(offset + byte).u8[inPiece(offset + byte)] = value >>> (8 * byte);
    }
  }
}
