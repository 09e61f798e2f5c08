import { check } from "../errors.ts";
import { IovecArray } from "../iovec.ts";
import { libc } from "../libc.ts";
import type { HostMapping } from "./mapping.ts";

/**
 * A mapping whose file others may cut short, or whose pages they may take away: touching it could be SIGBUS, which ends
 * the process. Every byte is copied by the kernel (process_vm_readv and _writev of this process), which answers EFAULT
 * instead. That takes 2.5 µs for up to a page. pread and pwrite of the file take 0.5 to 1.7 µs, but hugetlbfs has no
 * write.
 */
export class CheckedMapping implements Disposable {
  readonly #mapping: HostMapping;
  readonly #pid: number = check(libc.getpid(), "find the process's number", "getpid", "TSVMM_HOST_CALL");
  readonly #local: IovecArray = new IovecArray(1);
  readonly #remote: IovecArray = new IovecArray(1);

  /** Owns the mapping from now on. */
  constructor(mapping: HostMapping) {
    this.#mapping = mapping;
  }

  /** @returns False where the memory is not there, or not all of it; `target` is undefined then. */
  read(offset: number, target: Uint8Array): boolean {
    this.#prepare(offset, target);
    const count = libc.processVmReadv(this.#pid, this.#local.bytes, 1, this.#remote.bytes, 1, 0);
    return count === target.length;
  }

  /** @returns False where the memory is not there or read-only; a part may have been written then. */
  write(offset: number, source: Uint8Array): boolean {
    this.#prepare(offset, source);
    const count = libc.processVmWritev(this.#pid, this.#local.bytes, 1, this.#remote.bytes, 1, 0);
    return count === source.length;
  }

  /** Calling it twice is harmless. */
  unmap(): void {
    this.#mapping.unmap();
  }

  [Symbol.dispose](): void {
    this.unmap();
  }

  #prepare(offset: number, bytes: Uint8Array): void {
    if (!(offset >= 0 && offset + bytes.length <= this.#mapping.sizeBytes)) {
      throw new RangeError(`Cannot copy ${bytes.length} bytes at ${offset} of ${this.#mapping.name}`);
    }
    this.#local.set(0, libc.addressOf(bytes), bytes.length);
    this.#remote.set(0, this.#mapping.address + offset, bytes.length);
  }
}
