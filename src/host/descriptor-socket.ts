import { readlinkSync } from "node:fs";
import { type Cause, HostError } from "../base/errors.ts";
import { type Fd, highHalf, lowHalf } from "../base/units.ts";
import { FCNTL, MSGHDR, POLL, POLLFD, SOCKET } from "./constants.ts";
import { type CausesByErrno, check, ERRNO } from "./errors.ts";
import { IovecArray } from "./iovec.ts";
import { closeInBackground, libc } from "./libc.ts";
import { controlBytes, decodeRights, encodeRights, MAX_DESCRIPTORS } from "./rights.ts";

/** A send to a socket whose other end is closed. */
export const HUNG_UP: Cause = ["TSVMM_PEER_LOST", "the other side has hung up"];

const SEND_CAUSES: CausesByErrno = { otherwise: "TSVMM_HOST_CALL", EPIPE: HUNG_UP };

/** What a look at the socket found. The receiver owns the descriptors and closes them. */
export type Received =
  | { readonly kind: "bytes"; readonly count: number; readonly descriptors: readonly Fd[] }
  | { readonly kind: "nothing" } // yet
  | { readonly kind: "closed" }; // and there will be nothing more

/** What became of a wait. */
export interface Readiness {
  /** Also true when the other side has hung up: a receive tells. */
  readonly isReadable: boolean;
  readonly isWritable: boolean;
}

/**
 * A nonblocking stream socket of the unix domain over which bytes travel with descriptors. Nothing here blocks but
 * {@link wait}. It does not own the socket until {@link close} is called.
 */
export class DescriptorSocket implements Disposable {
  readonly fd: Fd;
  readonly #header: DataView = new DataView(new ArrayBuffer(MSGHDR.size));
  readonly #headerBytes: Uint8Array = new Uint8Array(this.#header.buffer);
  readonly #iovec: IovecArray = new IovecArray(1);
  readonly #control: Uint8Array = new Uint8Array(new ArrayBuffer(controlBytes(MAX_DESCRIPTORS)));
  readonly #poll: DataView = new DataView(new ArrayBuffer(POLLFD.size));
  readonly #pollBytes: Uint8Array = new Uint8Array(this.#poll.buffer);
  #isOpen = true;

  constructor(socket: Fd) {
    this.fd = socket;
    this.#setAddress(MSGHDR.msg_iov, libc.addressOf(this.#iovec.bytes));
    this.#header.setUint32(MSGHDR.msg_iovlen, 1, true);
    this.#poll.setInt32(POLLFD.fd, socket, true);
  }

  /**
   * Sends what the socket takes now.
   *
   * @param bytes At least one. Descriptors travel with the first byte: send the rest, if any, without them.
   * @returns How many bytes were taken; 0 when there is no room, and then no descriptor was sent either.
   * @throws SyscallError, EPIPE when the other side has hung up.
   */
  send(bytes: Uint8Array, descriptors: readonly Fd[] = []): number {
    const control = encodeRights(descriptors);
    this.#control.set(control);
    this.#prepare(bytes, control.length);
    for (;;) {
      const count = libc.sendmsg(this.fd, this.#headerBytes, SOCKET.MSG_NOSIGNAL | SOCKET.MSG_DONTWAIT);
      if (count >= 0) return count;
      const errno = libc.errno();
      if (errno === ERRNO.EAGAIN) return 0;
      if (errno !== ERRNO.EINTR) check(count, "send to a socket", "sendmsg", SEND_CAUSES);
    }
  }

  /**
   * Receives what is there now into `target`, at most its length. Descriptors come with the bytes that they were sent
   * with, and closed on exec.
   *
   * @throws HostError when more descriptors came than a message can have; SyscallError for anything but a hang-up.
   */
  receive(target: Uint8Array): Received {
    for (;;) {
      this.#prepare(target, this.#control.length);
      const count = libc.recvmsg(this.fd, this.#headerBytes, SOCKET.MSG_CMSG_CLOEXEC | SOCKET.MSG_DONTWAIT);
      if (count < 0) {
        const errno = libc.errno();
        if (errno === ERRNO.EINTR) continue;
        if (errno === ERRNO.EAGAIN) return { kind: "nothing" };
        if (errno === ERRNO.ECONNRESET) return { kind: "closed" };
        check(count, "receive from a socket", "recvmsg", "TSVMM_HOST_CALL");
      }
      const controlSize = this.#header.getUint32(MSGHDR.msg_controllen, true);
      const descriptors = decodeRights(this.#control.subarray(0, controlSize));
      if ((this.#header.getUint32(MSGHDR.msg_flags, true) & SOCKET.MSG_CTRUNC) !== 0) {
        closeAll(descriptors);
        throw new HostError(
          "TSVMM_OPEN_FILES",
          "Cannot receive descriptors: this process may not have that many",
          "ulimit -n raises it",
        );
      }
      return count === 0 ? { kind: "closed" } : { kind: "bytes", count, descriptors };
    }
  }

  /**
   * Waits until there is something to receive or room to send, or until the time is up, when neither is true.
   *
   * @param timeoutMs 0 or more; there is no unlimited wait.
   */
  wait(interest: "input" | "both", timeoutMs: number): Readiness {
    this.#poll.setInt16(POLLFD.events, POLL.POLLIN | (interest === "both" ? POLL.POLLOUT : 0), true);
    this.#poll.setInt16(POLLFD.revents, 0, true);
    const result = libc.poll(this.#pollBytes, 1, Math.max(0, Math.ceil(timeoutMs)));
    if (result < 0 && libc.errno() !== ERRNO.EINTR) check(result, "wait for a socket", "poll", "TSVMM_HOST_CALL");
    const events = result > 0 ? this.#poll.getInt16(POLLFD.revents, true) : 0;
    return { isReadable: (events & ~POLL.POLLOUT) !== 0, isWritable: (events & POLL.POLLOUT) !== 0 };
  }

  /** Closes the socket; calling it twice is harmless. */
  close(): void {
    if (this.#isOpen) libc.close(this.fd);
    this.#isOpen = false;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #prepare(bytes: Uint8Array, controlSize: number): void {
    this.#iovec.set(0, libc.addressOf(bytes), bytes.length);
    this.#setAddress(MSGHDR.msg_control, controlSize === 0 ? 0 : libc.addressOf(this.#control));
    this.#header.setUint32(MSGHDR.msg_controllen, controlSize, true);
    this.#header.setUint32(MSGHDR.msg_flags, 0, true);
  }

  #setAddress(offset: number, address: number): void {
    this.#header.setUint32(offset, lowHalf(address), true);
    this.#header.setUint32(offset + 4, highHalf(address), true);
  }
}

/**
 * Closes descriptors that another process has sent, without waiting for it. The sender decides how long a close takes.
 * A TCP socket lingers as SO_LINGER says; a file of a FUSE file system waits for its server. So all but memory and
 * eventfds are closed by another thread. If the host has no thread for that, they stay open.
 */
export function closeAll(descriptors: readonly Fd[]): void {
  for (const descriptor of descriptors) {
    if (closesAtOnce(descriptor)) libc.close(descriptor);
    else closeInBackground(descriptor);
  }
}

/** Memory and eventfds are the kernel's alone. Asking needs no file system. */
function closesAtOnce(descriptor: Fd): boolean {
  if (isMemoryFile(descriptor)) return true;
  try {
    return readlinkSync(`/proc/self/fd/${descriptor}`) === "anon_inode:[eventfd]";
  } catch {
    return false; // no /proc
  }
}

/** Whether a file is memory: a memfd, or a file of tmpfs or hugetlbfs. Only those have seals. memfd_create(2) */
export function isMemoryFile(file: Fd): boolean {
  return libc.fcntl(file, FCNTL.F_GET_SEALS, 0) >= 0;
}
