import { fstatSync } from "node:fs";
import { type Fd, fd } from "../../base/units.ts";
import { FCNTL, TERMIOS, TERMIOS_STATE } from "../constants.ts";
import { check } from "../errors.ts";
import { libc } from "../libc.ts";

/** True when a descriptor is a terminal. */
export function isTerminal(descriptor: Fd): boolean {
  return libc.isatty(descriptor) === 1;
}

/**
 * A terminal in raw mode: each key goes to the program as it is, Ctrl-C and Ctrl-Z too, and nothing is echoed. Output
 * is still processed, so that log lines between the guest's start at the left.
 *
 * The mode belongs to the terminal, not to a thread. The thread that outlives the others should enter it and call
 * {@link restore} at exit.
 */
export class RawTerminal {
  readonly #descriptor: Fd;
  readonly #saved: Uint8Array;
  #isRaw = true;

  private constructor(descriptor: Fd, saved: Uint8Array) {
    this.#descriptor = descriptor;
    this.#saved = saved;
  }

  /**
   * @returns `undefined` when the descriptor is no terminal: nothing was changed.
   * @throws SyscallError
   */
  static enter(descriptor: Fd): RawTerminal | undefined {
    if (!isTerminal(descriptor)) return undefined;
    const saved = new Uint8Array(TERMIOS_STATE.size);
    check(libc.tcgetattr(descriptor, saved), "read the terminal's mode", "tcgetattr", "TSVMM_TERMINAL");
    const raw = rawState(saved, true);
    check(
      libc.tcsetattr(descriptor, TERMIOS.TCSANOW, raw),
      "put the terminal into raw mode",
      "tcsetattr",
      "TSVMM_TERMINAL",
    );
    return new RawTerminal(descriptor, saved);
  }

  /** Puts back the mode found; never throws, may be called twice and from `process.on("exit")`. */
  restore(): void {
    if (!this.#isRaw) return;
    this.#isRaw = false;
    libc.tcsetattr(this.#descriptor, TERMIOS.TCSANOW, this.#saved); // fails when the terminal is gone, which is no loss
  }
}

/**
 * A raw mode made of another mode, as bytes of struct termios. termios(3)
 *
 * @param processesOutput Keeps the driver's treatment of output as it was (a new line also returns the carriage).
 */
export function rawState(state: Uint8Array, processesOutput: boolean): Uint8Array {
  const raw = state.slice();
  const view = new DataView(raw.buffer);
  const clear = (offset: number, mask: number): void => {
    view.setUint32(offset, view.getUint32(offset, true) & ~mask, true);
  };
  const { IGNBRK, BRKINT, PARMRK, ISTRIP, INLCR, IGNCR, ICRNL, IXON } = TERMIOS;
  clear(TERMIOS_STATE.c_iflag, IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  if (!processesOutput) clear(TERMIOS_STATE.c_oflag, TERMIOS.OPOST);
  clear(TERMIOS_STATE.c_lflag, TERMIOS.ECHO | TERMIOS.ECHONL | TERMIOS.ICANON | TERMIOS.ISIG | TERMIOS.IEXTEN);
  clear(TERMIOS_STATE.c_cflag, TERMIOS.CSIZE | TERMIOS.PARENB);
  view.setUint32(TERMIOS_STATE.c_cflag, view.getUint32(TERMIOS_STATE.c_cflag, true) | TERMIOS.CS8, true);
  raw[TERMIOS_STATE.c_cc + TERMIOS.VMIN] = 1;
  raw[TERMIOS_STATE.c_cc + TERMIOS.VTIME] = 0;
  return raw;
}

/**
 * A second, nonblocking open of the terminal or pipe behind a descriptor. O_NONBLOCK belongs to the open file: set on
 * the descriptor itself it would hit the shell and every other program that shares it.
 *
 * @param access `FCNTL.O_RDONLY` or `FCNTL.O_WRONLY`.
 * @returns `undefined` where that cannot be: files, sockets, a terminal of another user. The caller closes it.
 */
export function reopenNonblocking(descriptor: Fd, access: number): Fd | undefined {
  // a file's position must stay shared
  if (!isTerminal(descriptor) && !fstatSync(descriptor).isFIFO()) return undefined;
  const flags = access | FCNTL.O_NONBLOCK | FCNTL.O_NOCTTY | FCNTL.O_CLOEXEC;
  const opened = libc.open(`/proc/self/fd/${descriptor}`, flags, 0);
  return opened < 0 ? undefined : fd(opened);
}
