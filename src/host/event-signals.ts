import { allOrNothing } from "../base/undo-stack.ts";
import { type Fd, fd } from "../base/units.ts";
import { AIO, IO_EVENT, IOCB, MMAN, TIMESPEC } from "./constants.ts";
import { check, ERRNO } from "./errors.ts";
import { libc } from "./libc.ts";

/**
 * Signals that may be under way; they are finished before the call returns, so this is how many results are fetched at
 * once.
 */
const BATCH = 64;
const NO_FLAG_HAS_IT = 0x4000_0000;

/**
 * Signals eventfds that other processes hold, and never waits.
 *
 * A write to an eventfd waits while the counter is full, unless O_NONBLOCK is set. Every holder of the file can change
 * both at any moment, also between a poll and the write. So the kernel does it, which never waits. An empty read of a
 * file of ours, submitted as asynchronous I/O with IOCB_FLAG_RESFD, is over at once. Its end signals the eventfd
 * (eventfd_signal). It costs 0.6 µs, twice a write.
 */
export class EventSignals implements Disposable {
  readonly #file: Fd;
  readonly #context: number;
  readonly #request: DataView = new DataView(new ArrayBuffer(IOCB.size));
  readonly #pointer: Uint8Array = new Uint8Array(new ArrayBuffer(8));
  readonly #results: Uint8Array = new Uint8Array(new ArrayBuffer(BATCH * IO_EVENT.size));
  readonly #noTime: Uint8Array = new Uint8Array(new ArrayBuffer(TIMESPEC.size));
  #isOpen = true;

  /** @throws SyscallError */
  constructor() {
    const action = "prepare interrupts";
    const context = new DataView(new ArrayBuffer(8));
    this.#file = allOrNothing((undo) => {
      const made = libc.memfdCreate("signals", MMAN.MFD_CLOEXEC);
      const file = undo.own(fd(check(made, action, "memfd_create", "TSVMM_HOST_CALL")), libc.close);
      check(libc.ioSetup(BATCH, new Uint8Array(context.buffer)), action, "io_setup", {
        otherwise: "TSVMM_HOST_CALL",
        EAGAIN: ["TSVMM_AIO_LIMIT", "the host's asynchronous I/O is used up: raise the sysctl fs.aio-max-nr"],
        ENOSYS: ["TSVMM_AIO_LIMIT", "the host's kernel needs CONFIG_AIO"],
      });
      return file;
    });
    this.#context = Number(context.getBigUint64(0, true)); // an address, under 2^47
    this.#request.setUint16(IOCB.aio_lio_opcode, AIO.IOCB_CMD_PREAD, true);
    this.#request.setUint32(IOCB.aio_fildes, this.#file, true);
    this.#request.setUint32(IOCB.aio_flags, AIO.IOCB_FLAG_RESFD, true);
    new DataView(this.#pointer.buffer).setBigUint64(0, BigInt(libc.addressOf(this.#request)), true);
  }

  /**
   * Whether a descriptor is an eventfd; it is not signalled. The kernel looks at that before it looks at a request's
   * flags.
   */
  isEventFd(file: Fd): boolean {
    this.#request.setInt32(IOCB.aio_rw_flags, NO_FLAG_HAS_IT, true);
    const answer = this.#submit(file);
    this.#request.setInt32(IOCB.aio_rw_flags, 0, true);
    return answer < 0 && libc.errno() === ERRNO.EOPNOTSUPP;
  }

  /** Adds one; a full counter stays full. @throws SyscallError for what is no eventfd. */
  signal(file: Fd): void {
    check(this.#submit(file), "signal an eventfd", "io_submit", "TSVMM_HOST_CALL");
  }

  /** Calling it twice is harmless. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    libc.ioDestroy(this.#context);
    libc.close(this.#file);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #submit(file: Fd): number {
    this.#request.setUint32(IOCB.aio_resfd, file, true);
    const answer = libc.ioSubmit(this.#context, 1, this.#pointer);
    if (answer >= 0 || libc.errno() !== ERRNO.EAGAIN) return answer;
    // The results of earlier ones have filled the ring.
    libc.ioGetEvents(this.#context, 0, BATCH, this.#results, this.#noTime);
    return libc.ioSubmit(this.#context, 1, this.#pointer);
  }
}
