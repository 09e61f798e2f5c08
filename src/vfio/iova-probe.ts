import type { Report } from "../base/backends.ts";
import type { VfioFiles } from "../base/mappings.ts";
import type { VfioLibc } from "./calls.ts";
import { VfioContainer } from "./container.ts";
import type { IovaRange } from "./iommu-info.ts";
import { identify } from "./open.ts";

/** Nobody does DMA by a container that only answers a question. */
const NO_FILES: VfioFiles = { addFile: () => undefined, removeFile: () => undefined };

/**
 * Asks the IOMMU which addresses it translates for these functions, all in one address space: its width, less what firmware and platform
 * reserved. A container is opened for the question and closed again, so that RAM can be laid out before anything is mapped.
 *
 * @param paths sysfs directories of the functions.
 * @returns In order; all addresses when the kernel does not tell (before 5.4).
 * @throws HostError with advice, as opening the functions would.
 */
export function probeIovaRanges(libc: VfioLibc, paths: readonly string[], report: Report): readonly IovaRange[] {
  const groups = paths.map((path) => identify(path).group);
  const container = VfioContainer.open(libc, NO_FILES, report);
  try {
    for (const group of groups) container.attachGroup(group);
    return container.iovaRanges;
  } finally {
    container.close();
  }
}
