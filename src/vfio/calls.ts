import { type Causes, errnoName, SyscallError } from "../host/errors.ts";
import type { Libc } from "../host/libc.ts";

/** The C library calls that VFIO takes; tests play the kernel behind them. */
export type VfioLibc = Pick<Libc, "errno" | "ioctl" | "ioctlStruct" | "open" | "close" | "pread" | "pwrite">;

/**
 * Passes a call's result on, or throws what errno says: `host/errors.ts` check() with the C library handed in, so that
 * tests can play the kernel.
 *
 * @throws SyscallError
 */
export function checked(libc: VfioLibc, result: number, action: string, call: string, causes: Causes): number {
  if (result >= 0) return result;
  throw new SyscallError(causes, action, call, errnoName(libc.errno()));
}

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
