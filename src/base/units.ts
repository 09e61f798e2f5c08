/**
 * Numbers with a kind. A brand costs nothing at run time and keeps a port from being passed where an address is meant.
 * Addresses and sizes are plain numbers: 2^53 covers every guest-physical space, and every user mapping lies under
 * 2^47.
 */
declare const kindOfNumber: unique symbol;
export type Branded<Kind extends string> = number & { readonly [kindOfNumber]: Kind };

/** Guest-physical address, in bytes. */
export type Gpa = Branded<"gpa">;
/** Host-virtual address, in bytes; user mappings lie under 2^47, so a number is exact. */
export type Hva = Branded<"hva">;
/** I/O virtual address a device uses for DMA, in bytes. */
export type Iova = Branded<"iova">;
/** Global system interrupt: an index in KVM's routing table; 0 to 23 are the I/O APIC's pins. */
export type Gsi = Branded<"gsi">;
/** Open file descriptor of this process. */
export type Fd = Branded<"fd">;

/** Bytes that one access moves. Eight-byte accesses move two halves. */
export type Width = 1 | 2 | 4;

/** The two u32 of an eight-byte access. */
export interface Halves {
  readonly low: number;
  readonly high: number;
}
/** What an unclaimed eight-byte read answers. */
export const ALL_ONES_WIDE: Halves = { low: 0xffff_ffff, high: 0xffff_ffff };

// Casts: these five functions are where a plain number is declared to be of its kind.
export const gpa = (value: number): Gpa => value as Gpa;
export const hva = (value: number): Hva => value as Hva;
export const iova = (value: number): Iova => value as Iova;
export const gsi = (value: number): Gsi => value as Gsi;
export const fd = (value: number): Fd => value as Fd;

export const KIB = 1024;
export const MIB: number = 1024 * KIB;
export const GIB: number = 1024 * MIB;
export const PAGE_SIZE = 4096;
/** 2^32: weight of the high half of a 64-bit value kept as two u32. */
export const TWO_POW_32 = 0x1_0000_0000;

/** Joins two u32; `undefined` above 2^53, where a number would no longer be exact. */
export function u64FromHalves(low: number, high: number): number | undefined {
  if (high >>> 0 > 0x1f_ffff) return undefined;
  return (high >>> 0) * TWO_POW_32 + (low >>> 0);
}

/** A guest-supplied 64-bit address; `undefined` when no guest-physical space can reach it. */
export function gpaFromHalves(low: number, high: number): Gpa | undefined {
  const joined = u64FromHalves(low, high);
  return joined === undefined ? undefined : gpa(joined);
}

/** Low 32 bits of a number up to 2^53. */
export const lowHalf = (value: number): number => (value % TWO_POW_32) >>> 0;
/** Bits 32 to 52 of a number up to 2^53. */
export const highHalf = (value: number): number => Math.floor(value / TWO_POW_32) >>> 0;

/** All ones in `width` bytes: what an unclaimed read answers. */
export function allOnes(width: Width): number {
  return width === 4 ? 0xffff_ffff : width === 2 ? 0xffff : 0xff;
}

/** Rounds up to a multiple of `alignment`, which must be positive; exact up to 2^53. */
export const alignUp = (value: number, alignment: number): number => Math.ceil(value / alignment) * alignment;
/** Rounds down to a multiple of `alignment`, which must be positive; exact up to 2^53. */
export const alignDown = (value: number, alignment: number): number => Math.floor(value / alignment) * alignment;
/** True for 1, 2, 4, … up to 2^52; the logarithm is rounded, since that of 2^52 + 1 comes out as 52 too. */
export const isPowerOfTwo = (value: number): boolean =>
  Number.isSafeInteger(value) && value >= 1 && 2 ** Math.round(Math.log2(value)) === value;

/** Lower-case hexadecimal with `0x`, as every message of ours shows addresses. */
export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** A size as text, in the largest unit that divides it: `256 GiB`, `100 bytes`. */
export function sizeText(sizeBytes: number): string {
  for (const [name, unit] of [
    ["TiB", 1024 * GIB],
    ["GiB", GIB],
    ["MiB", MIB],
    ["KiB", KIB],
  ] as const) {
    if (sizeBytes >= unit && sizeBytes % unit === 0) return `${sizeBytes / unit} ${name}`;
  }
  return `${sizeBytes} bytes`;
}
