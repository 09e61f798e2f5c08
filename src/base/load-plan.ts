import type { CpuStart } from "./cpu-state.ts";
import type { Gpa } from "./units.ts";

/** A file that boot code reads in pieces; the caller decides how the bytes come. */
export interface ImageFile {
  readonly name: string;
  readonly sizeBytes: number;
  /** Fewer bytes than asked only at the end of the file. */
  read(offset: number, sizeBytes: number): Uint8Array;
}

/** Bytes to be copied from a file straight into guest RAM, and how much memory to zero behind them. */
export interface FileSegment {
  readonly file: ImageFile;
  readonly fileOffset: number;
  readonly sizeBytes: number;
  readonly address: Gpa;
  /** At least `sizeBytes`; the rest is zero. */
  readonly memoryBytes: number;
}

/** What to put where, and how the boot processor starts: the whole answer of a boot protocol, done by the caller. */
export interface LoadPlan {
  /** Text such as "PVH", "Linux boot protocol 2.15", "multiboot". */
  readonly protocol: string;
  readonly segments: readonly FileSegment[];
  readonly writes: readonly { readonly name: string; readonly address: Gpa; readonly bytes: Uint8Array }[];
  readonly start: CpuStart;
}

/** A stretch of the guest-physical map as firmware would report it; the values are e820's. */
export interface MemoryMapEntry {
  readonly address: Gpa;
  readonly sizeBytes: number;
  readonly kind: "ram" | "reserved" | "acpi";
}
