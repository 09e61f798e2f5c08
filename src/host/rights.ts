import { type Fd, fd } from "../base/units.ts";
import { CMSGHDR, SOCKET } from "./constants.ts";

/** Most descriptors the kernel lets one message carry (SCM_MAX_FD). */
export const MAX_DESCRIPTORS = 253;

const alignedTo8 = (sizeBytes: number): number => Math.ceil(sizeBytes / 8) * 8;

/** Bytes of control data that so many descriptors need: CMSG_SPACE. cmsg(3) */
export const controlBytes = (descriptors: number): number => CMSGHDR.size + alignedTo8(4 * descriptors);

/** Control data that carry descriptors: one SCM_RIGHTS message; nothing for none. unix(7) */
export function encodeRights(descriptors: readonly Fd[]): Uint8Array {
  if (descriptors.length === 0) return new Uint8Array(0);
  const view = new DataView(new ArrayBuffer(controlBytes(descriptors.length)));
  view.setUint32(CMSGHDR.cmsg_len, CMSGHDR.size + 4 * descriptors.length, true); // u64; its high half stays 0
  view.setInt32(CMSGHDR.cmsg_level, SOCKET.SOL_SOCKET, true);
  view.setInt32(CMSGHDR.cmsg_type, SOCKET.SCM_RIGHTS, true);
  for (const [index, descriptor] of descriptors.entries()) {
    view.setInt32(CMSGHDR.size + 4 * index, descriptor, true);
  }
  return new Uint8Array(view.buffer);
}

/**
 * The descriptors in control data; other kinds of control messages are passed over.
 *
 * @param control What the kernel wrote: `msg_controllen` bytes.
 */
export function decodeRights(control: Uint8Array): readonly Fd[] {
  const view = new DataView(control.buffer, control.byteOffset, control.byteLength);
  const found: Fd[] = [];
  for (let at = 0; at + CMSGHDR.size <= control.length; ) {
    const sizeBytes = view.getUint32(at + CMSGHDR.cmsg_len, true);
    if (sizeBytes < CMSGHDR.size) break;
    const end = Math.min(at + sizeBytes, control.length);
    const isRights =
      view.getInt32(at + CMSGHDR.cmsg_level, true) === SOCKET.SOL_SOCKET &&
      view.getInt32(at + CMSGHDR.cmsg_type, true) === SOCKET.SCM_RIGHTS;
    for (let data = at + CMSGHDR.size; isRights && data + 4 <= end; data += 4)
      found.push(fd(view.getInt32(data, true)));
    at += alignedTo8(sizeBytes);
  }
  return found;
}
