import type { Libc } from "../host/libc.ts";

/** The C library calls that VFIO takes; tests play the kernel behind them. */
export type VfioLibc = Pick<Libc, "errno" | "ioctl" | "ioctlStruct" | "open" | "close" | "pread" | "pwrite">;

/** The bytes of a struct of the kernel with their view; `argsz`, the first word of each VFIO struct, is filled in. */
export function vfioStruct(sizeBytes: number): { readonly bytes: Uint8Array; readonly view: DataView } {
  const bytes = new Uint8Array(sizeBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, sizeBytes, true);
  return { bytes, view };
}

/**
 * A u64 of the kernel's; sizes, offsets and addresses stay under 2^53, what is above (the end of all addresses) is cut
 * to it.
 */
export function getU64(view: DataView, offset: number): number {
  return Math.min(Number(view.getBigUint64(offset, true)), Number.MAX_SAFE_INTEGER);
}

export function setU64(view: DataView, offset: number, value: number): void {
  view.setBigUint64(offset, BigInt(value), true);
}
