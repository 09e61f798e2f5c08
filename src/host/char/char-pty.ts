import type { Report } from "../../base/backends.ts";
import type { FdWatcher } from "../../base/signals.ts";
import { UndoStack } from "../../base/undo-stack.ts";
import { type Fd, fd } from "../../base/units.ts";
import { FCNTL, TERMIOS, TERMIOS_STATE } from "../constants.ts";
import { type CausesByErrno, check } from "../errors.ts";
import { libc } from "../libc.ts";
import { CharStream, StreamEnd } from "./char-stream.ts";
import { rawState } from "./terminal.ts";

/**
 * A pseudo-terminal that a terminal program opens, such as screen or picocom. pty(7)
 *
 * The slave side is kept open too. Otherwise the master reports a permanent hang-up after the first client closes, and
 * output between clients is lost.
 */
export class CharPty extends StreamEnd {
  /** What to open, such as /dev/pts/5. */
  readonly path: string;
  readonly #ours: Fd;
  readonly #users: Fd;
  protected readonly stream: CharStream;

  /** @throws SyscallError */
  constructor(options: { readonly name: string; readonly watcher: FdWatcher; readonly report: Report }) {
    super();
    const { name, watcher, report } = options;
    const action = `make a pseudo-terminal for ${name}`;
    const { O_RDWR, O_NOCTTY, O_NONBLOCK, O_CLOEXEC } = FCNTL;
    const causes: CausesByErrno = {
      otherwise: "TSVMM_TERMINAL",
      ENOSPC: ["TSVMM_TERMINAL", "no pseudo-terminal is left: raise kernel.pty.max"],
      ENOENT: ["TSVMM_TERMINAL", "mount devpts at /dev/pts"],
    };
    const flags = O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
    const undo = new UndoStack();
    try {
      this.#ours = undo.own(fd(check(libc.open("/dev/ptmx", flags, 0), action, "open", causes)), libc.close);
      const word = new Int32Array(1);
      const bytes = new Uint8Array(word.buffer);
      // 0 unlocks
      check(libc.ioctlStruct(this.#ours, TERMIOS.TIOCSPTLCK, bytes), action, "ioctl TIOCSPTLCK", "TSVMM_TERMINAL");
      check(libc.ioctlStruct(this.#ours, TERMIOS.TIOCGPTN, bytes), action, "ioctl TIOCGPTN", "TSVMM_TERMINAL");
      this.path = `/dev/pts/${word[0] ?? 0}`;
      const peerFlags = O_RDWR | O_NOCTTY | O_CLOEXEC;
      const peer = check(
        libc.ioctl(this.#ours, TERMIOS.TIOCGPTPEER, peerFlags),
        action,
        "ioctl TIOCGPTPEER",
        "TSVMM_TERMINAL",
      );
      this.#users = undo.own(fd(peer), libc.close);
      const state = new Uint8Array(TERMIOS_STATE.size);
      check(libc.tcgetattr(this.#users, state), action, "tcgetattr", "TSVMM_TERMINAL");
      check(
        libc.tcsetattr(this.#users, TERMIOS.TCSANOW, rawState(state, false)),
        action,
        "tcsetattr",
        "TSVMM_TERMINAL",
      );
    } catch (error) {
      throw undo.after(error);
    }
    this.stream = new CharStream({ name, watcher, report, input: this.#ours, output: this.#ours });
  }

  protected giveBack(): void {
    libc.close(this.#users);
    libc.close(this.#ours);
  }
}
