import { SpecError } from "../base/errors.ts";
import type { ImageFile } from "../base/load-plan.ts";
import { hex, highHalf, lowHalf, u64FromHalves } from "../base/units.ts";

/** Zeroed little-endian bytes to fill in. */
export const emptyBytes = (sizeBytes: number): DataView => new DataView(new ArrayBuffer(sizeBytes));

/** The bytes behind a view made by {@link emptyBytes} or {@link readImage}. */
export const bytesOf = (view: DataView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Stores a number up to 2^53 as a little-endian u64. */
export function setU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, lowHalf(value), true);
  view.setUint32(offset + 4, highHalf(value), true);
}

/** A little-endian u64; `undefined` above 2^53, which no address or size in a sound image reaches. */
export function getU64(view: DataView, offset: number): number | undefined {
  return u64FromHalves(view.getUint32(offset, true), view.getUint32(offset + 4, true));
}

/** UTF-8 with a NUL behind it. */
export function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}

/**
 * Reads a piece of the kernel image, all of it.
 *
 * @param what Names the piece in messages: "program header table".
 * @throws SpecError when the file ends before the piece does.
 */
export function readImage(file: ImageFile, offset: number, sizeBytes: number, what: string): DataView {
  const bytes = offset + sizeBytes <= file.sizeBytes ? file.read(offset, sizeBytes) : undefined;
  if (bytes === undefined || bytes.length < sizeBytes) throw truncated(file, what, offset, sizeBytes);
  return new DataView(bytes.buffer, bytes.byteOffset, sizeBytes);
}

/** The refusal of a kernel file that ends too early. */
export function truncated(file: ImageFile, what: string, offset: number, sizeBytes: number): SpecError {
  return new SpecError(
    "TSVMM_KERNEL_DAMAGED",
    "kernel",
    `${file.name} is truncated: its ${what} reaches to ${hex(offset + sizeBytes)}, but the file ends at ` +
      `${hex(file.sizeBytes)}`,
  );
}

/** The bytes at the start of a file, at most `sizeBytes`. */
export function readStart(file: ImageFile, sizeBytes: number): DataView {
  const bytes = file.read(0, Math.min(sizeBytes, file.sizeBytes));
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
