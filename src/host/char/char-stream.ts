import type { CharBackend, Report } from "../../base/backends.ts";
import type { FdWatch, FdWatcher } from "../../base/signals.ts";
import { type Fd, KIB, MIB } from "../../base/units.ts";
import { POLL, POLLFD } from "../constants.ts";
import { ERRNO, errnoName, SyscallError } from "../errors.ts";
import { EventFd } from "../eventfd.ts";
import { libc } from "../libc.ts";
import { ByteQueue } from "./byte-queue.ts";
import { DroppedOutput } from "./dropped-output.ts";
import { InputPump } from "./input-pump.ts";

/** Where a stream reads and writes. */
export interface CharStreamOptions {
  /** For messages: whose bytes these are. */
  readonly name: string;
  readonly watcher: FdWatcher;
  readonly report: Report;
  /** Absent: there is never input. */
  readonly input?: Fd;
  /** Absent: output is dropped. It may be the same descriptor as `input`. */
  readonly output?: Fd;
  /**
   * False for a descriptor that other programs share and that must stay blocking: it is asked before each small write.
   */
  readonly isNonblocking?: boolean;
  /** How much output is kept for a slow reader. */
  readonly limitBytes?: number;
  /** Sees input first; what it returns goes to the device. */
  readonly filter?: (bytes: Uint8Array) => Uint8Array;
  /** The other side will send nothing more. Called once. */
  readonly onInputEnd?: () => void;
  /** The output has lost its reader; what comes is dropped. Called once. */
  readonly onOutputClosed?: () => void;
}

const INPUT_BYTES: number = 4 * KIB;
/**
 * Most that is written to a blocking descriptor that polls as writable: a pipe has room for a page then, a socket for
 * more.
 */
const POLLED_WRITE_BYTES = 256;
const FULL_DISK: ReadonlySet<number> = new Set([ERRNO.ENOSPC, ERRNO.EDQUOT, ERRNO.EFBIG]);

/**
 * Bytes to and from descriptors, without ever blocking. What the other side does not take at once is queued. A full
 * queue drops its oldest bytes. Input is read only while the device takes it. The descriptors stay the caller's.
 */
export class CharStream implements CharBackend, Disposable {
  readonly #options: CharStreamOptions;
  readonly #pump: InputPump;
  readonly #queue: ByteQueue;
  readonly #dropped: DroppedOutput;
  readonly #poll: DataView = new DataView(new ArrayBuffer(POLLFD.size));
  #inputWatch: FdWatch | undefined;
  #outputWatch: FdWatch | undefined; // stays undefined where both are one descriptor
  #alwaysReady: EventFd | undefined;
  #hasInput: boolean;
  #hasOutput: boolean;
  #isClosed = false;

  constructor(options: CharStreamOptions) {
    this.#options = options;
    this.#hasInput = options.input !== undefined;
    this.#hasOutput = options.output !== undefined;
    this.#pump = new InputPump(() => this.#updateWatches());
    this.#queue = new ByteQueue(options.limitBytes ?? MIB);
    this.#dropped = new DroppedOutput(options.name, options.report);
  }

  /** True while somebody may read what is written. */
  get hasOutput(): boolean {
    return this.#hasOutput;
  }

  write(bytes: Uint8Array): void {
    if (!this.#hasOutput || this.#isClosed) return;
    let done = 0;
    while (this.#queue.length === 0 && done < bytes.length && this.#hasOutput) {
      const count = this.#writeSome(bytes.subarray(done));
      if (count === 0) break;
      done += count;
    }
    if (!this.#hasOutput || done === bytes.length) return;
    this.#dropped.add(this.#queue.push(bytes.subarray(done)), "its reader is too slow");
    this.#updateWatches();
  }

  onInput(take: (bytes: Uint8Array) => number): void {
    this.#pump.onInput(take);
  }

  inputReady(): void {
    this.#pump.inputReady();
  }

  /** Writes what the other side takes at once, drops the rest and forgets the descriptors. */
  close(): void {
    if (this.#isClosed) return;
    this.#flush();
    this.#isClosed = true;
    this.#inputWatch?.close();
    this.#outputWatch?.close();
    this.#alwaysReady?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #flush(): void {
    while (this.#queue.length > 0 && this.#hasOutput) {
      const count = this.#writeSome(this.#queue.peek());
      if (count === 0) return;
      this.#queue.drop(count);
    }
    if (this.#hasOutput) this.#dropped.settle();
  }

  /**
   * @returns How many bytes are dealt with; 0 when the other side takes none now, or never will (`#hasOutput` tells).
   */
  #writeSome(bytes: Uint8Array): number {
    const output = this.#options.output;
    if (output === undefined) return 0;
    let sizeBytes = bytes.length;
    if (this.#options.isNonblocking === false) {
      if (!this.#isWritable(output)) return 0;
      sizeBytes = Math.min(sizeBytes, POLLED_WRITE_BYTES);
    }
    for (;;) {
      const count = libc.write(output, bytes, sizeBytes);
      if (count > 0) return count;
      const errno = count === 0 ? ERRNO.EIO : libc.errno();
      if (errno === ERRNO.EINTR) continue;
      if (errno === ERRNO.EAGAIN) return 0;
      if (FULL_DISK.has(errno)) {
        this.#dropped.add(bytes.length, errnoName(errno));
        return bytes.length;
      }
      this.#endOutput();
      return 0;
    }
  }

  #isWritable(output: Fd): boolean {
    this.#poll.setInt32(POLLFD.fd, output, true);
    this.#poll.setInt16(POLLFD.events, POLL.POLLOUT, true);
    return libc.poll(new Uint8Array(this.#poll.buffer), 1, 0) === 1;
  }

  #endOutput(): void {
    if (!this.#hasOutput) return;
    this.#hasOutput = false;
    this.#queue.drop(this.#queue.length);
    if (!this.#isClosed) this.#updateWatches();
    this.#options.onOutputClosed?.();
  }

  #readSome(): void {
    const input = this.#options.input;
    if (input === undefined || !this.#hasInput || !this.#pump.isIdle) return;
    const bytes = new Uint8Array(INPUT_BYTES);
    const count = libc.read(input, bytes, INPUT_BYTES);
    if (count > 0) {
      const read = bytes.subarray(0, count);
      this.#pump.add(this.#options.filter?.(read) ?? read);
      return;
    }
    if (count < 0 && (libc.errno() === ERRNO.EAGAIN || libc.errno() === ERRNO.EINTR)) return;
    this.#hasInput = false; // its end, or an error after which nothing comes
    this.#options.onInputEnd?.();
  }

  /** Makes epoll's view agree with ours. */
  #updateWatches(): void {
    if (this.#isClosed) return;
    const { input, output } = this.#options;
    const wantsInput = this.#hasInput && this.#pump.isIdle;
    const wantsOutput = this.#hasOutput && this.#queue.length > 0;
    if (input === output && input !== undefined) {
      const interest = wantsInput ? (wantsOutput ? "both" : "input") : wantsOutput ? "output" : "none";
      this.#inputWatch = this.#setWatch(this.#inputWatch, input, interest);
      return;
    }
    if (input !== undefined) {
      this.#inputWatch = this.#setWatch(this.#inputWatch, input, wantsInput ? "input" : "none");
    }
    if (output !== undefined) {
      this.#outputWatch = this.#setWatch(this.#outputWatch, output, wantsOutput ? "output" : "none");
    }
  }

  #setWatch(watch: FdWatch | undefined, fd: Fd, interest: "input" | "output" | "both" | "none"): FdWatch | undefined {
    if (watch !== undefined) {
      watch.setInterest(interest);
      return watch;
    }
    if (interest === "none") return undefined;
    const onReady = (isReadable: boolean, isWritable: boolean): void => {
      if (isWritable) this.#flush();
      if (isReadable && !this.#isClosed) this.#readSome();
      this.#updateWatches();
    };
    try {
      return this.#options.watcher.watch(fd, interest, onReady);
    } catch (error) {
      if (!(error instanceof SyscallError) || error.errno !== "EPERM") throw error;
      // A regular file or /dev/null is always ready and epoll refuses it: an eventfd that is never drained is as ready.
      this.#alwaysReady ??= EventFd.create();
      this.#alwaysReady.signal();
      return this.#options.watcher.watch(this.#alwaysReady.fd, interest, onReady);
    }
  }
}

/** A character device whose other side is a stream of its own descriptors. */
export abstract class StreamEnd implements CharBackend, Disposable {
  protected abstract readonly stream: CharStream;
  #isClosed = false;

  write(bytes: Uint8Array): void {
    this.stream.write(bytes);
  }

  onInput(take: (bytes: Uint8Array) => number): void {
    this.stream.onInput(take);
  }

  inputReady(): void {
    this.stream.inputReady();
  }

  /** Calling it twice is harmless. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.stream.close();
    this.giveBack();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Closes what the stream was made of. */
  protected abstract giveBack(): void;
}
