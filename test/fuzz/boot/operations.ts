import type { Width } from "../../../src/base/units.ts";

/** A program header and what it covers. */
export interface Segment {
  readonly type: number;
  readonly address: number;
  readonly sizeBytes: number;
  readonly memoryBytes: number;
  readonly align?: number;
  /** The segment is a note with a PVH entry of so many bytes; its content otherwise is zeros. */
  readonly pvh?: { readonly entry: number; readonly width: 4 | 8 };
}

/** A kernel file as it is built before it is damaged. */
export type Image =
  | {
      readonly kind: "elf32" | "elf64";
      readonly entry: number;
      readonly segments: readonly Segment[];
      /** Flags of a multiboot header at the start of the first segment, if there is one. */
      readonly multiboot?: number;
    }
  | {
      readonly kind: "bzImage";
      readonly version: number;
      readonly setupSects: number;
      readonly codeBytes: number;
      readonly loadflags: number;
      readonly code32Start: number;
      readonly initrdAddrMax: number;
      readonly cmdlineSize: number;
      readonly prefAddress: number;
      readonly initSize: number;
      readonly alignment: number;
      readonly relocatable: 0 | 1;
    }
  | {
      readonly kind: "multiboot";
      readonly flags: number;
      /** header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr. */
      readonly addresses: readonly number[];
      readonly headerAt: number;
      readonly sizeBytes: number;
    };

/** A start that is planned: a damaged kernel and what comes with it. */
export interface Operation {
  readonly image: Image;
  /** Values written over the file: at, width, value. */
  readonly patches: readonly (readonly [at: number, width: Width, value: number])[];
  /** The file ends here: cut short, or followed by a hole. */
  readonly fileBytes?: number;
  readonly cmdlineBytes: number;
  readonly initramfsBytes?: number;
  readonly memoryBytes: number;
  /** Bits of a physical address. */
  readonly addressBits: number;
}
