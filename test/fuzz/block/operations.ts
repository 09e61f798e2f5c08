/**
 * Where an image lies; `loop4k` is a block device whose blocks have 4,096 bytes, `loop4k512` another of which the guest
 * is told 512.
 */
export const PLACES = ["tmpfs", "ext4", "loop", "loop4k", "loop4k512"] as const;
export type Place = (typeof PLACES)[number];

/** Sectors of a disk: no multiple of 4 KiB where the place is a file. */
export const SECTORS = 1023;
export const MOST_SECTORS = 64;

/** How a request is wrong. */
export const MISTAKES = ["beyond", "ragged", "type", "range"] as const;

/**
 * One step of a guest with a virtio disk. Sectors and counts are cut to what the disk has, so a step means something
 * wherever a list is cut. `pieces` are the shares of the descriptors, `odd` bytes that the data lie beside a sector's
 * boundary in guest memory.
 */
export type Operation =
  | { readonly op: "disk"; readonly place: Place; readonly isDirect: boolean; readonly isWriteThrough: boolean }
  | {
      readonly op: "write" | "read";
      readonly sector: number;
      readonly count: number;
      readonly pieces: readonly number[];
      readonly odd: number;
    }
  | { readonly op: "zero"; readonly sector: number; readonly count: number; readonly mayUnmap: boolean }
  | { readonly op: "discard"; readonly sector: number; readonly count: number }
  | { readonly op: "flush" }
  | { readonly op: "wrong"; readonly how: (typeof MISTAKES)[number]; readonly sector: number }
  | { readonly op: "turn" } // the storage worker does one job, the device thread hears of it
  | { readonly op: "reset" };

/** What counts as a request. */
export function kindOf(operation: Operation): string | undefined {
  return operation.op === "turn" || operation.op === "disk" ? undefined : operation.op;
}
