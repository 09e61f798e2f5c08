import { type Fd, fd } from "../../../src/base/units.ts";
import {
  closeAll,
  DescriptorSocket,
  HUNG_UP,
  type Readiness,
  type Received,
} from "../../../src/host/descriptor-socket.ts";
import { SyscallError } from "../../../src/host/errors.ts";
import { libc } from "../../../src/host/libc.ts";

const F_DUPFD_CLOEXEC = 1030;

/** What went over the socket in one call. */
export interface Piece {
  readonly bytes: Uint8Array;
  readonly descriptors: readonly Fd[];
}

/** Another descriptor of the same file. */
export function duplicate(file: Fd): Fd {
  const copy = libc.fcntl(file, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw new Error(`descriptor ${file} cannot be duplicated`);
  return fd(copy);
}

/**
 * One end of a stream socket in this process. As in the kernel (net/unix/af_unix.c, unix_stream_sendmsg and
 * unix_stream_read_generic), descriptors are duplicated and come with the first byte of their message. A receive ends
 * before bytes that bring other descriptors.
 *
 * Nothing waits: where the owner would, {@link onWait} lets the other side act. If that side has nothing to send,
 * {@link cutOff} is over.
 */
export class MemorySocket extends DescriptorSocket {
  onWait: () => void = () => undefined;
  /** What is sent instead of a piece. */
  onSend: (piece: Piece) => readonly Piece[] = (piece) => [piece];
  /** For a UserWire. */
  cutOff: number = Number.POSITIVE_INFINITY;
  #peer: MemorySocket | undefined;
  readonly #inbox: { bytes: Uint8Array; descriptors: readonly Fd[] }[] = [];
  #isClosed = false;

  private constructor() {
    super(fd(-1));
  }

  /** Two ends that are connected. */
  static pair(): readonly [MemorySocket, MemorySocket] {
    const ends = [new MemorySocket(), new MemorySocket()] as const;
    ends[0].#peer = ends[1];
    ends[1].#peer = ends[0];
    return ends;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Whether a receive finds something, be it the end. */
  get isReadable(): boolean {
    return this.#inbox.length > 0 || this.#peer?.isClosed !== false;
  }

  override send(bytes: Uint8Array, descriptors: readonly Fd[] = []): number {
    const peer = this.#peer;
    if (peer === undefined || peer.#isClosed) throw new SyscallError(HUNG_UP, "send to a socket", "sendmsg", "EPIPE");
    for (const piece of this.onSend({ bytes, descriptors })) {
      const copies = piece.descriptors.map(duplicate);
      peer.#inbox.push({ bytes: piece.bytes.slice(), descriptors: copies });
    }
    return bytes.length;
  }

  override receive(target: Uint8Array): Received {
    const [piece] = this.#inbox;
    if (piece === undefined) return { kind: this.#peer?.isClosed === false ? "nothing" : "closed" };
    const { descriptors } = piece;
    const count = Math.min(target.length, piece.bytes.length);
    target.set(piece.bytes.subarray(0, count));
    piece.bytes = piece.bytes.subarray(count);
    piece.descriptors = [];
    if (piece.bytes.length === 0) this.#inbox.shift();
    return { kind: "bytes", count, descriptors };
  }

  override wait(_interest: "input" | "both"): Readiness {
    this.onWait();
    const { isReadable } = this;
    if (!isReadable) this.cutOff = 0;
    return { isReadable, isWritable: true };
  }

  override close(): void {
    this.#isClosed = true;
    for (const { descriptors } of this.#inbox.splice(0)) closeAll(descriptors);
  }
}
