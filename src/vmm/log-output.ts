import { closeSync, constants, openSync, writeSync } from "node:fs";
import { adviceOf, errnoOf, openError, SpecError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { fd } from "../base/units.ts";
import { reopenNonblocking } from "../host/char/terminal.ts";
import { FCNTL, POLL, POLLFD } from "../host/constants.ts";
import { libc } from "../host/libc.ts";

const STDERR = 2;
/** How long a line waits for a reader that takes nothing, in milliseconds. */
const PATIENCE_MS = 1000;
/** Most that is written to a blocking descriptor that polls as writable. */
const POLLED_BYTES = 256;

/**
 * Characters that a terminal obeys or does not show, beyond those that JSON escapes. Details in a line are JSON in
 * either format, so a JSON escape keeps their meaning.
 */
const BEYOND_ASCII = /[\x7f-\x9f\p{Cf}\p{Zl}\p{Zp}]/gu;
const escaped = (characters: string): string =>
  Array.from({ length: characters.length }, (_, at) => {
    const code = characters.charCodeAt(at); // of a pair, both halves: \uXXXX is UTF-16
    return `\\u${code.toString(16).padStart(4, "0")}`;
  }).join("");

const NOTHING: Uint8Array = new Uint8Array(0);

/**
 * Where lines go. A log that cannot be written is said once, and never in the way of the machine. Lines are written
 * synchronously; a reader that takes nothing for a second costs lines, which are counted, until it reads again.
 */
export class LogOutput implements Disposable {
  /** Called before the next line when lines go out again, after so many were lost. */
  onLost: (count: number) => void = () => undefined;
  readonly #path: string | undefined;
  readonly #patienceMs: number;
  readonly #poll: DataView = new DataView(new ArrayBuffer(POLLFD.size));
  #descriptor: number;
  #ownsDescriptor = true;
  /** Standard error that others share and that cannot be opened anew blocks: it is asked before each small write. */
  #isBlocking = false;
  #isBroken = false;
  /** The reader took nothing for as long as a line waits: the next ones do not wait. */
  #isStalled = false;
  /** The end of a line whose start was written. */
  #rest: Uint8Array = NOTHING;
  #lostLines = 0;

  /**
   * @param path Standard error when absent.
   * @throws SpecError or HostError when the file cannot be opened.
   */
  constructor(path: string | undefined, patienceMs: number = PATIENCE_MS) {
    this.#path = path;
    this.#patienceMs = patienceMs;
    if (path !== undefined) {
      this.#descriptor = openFile(path);
      return;
    }
    const opened = reopenNonblocking(fd(STDERR), FCNTL.O_WRONLY);
    this.#descriptor = opened ?? STDERR;
    this.#ownsDescriptor = opened !== undefined;
    this.#isBlocking = opened === undefined;
  }

  write(line: string): void {
    if (this.#descriptor < 0 || this.#isBroken) return;
    try {
      this.#rest = this.#send(this.#rest);
      const isLost = this.#rest.length > 0 || (this.#lostLines > 0 && !this.#isWritable(0));
      if (isLost) {
        this.#lostLines++;
        return;
      }
      this.#tellLost();
      const bytes = Buffer.from(line.replace(BEYOND_ASCII, escaped));
      const left = this.#send(bytes);
      if (left.length === bytes.length) this.#lostLines++;
      else this.#rest = left;
    } catch (error) {
      this.#break(errnoOf(error));
    }
  }

  close(): void {
    if (this.#ownsDescriptor && this.#descriptor >= 0) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** @returns What the reader has not taken, though it was waited for. */
  #send(bytes: Uint8Array): Uint8Array {
    let deadline = performance.now() + (this.#isStalled ? 0 : this.#patienceMs);
    for (let done = 0; done < bytes.length; ) {
      const count = this.#sendSome(bytes, done, deadline);
      if (count === 0 && performance.now() >= deadline) {
        this.#isStalled = true;
        return bytes.subarray(done);
      }
      if (count === 0) continue;
      done += count;
      this.#isStalled = false;
      deadline = performance.now() + this.#patienceMs;
    }
    return NOTHING;
  }

  /** @returns How many bytes went; 0 when the reader took none until now, or until the deadline. */
  #sendSome(bytes: Uint8Array, start: number, deadline: number): number {
    if (this.#isBlocking && !this.#isWritable(deadline)) return 0;
    const most = this.#isBlocking ? POLLED_BYTES : bytes.length;
    try {
      return writeSync(this.#descriptor, bytes, start, Math.min(bytes.length - start, most));
    } catch (error) {
      if (errnoOf(error) !== "EAGAIN") throw error;
      this.#isWritable(deadline);
      return 0;
    }
  }

  /** Waits for room, until the deadline. */
  #isWritable(deadline: number): boolean {
    this.#poll.setInt32(POLLFD.fd, this.#descriptor, true);
    this.#poll.setInt16(POLLFD.events, POLL.POLLOUT, true);
    const left = Math.max(0, Math.ceil(deadline - performance.now()));
    return libc.poll(new Uint8Array(this.#poll.buffer), 1, left) === 1;
  }

  #tellLost(): void {
    const count = this.#lostLines;
    if (count === 0) return;
    this.#lostLines = 0;
    this.onLost(count);
    if (this.#lostLines > 0) this.#lostLines += count; // the telling was
  }

  #break(errno: string): void {
    this.#isBroken = true;
    if (this.#path === undefined) return; // standard error itself is broken
    const text = `tsvmm: Cannot write the log to ${this.#path}: ${errno}: what follows is lost`;
    const stderr = new LogOutput(undefined, this.#patienceMs);
    stderr.write(`${printable(text)}\n`);
    stderr.close();
  }
}

/**
 * Nonblocking, for a named pipe: without a reader it does not open, with a slow one it takes what there is room for.
 */
function openFile(path: string): number {
  const { O_WRONLY, O_CREAT, O_APPEND, O_NONBLOCK, O_NOCTTY } = constants;
  try {
    return openSync(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY, 0o666);
  } catch (error) {
    if (errnoOf(error) !== "ENXIO") throw openError("log.file", path, error);
    throw new SpecError(
      "TSVMM_PIPE_UNREAD",
      "log.file",
      `Cannot open ${path}: ENXIO (${adviceOf("TSVMM_PIPE_UNREAD")})`,
    );
  }
}
