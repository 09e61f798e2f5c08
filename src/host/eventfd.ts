import type { EventDescriptor } from "../base/signals.ts";
import { type Fd, fd } from "../base/units.ts";
import { EVENTFD, POLL, POLLFD } from "./constants.ts";
import { check, ERRNO } from "./errors.ts";
import { libc } from "./libc.ts";

/**
 * A counter in the kernel that threads, KVM and VFIO raise and somebody waits for.
 *
 * The descriptor is a number that every thread of the process may use. A thread that did not make the object wraps it
 * by {@link attach}. It is nonblocking and closed on exec.
 *
 * O_NONBLOCK belongs to the open file, which a process that was handed the descriptor shares and may change. So
 * {@link signal} and {@link drain} are for eventfds that stay in this process; of one that does not,
 * {@link isSignalled} alone never blocks.
 */
export class EventFd implements EventDescriptor, Disposable {
  readonly #ownsDescriptor: boolean;
  // One buffer each: no allocation per call.
  readonly #one: Uint8Array = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);
  readonly #count: DataView = new DataView(new ArrayBuffer(8));
  readonly #countBytes: Uint8Array = new Uint8Array(this.#count.buffer);
  readonly #poll: DataView = new DataView(new ArrayBuffer(POLLFD.size));
  readonly #pollBytes: Uint8Array = new Uint8Array(this.#poll.buffer);
  #descriptor: number;

  private constructor(descriptor: number, ownsDescriptor: boolean) {
    this.#descriptor = descriptor;
    this.#ownsDescriptor = ownsDescriptor;
  }

  /** @throws SyscallError */
  static create(): EventFd {
    const flags = EVENTFD.EFD_CLOEXEC | EVENTFD.EFD_NONBLOCK;
    return new EventFd(check(libc.eventfd(0, flags), "make an eventfd", "eventfd", "TSVMM_HOST_CALL"), true);
  }

  /** Uses an eventfd that another thread made and closes. */
  static attach(descriptor: Fd): EventFd {
    return new EventFd(descriptor, false);
  }

  /** The descriptor; -1 after {@link close}. */
  get fd(): Fd {
    return fd(this.#descriptor);
  }

  /** Adds one. Callable from any thread; a full counter is signalled already and stays so. */
  signal(): void {
    if (libc.write(this.#descriptor, this.#one, 8) < 0 && libc.errno() !== ERRNO.EAGAIN) {
      check(-1, "signal an eventfd", "write", "TSVMM_HOST_CALL");
    }
  }

  /** Takes the count and sets it to zero; 0 when there was no signal. */
  drain(): number {
    if (libc.read(this.#descriptor, this.#countBytes, 8) < 0) {
      if (libc.errno() === ERRNO.EAGAIN) return 0;
      check(-1, "read an eventfd", "read", "TSVMM_HOST_CALL");
    }
    return this.#count.getUint32(0, true) + this.#count.getUint32(4, true) * 2 ** 32;
  }

  /** Whether the count is above zero; it stays as it is. Costs what a read does (0.4 µs). @throws SyscallError */
  get isSignalled(): boolean {
    this.#poll.setInt32(POLLFD.fd, this.#descriptor, true);
    this.#poll.setInt16(POLLFD.events, POLL.POLLIN, true);
    check(libc.poll(this.#pollBytes, 1, 0), "look at an eventfd", "poll", "TSVMM_HOST_CALL");
    return (this.#poll.getInt16(POLLFD.revents, true) & POLL.POLLIN) !== 0;
  }

  /** Closes the descriptor if this object made it; calling it twice is harmless. Close watches on it first. */
  close(): void {
    if (this.#descriptor >= 0 && this.#ownsDescriptor) libc.close(this.#descriptor);
    this.#descriptor = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
