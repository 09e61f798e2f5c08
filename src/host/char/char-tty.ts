import type { Report } from "../../base/backends.ts";
import type { FdWatcher } from "../../base/signals.ts";
import { type Fd, fd } from "../../base/units.ts";
import { FCNTL } from "../constants.ts";
import { libc } from "../libc.ts";
import { CharStream, StreamEnd } from "./char-stream.ts";
import { EscapeKeys } from "./escape-keys.ts";
import { isTerminal, reopenNonblocking } from "./terminal.ts";

/** What the standard streams are connected to, and whom to tell. */
export interface CharTtyOptions {
  /** For messages: whose bytes these are. */
  readonly name: string;
  readonly watcher: FdWatcher;
  readonly report: Report;
  /** Ctrl-A x was typed. Never called when input is no terminal. */
  readonly onQuit: () => void;
  /** Standard output has lost its reader. */
  readonly onOutputClosed?: () => void;
  /** Standard input and output when absent. */
  readonly input?: Fd;
  readonly output?: Fd;
}

/**
 * This process's terminal, or whatever its standard streams are: pipes, files, sockets. Escape keys are looked for on a
 * terminal only. The terminal's mode is not touched here: see RawTerminal.
 */
export class CharTty extends StreamEnd {
  protected readonly stream: CharStream;
  readonly #opened: readonly Fd[];

  constructor(options: CharTtyOptions) {
    super();
    const input = options.input ?? fd(0);
    const output = options.output ?? fd(1);
    const ownInput = reopenNonblocking(input, FCNTL.O_RDONLY);
    const ownOutput = reopenNonblocking(output, FCNTL.O_WRONLY);
    this.#opened = [ownInput, ownOutput].filter((opened) => opened !== undefined);
    const keys = isTerminal(input) ? new EscapeKeys(options.onQuit) : undefined;
    this.stream = new CharStream({
      name: options.name,
      watcher: options.watcher,
      report: options.report,
      input: ownInput ?? input,
      output: ownOutput ?? output,
      isNonblocking: ownOutput !== undefined,
      ...(keys === undefined ? {} : { filter: (bytes: Uint8Array) => keys.feed(bytes) }),
      ...(options.onOutputClosed === undefined ? {} : { onOutputClosed: options.onOutputClosed }),
    });
  }

  protected giveBack(): void {
    for (const opened of this.#opened) libc.close(opened);
  }
}
