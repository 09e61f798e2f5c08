import type { Gpa, Hva } from "./units.ts";

/** A stretch of guest-physical addresses backed by RAM, one after another in the RAM file. */
export interface RamRegion {
  readonly gpa: Gpa;
  readonly sizeBytes: number;
  /** Where its first byte lies in the RAM file, in bytes. */
  readonly fileOffset: number;
}

/** A contiguous piece of this process's memory, as preadv and pwritev take it. */
export interface HostSegment {
  readonly address: Hva;
  readonly sizeBytes: number;
}

/**
 * Guest RAM as devices see it. Every method checks the range first: what is not RAM answers `undefined` or `false`,
 * never throws, and never touches anything else. All values are little endian. Only the device thread holds one (the
 * loaders use it before start).
 */
export interface GuestMemory {
  readonly regions: readonly RamRegion[];
  readonly sizeBytes: number;

  readU8(address: Gpa): number | undefined;
  readU16(address: Gpa): number | undefined;
  readU32(address: Gpa): number | undefined;
  /** `undefined` also where the value does not fit 2^53. */
  readU64(address: Gpa): number | undefined;
  writeU8(address: Gpa, value: number): boolean;
  /** Naturally aligned stores of two and four bytes are single stores, as ring indices need. */
  writeU16(address: Gpa, value: number): boolean;
  writeU32(address: Gpa, value: number): boolean;
  writeU64(address: Gpa, value: number): boolean;

  /** Copies out of the guest into `target`, whole or not at all. */
  read(address: Gpa, target: Uint8Array): boolean;
  /** Copies `source` into the guest, whole or not at all. */
  write(address: Gpa, source: Uint8Array): boolean;
  /** Zeroes a range, whole or not at all. */
  fill(address: Gpa, sizeBytes: number): boolean;

  /** Host address of a range, which is contiguous there; `undefined` unless the whole range is RAM of one region. */
  hostAddress(address: Gpa, sizeBytes: number): Hva | undefined;
  /** True when the whole range is RAM of one region. */
  contains(address: Gpa, sizeBytes: number): boolean;
  /** A full memory fence: what was stored before is visible to the guest before what is loaded after. */
  fence(): void;
}
