import type { Cause } from "../../base/errors.ts";
import { PAGE_SIZE } from "../../base/units.ts";
import { MMAN } from "../constants.ts";
import { type CausesByErrno, check, ERRNO } from "../errors.ts";
import { libc } from "../libc.ts";
import type { HostMapping } from "./mapping.ts";

/**
 * Gives every page of a mapping its memory now, so that nothing waits for it later.
 *
 * @throws SyscallError when the host has not that much memory left.
 */
export function prefault(mapping: HostMapping): void {
  for (;;) {
    const result = libc.madvise(mapping.address, mapping.sizeBytes, MMAN.MADV_POPULATE_WRITE);
    if (result === 0) return;
    const errno = libc.errno();
    if (errno === ERRNO.EINTR || errno === ERRNO.EAGAIN) continue;
    if (errno === ERRNO.EINVAL) {
      touchPages(mapping); // before Linux 5.14
      return;
    }
    const tooLittle: Cause = ["TSVMM_NO_MEMORY", "the host has too little free memory, or too few free huge pages"];
    const causes: CausesByErrno = { otherwise: "TSVMM_HOST_CALL", ENOMEM: tooLittle, EFAULT: tooLittle };
    check(result, `touch every page of ${mapping.name}`, "madvise", causes);
  }
}

/** Writes to each page what is there already; what {@link prefault} does where the kernel has no call for it. */
export function touchPages(mapping: HostMapping): void {
  for (const piece of mapping.pieces()) {
    const bytes = new Int32Array(piece, 0, piece.byteLength >>> 2);
    // An atomic "or" with zero changes nothing, also beside other writers.
    for (let word = 0; word < bytes.length; word += PAGE_SIZE / 4) Atomics.or(bytes, word, 0);
  }
}
