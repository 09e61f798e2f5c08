import { SpecError } from "../base/errors.ts";
import type { FileSegment, ImageFile } from "../base/load-plan.ts";
import type { Placement } from "./placement.ts";

/**
 * Places the initramfs as high as the kernel can reach it, out of the way of a kernel that grows upwards while it
 * starts.
 *
 * @param limits First addresses it may not reach, in the order in which they are tried.
 * @returns The segment to load; `undefined` when there is no initramfs.
 * @throws SpecError when it is empty or does not fit.
 */
export function placeInitramfs(
  file: ImageFile | undefined,
  placement: Placement,
  limits: readonly number[],
): FileSegment | undefined {
  if (file === undefined) return undefined;
  if (file.sizeBytes === 0) throw new SpecError("TSVMM_FILE_EMPTY", "initramfs", `${file.name} is empty`);
  const address = placement.claimHighest("initramfs", file.name, file.sizeBytes, limits);
  return { file, fileOffset: 0, sizeBytes: file.sizeBytes, address, memoryBytes: file.sizeBytes };
}
