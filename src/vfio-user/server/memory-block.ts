import { allOrNothing, UndoStack } from "../../base/undo-stack.ts";
import { type Fd, fd, hex, PAGE_SIZE } from "../../base/units.ts";
import { FCNTL, MMAN } from "../../host/constants.ts";
import { check } from "../../host/errors.ts";
import { libc } from "../../host/libc.ts";
import { HostMapping } from "../../host/memory/mapping.ts";

/**
 * A machine that holds the file can neither cut it short, which would end this process by SIGBUS, nor forbid others to
 * write.
 */
const SEALS: number = FCNTL.F_SEAL_SHRINK | FCNTL.F_SEAL_GROW | FCNTL.F_SEAL_SEAL;

/**
 * Memory of a device that a machine maps: zeroes at first, and again when a machine has gone, which keeps what it had
 * mapped. The owner closes it after the server.
 */
export class MemoryBlock implements Disposable {
  readonly name: string;
  readonly sizeBytes: number;
  /** Where it lies in its BAR, and in its file. */
  readonly offset: number;
  /** The bytes, shared with every process that has mapped them; not to be touched after {@link close}. */
  readonly bytes: Uint8Array;
  readonly #mapping: HostMapping;
  #file: Fd;
  #isShared = false;
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
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.offset = offset;
    const undo = new UndoStack();
    try {
      this.#file = undo.own(makeFile(name, offset + sizeBytes), libc.close);
      this.#mapping = undo.own(HostMapping.ofFile(name, this.#file, offset, sizeBytes));
      this.bytes = new Uint8Array(this.#mapping.view());
    } catch (error) {
      throw undo.after(error);
    }
  }

  /** The file, for a machine; it stays ours. From now on it counts as shared. */
  share(): Fd {
    this.#isShared = true;
    return this.#file;
  }

  /**
   * The machine has gone: where it was given the file, {@link bytes} are those of a new one, zeroes.
   *
   * @throws SyscallError; everything is as before then.
   */
  renew(): void {
    if (!this.#isShared || !this.#isOpen) return;
    const file = allOrNothing((undo) => {
      const made = undo.own(makeFile(this.name, this.offset + this.sizeBytes), libc.close);
      this.#mapping.replaceFile(made, this.offset);
      return made;
    });
    libc.close(this.#file);
    this.#file = file;
    this.#isShared = false;
  }

  /** Gives the memory back; calling it twice is harmless. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#mapping.unmap();
    libc.close(this.#file);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** @throws SyscallError */
function makeFile(name: string, sizeBytes: number): Fd {
  const action = `make ${name}`;
  return allOrNothing((undo) => {
    const made = libc.memfdCreate(name, MMAN.MFD_CLOEXEC | MMAN.MFD_ALLOW_SEALING);
    const file = undo.own(fd(check(made, action, "memfd_create", "TSVMM_NO_MEMORY")), libc.close);
    check(libc.ftruncate(file, sizeBytes), action, "ftruncate", "TSVMM_NO_MEMORY");
    check(libc.fcntl(file, FCNTL.F_ADD_SEALS, SEALS), action, "fcntl F_ADD_SEALS", "TSVMM_HOST_CALL");
    return file;
  });
}
