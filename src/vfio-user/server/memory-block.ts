import { type Fd, fd, hex, PAGE_SIZE } from "../../base/units.ts";
import { MMAN } from "../../host/constants.ts";
import { check } from "../../host/errors.ts";
import { libc } from "../../host/libc.ts";
import { HostMapping } from "../../host/memory/mapping.ts";

/** Memory of a device that a machine maps: zeroes at first. The owner closes it after the server. */
export class MemoryBlock {
  readonly sizeBytes: number;
  /** Where it lies in its BAR, and in its file. */
  readonly offset: number;
  readonly fd: Fd;
  /** The bytes, shared with whoever has mapped them; not to be touched after {@link close}. */
  readonly bytes: Uint8Array;
  readonly #mapping: HostMapping;
  #isOpen = true;

  /**
   * @param sizeBytes A multiple of the page size, 4 GiB at most.
   * @param offset In its BAR; a multiple of the page size.
   * @throws RangeError for other numbers; SyscallError.
   */
  constructor(name: string, sizeBytes: number, offset = 0) {
    if (!(sizeBytes > 0 && offset >= 0) || sizeBytes % PAGE_SIZE !== 0 || offset % PAGE_SIZE !== 0) {
      throw new RangeError(`Cannot make ${name}: ${hex(offset)}+${hex(sizeBytes)} is not made of whole pages`);
    }
    this.sizeBytes = sizeBytes;
    this.offset = offset;
    const action = `make ${name}`;
    this.fd = fd(check(libc.memfdCreate(name, MMAN.MFD_CLOEXEC), action, "memfd_create"));
    try {
      check(libc.ftruncate(this.fd, offset + sizeBytes), action, "ftruncate");
      this.#mapping = HostMapping.ofFile(name, this.fd, offset, sizeBytes);
      this.bytes = new Uint8Array(this.#mapping.view());
    } catch (error) {
      libc.close(this.fd);
      throw error;
    }
  }

  /** Gives the memory back; calling it twice is harmless. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#mapping.unmap();
    libc.close(this.fd);
  }
}
