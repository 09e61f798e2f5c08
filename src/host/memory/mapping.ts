import { invariant } from "../../base/invariant.ts";
import { allOrNothing } from "../../base/undo-stack.ts";
import { alignUp, type Fd, type Hva, hex, hva, isPowerOfTwo, PAGE_SIZE } from "../../base/units.ts";
import { MMAN } from "../constants.ts";
import { type Causes, check } from "../errors.ts";
import { libc, MAX_VIEW_SIZE } from "../libc.ts";

/** How to map; all of it is optional. */
export interface MappingOptions {
  /** `PROT_*`; reading and writing when absent. */
  readonly protection?: number;
  /** `MAP_*` beside the sharing that the constructor function sets. */
  readonly flags?: number;
  /**
   * A power of two that the address is a multiple of, but for the remainder; the page size when absent. Device memory
   * aligned to 2 MiB or 1 GiB can be mapped by the kernel in pages of that size.
   */
  readonly alignment?: number;
  /** What the address leaves when it is divided by the alignment: a multiple of the page size; 0 when absent. */
  readonly remainder?: number;
  /** What it means when mmap fails; that memory is short when absent. */
  readonly causes?: Causes;
}

/**
 * A stretch of this process's memory from mmap to munmap. The mapping belongs to the process: any thread may use the
 * address as long as the owner has not called {@link unmap}.
 */
export class HostMapping implements Disposable {
  readonly name: string;
  readonly sizeBytes: number;
  readonly #address: Hva;
  #isMapped = true;

  private constructor(name: string, address: Hva, sizeBytes: number) {
    this.name = name;
    this.#address = address;
    this.sizeBytes = sizeBytes;
  }

  /**
   * Zeroed private memory.
   *
   * @param name For messages.
   * @param sizeBytes A multiple of the page size.
   * @throws SyscallError
   */
  static anonymous(name: string, sizeBytes: number, options: MappingOptions = {}): HostMapping {
    return HostMapping.#map(name, -1, 0, sizeBytes, MMAN.MAP_PRIVATE | MMAN.MAP_ANONYMOUS, options);
  }

  /**
   * Part of a file or device, shared with it. The descriptor may be closed afterwards.
   *
   * @param offset In the file; a multiple of the page size, as is `sizeBytes`.
   * @throws SyscallError
   */
  static ofFile(name: string, file: Fd, offset: number, sizeBytes: number, options: MappingOptions = {}): HostMapping {
    return HostMapping.#map(name, file, offset, sizeBytes, MMAN.MAP_SHARED, options);
  }

  static #map(
    name: string,
    file: number,
    offset: number,
    sizeBytes: number,
    sharing: number,
    options: MappingOptions,
  ): HostMapping {
    const { alignment = PAGE_SIZE, remainder = 0 } = options;
    if (!isPowerOfTwo(alignment)) throw new RangeError(`Cannot map ${name}: ${alignment} is not a power of two`);
    if (!(sizeBytes > 0)) throw new RangeError(`Cannot map ${name}: its size is ${sizeBytes}`);
    const protection = options.protection ?? MMAN.PROT_READ | MMAN.PROT_WRITE;
    const flags = sharing | (options.flags ?? 0);
    const action = `map ${name} (${hex(sizeBytes)} bytes)`;
    const causes = options.causes ?? "TSVMM_NO_MEMORY";
    if (alignment <= PAGE_SIZE) {
      const found = check(libc.mmap(0, sizeBytes, protection, flags, file, offset), action, "mmap", causes);
      return new HostMapping(name, hva(found), sizeBytes);
    }
    // Reserve more addresses than needed, put the mapping at the aligned one among them, give the rest back.
    const mappedBytes = alignUp(sizeBytes, PAGE_SIZE);
    const reservedBytes = mappedBytes + alignment;
    const reserve = MMAN.MAP_PRIVATE | MMAN.MAP_ANONYMOUS | MMAN.MAP_NORESERVE;
    const { reserved, address } = allOrNothing((undo) => {
      const reserved = check(libc.mmap(0, reservedBytes, MMAN.PROT_NONE, reserve, -1, 0), action, "mmap", causes);
      undo.add(() => libc.munmap(reserved, reservedBytes));
      const address = alignUp(reserved - remainder, alignment) + remainder;
      const result = libc.mmap(address, sizeBytes, protection, flags | MMAN.MAP_FIXED, file, offset);
      check(result, action, "mmap", causes);
      return { reserved, address };
    });
    if (address > reserved) libc.munmap(reserved, address - reserved);
    const end = address + mappedBytes;
    if (reserved + reservedBytes > end) libc.munmap(end, reserved + reservedBytes - end);
    return new HostMapping(name, hva(address), sizeBytes);
  }

  /** Where the first byte is. It may be used until {@link unmap}, not later. */
  get address(): Hva {
    invariant(this.#isMapped, `${this.name} is used after it was unmapped`);
    return this.#address;
  }

  /** False once {@link unmap} has been called. */
  get isMapped(): boolean {
    return this.#isMapped;
  }

  /**
   * Bytes of the mapping without a copy. The buffer is the mapping's: an access after {@link unmap} ends the process
   * with SIGSEGV. Making one costs microseconds, so keep it.
   *
   * @throws RangeError outside the mapping or above 4 GiB.
   */
  view(offset = 0, sizeBytes: number = this.sizeBytes - offset): ArrayBuffer {
    if (!(offset >= 0 && sizeBytes >= 0 && offset + sizeBytes <= this.sizeBytes)) {
      throw new RangeError(
        `Cannot view ${hex(offset)}+${hex(sizeBytes)} of ${this.name}: it has ${hex(this.sizeBytes)}`,
      );
    }
    return libc.view(this.address + offset, sizeBytes);
  }

  /**
   * The whole mapping in pieces of 4 GiB, the last one shorter: Node 20 has no larger buffers. Same rules as
   * {@link view}.
   */
  pieces(): ArrayBuffer[] {
    const pieces: ArrayBuffer[] = [];
    for (let offset = 0; offset < this.sizeBytes; offset += MAX_VIEW_SIZE) {
      pieces.push(this.view(offset, Math.min(MAX_VIEW_SIZE, this.sizeBytes - offset)));
    }
    return pieces;
  }

  /**
   * Maps a part of another file at the same addresses. Views stay valid and show its bytes; the old file is unmapped.
   *
   * @throws SyscallError; everything is as before then.
   */
  replaceFile(file: Fd, offset: number): void {
    const flags = MMAN.MAP_SHARED | MMAN.MAP_FIXED;
    const result = libc.mmap(this.address, this.sizeBytes, MMAN.PROT_READ | MMAN.PROT_WRITE, flags, file, offset);
    check(result, `map ${this.name} anew`, "mmap", "TSVMM_HOST_CALL");
  }

  /** Gives the memory back; calling it twice is harmless. No view may be used afterwards. */
  unmap(): void {
    if (!this.#isMapped) return;
    this.#isMapped = false;
    check(libc.munmap(this.#address, this.sizeBytes), `unmap ${this.name}`, "munmap", "TSVMM_HOST_CALL");
  }

  [Symbol.dispose](): void {
    this.unmap();
  }
}
