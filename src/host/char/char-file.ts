import { fstatSync, realpathSync, statSync, unlinkSync } from "node:fs";
import type { CharBackend, Report } from "../../base/backends.ts";
import { fileId } from "../../base/file-id.ts";
import type { FdWatcher } from "../../base/signals.ts";
import { type Fd, fd } from "../../base/units.ts";
import { FCNTL } from "../constants.ts";
import { type CausesByErrno, check, ERRNO } from "../errors.ts";
import { libc } from "../libc.ts";
import { CharStream } from "./char-stream.ts";

const CAUSES: CausesByErrno = {
  otherwise: "TSVMM_OUTPUT_FILE",
  ENOENT: ["TSVMM_FILE_ABSENT", "its directory does not exist"],
  EACCES: ["TSVMM_FILE_DENIED", "this user may not write there"],
  EISDIR: ["TSVMM_FILE_KIND", "it is a directory: give a file"],
  ENXIO: "TSVMM_PIPE_UNREAD",
};

/**
 * Output into a file, or into a named pipe or another terminal. There is never input.
 *
 * What a file has is cut off by {@link begin}. Until then it is as it was found: one that was made here goes with
 * {@link close}.
 */
export class CharFile implements CharBackend, Disposable {
  readonly #path: string;
  readonly #action: string;
  readonly #stream: CharStream;
  readonly #isNew: boolean;
  #hasBegun = false;
  #file: Fd;

  /** @throws SyscallError with advice. */
  constructor(options: {
    readonly name: string;
    readonly path: string;
    readonly watcher: FdWatcher;
    readonly report: Report;
  }) {
    const { name, path, watcher, report } = options;
    this.#path = path;
    this.#action = `open ${path} for ${name} output`;
    const { O_WRONLY, O_CREAT, O_NONBLOCK, O_NOCTTY, O_CLOEXEC } = FCNTL;
    const flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    let file = libc.open(path, flags, 0);
    this.#isNew = file < 0 && libc.errno() === ERRNO.ENOENT;
    if (this.#isNew) file = libc.open(path, flags | O_CREAT, 0o644);
    this.#file = fd(check(file, this.#action, "open", CAUSES));
    this.#stream = new CharStream({ name, watcher, report, output: this.#file });
  }

  /** For checks of what is open; -1 after {@link close}. */
  get fd(): Fd {
    return this.#file;
  }

  /** The guest starts, or writes: a regular file is emptied, once. @throws SyscallError */
  begin(): void {
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    if (!fstatSync(this.#file).isFile()) return;
    check(libc.ftruncate(this.#file, 0), `empty ${this.#path}`, "ftruncate", {
      otherwise: "TSVMM_OUTPUT_FILE",
      EPERM: ["TSVMM_FILE_DENIED", "it may only be appended to"],
    });
  }

  write(bytes: Uint8Array): void {
    if (this.#file < 0) return;
    this.begin();
    this.#stream.write(bytes);
  }

  onInput(): void {}

  inputReady(): void {}

  close(): void {
    if (this.#file < 0) return;
    this.#stream.close();
    if (this.#isNew && !this.#hasBegun) this.#remove();
    libc.close(this.#file);
    this.#file = fd(-1);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Removes the file if it is still the one made here and empty: another process may have written or replaced it. */
  #remove(): void {
    try {
      const path = realpathSync(this.#path); // of a symbolic link it is the target that was made
      const found = statSync(path, { bigint: true });
      const ours = fstatSync(this.#file, { bigint: true });
      if (fileId(found) === fileId(ours) && ours.size === 0n) unlinkSync(path);
    } catch {
      // it is gone already
    }
  }
}
