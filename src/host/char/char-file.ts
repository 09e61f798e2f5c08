import type { CharBackend, Report } from "../../base/backends.ts";
import type { FdWatcher } from "../../base/signals.ts";
import { type Fd, fd } from "../../base/units.ts";
import { FCNTL } from "../constants.ts";
import { check } from "../errors.ts";
import { libc } from "../libc.ts";
import { CharStream } from "./char-stream.ts";

/** Output into a file, which is emptied first, or into a named pipe or another terminal. There is never input. */
export class CharFile implements CharBackend {
  readonly #stream: CharStream;
  #file: Fd;

  /** @throws SyscallError with advice. */
  constructor(options: {
    readonly name: string;
    readonly path: string;
    readonly watcher: FdWatcher;
    readonly report: Report;
  }) {
    const { name, path, watcher, report } = options;
    const { O_WRONLY, O_CREAT, O_TRUNC, O_NONBLOCK, O_NOCTTY, O_CLOEXEC } = FCNTL;
    const flags = O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    this.#file = fd(
      check(libc.open(path, flags, 0o644), `open ${path} for ${name} output`, "open", {
        ENOENT: "its directory does not exist",
        EACCES: "this user may not write there",
        EISDIR: "it is a directory: give a file",
        ENXIO: "nobody reads this pipe: start the reader first",
      }),
    );
    this.#stream = new CharStream({ name, watcher, report, output: this.#file });
  }

  write(bytes: Uint8Array): void {
    this.#stream.write(bytes);
  }

  onInput(): void {}

  inputReady(): void {}

  close(): void {
    this.#stream.close();
    if (this.#file >= 0) libc.close(this.#file);
    this.#file = fd(-1);
  }
}
