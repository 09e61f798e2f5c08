import { INFO_CAP_HEADER } from "./abi.ts";

/** One link of the capability chain behind an info struct; `offset` is from the start of the struct. */
export interface InfoCapability {
  readonly id: number;
  readonly offset: number;
}

/**
 * Walks the chain of struct vfio_info_cap_header behind an info struct.
 *
 * @param first The struct's `cap_offset`; 0 for no chain.
 * @param headerBytes Size of the struct itself: a link that points back into it, or outside the buffer, ends the walk.
 */
export function infoCapabilities(view: DataView, first: number, headerBytes: number): readonly InfoCapability[] {
  const found: InfoCapability[] = [];
  let offset = first;
  while (offset >= headerBytes && offset + INFO_CAP_HEADER.size <= view.byteLength) {
    found.push({ id: view.getUint16(offset + INFO_CAP_HEADER.id, true), offset });
    const next = view.getUint32(offset + INFO_CAP_HEADER.next, true);
    if (next <= offset) break; // the kernel links forward only; this also ends on 0 and on loops
    offset = next;
  }
  return found;
}
