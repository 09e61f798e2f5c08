import { type ChildProcess, spawn } from "node:child_process";
import type { HostError } from "../src/base/errors.ts";
import { ToolError } from "../tools/tool-error.ts";

/** What one command typed at a guest's shell prompt gave. */
export interface CommandResult {
  readonly status: number;
  /** What it printed, without the echo of the command; lines end in `\n`. */
  readonly output: string;
  /** From typing it until the next prompt. */
  readonly seconds: number;
}

/** How long to wait for a guest, in milliseconds; generous, for nothing waits longer than it must. */
export const GUEST_TIMEOUT_MS = { boot: 240_000, bootSilence: 60_000, command: 60_000, powerOff: 60_000 } as const;

/**
 * What a guest's kernel prints when its processors do not do what its code says: emulation can be the reason, see
 * README.md.
 */
export const GUEST_CRASH: RegExp = /BUG: |Kernel panic - not syncing|stack guard page was hit/;

/** The shell prompt of our guest disk and initramfs. */
const PROMPT = /guest:[^\n]*# $/;
/** Cursor questions and colours: the guest's shell believes that a terminal listens. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape byte is what begins them
const TERMINAL_SEQUENCES = /\x1b\[[0-9;?]*[A-Za-z]/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: likewise
const UNFINISHED_SEQUENCE = /\x1b(\[[0-9;?]*)?$/;

/**
 * A VMM that runs with its guest's serial port on its standard streams, and us at the keyboard.
 *
 * Everything is awaited: a prompt before typing, a status after it, the end of the process after power off.
 */
export class GuestSession {
  readonly #child: ChildProcess;
  readonly #ended: Promise<number>;
  #transcript = "";
  /** The beginning of a terminal sequence whose end has not come yet. */
  #unfinished = "";
  /** Where the part of the transcript begins that no wait has consumed yet. */
  #position = 0;
  #lastOutputMs = 0;
  #complaints = "";
  #status: number | undefined;
  #wake: () => void = () => undefined;

  /**
   * @param commandLine Shell command that starts the VMM: the user's own spelling, so that a shell expands `~`.
   * @param onOutput Takes what the guest prints on its serial port, as it comes.
   */
  constructor(
    commandLine: string,
    onOutput: (text: string) => void = () => undefined,
    env: NodeJS.ProcessEnv = process.env,
  ) {
    // "exec" makes the VMM our own child: killing it is killing the VMM.
    this.#child = spawn("bash", ["-c", `exec ${commandLine}`], { stdio: ["pipe", "pipe", "pipe"], env });
    this.#child.stdout?.on("data", (chunk: Buffer) => {
      const raw = this.#unfinished + chunk.toString("latin1");
      const whole = raw.length - (UNFINISHED_SEQUENCE.exec(raw)?.[0].length ?? 0);
      this.#unfinished = raw.slice(whole);
      const text = raw.slice(0, whole).replaceAll("\r", "").replaceAll(TERMINAL_SEQUENCES, "");
      this.#transcript += text;
      this.#lastOutputMs = Date.now();
      onOutput(text);
      this.#wake();
    });
    this.#child.stderr?.on("data", (chunk: Buffer) => {
      this.#complaints += chunk.toString();
    });
    this.#child.stdin?.on("error", () => undefined);
    this.#ended = new Promise((resolve) => {
      const end = (status: number): void => {
        this.#status = status;
        resolve(status);
        this.#wake();
      };
      this.#child.on("error", () => end(127));
      this.#child.on("close", (status, signal) => end(status ?? (signal === null ? 1 : 128)));
    });
  }

  /** Everything the guest has printed. */
  get transcript(): string {
    return this.#transcript;
  }

  /** Everything the VMM itself has said on its standard error. */
  get complaints(): string {
    return this.#complaints;
  }

  /** The VMM's process. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /**
   * Waits until what the guest prints matches; what came up to the match's end counts as read.
   *
   * @param what Named in the error: "the shell prompt".
   * @param silenceMs How long the guest may print nothing meanwhile.
   * @throws HostError when the VMM ends or the time is up first.
   */
  async waitFor(
    pattern: RegExp,
    what: string,
    timeoutMs: number,
    silenceMs: number = timeoutMs,
  ): Promise<RegExpExecArray> {
    const startedMs = Date.now();
    const deadline = startedMs + timeoutMs;
    for (;;) {
      const match = pattern.exec(this.#transcript.slice(this.#position));
      if (match !== null) {
        this.#position += match.index + match[0].length;
        return match;
      }
      if (this.#status !== undefined) throw this.#failure(`the VMM ended with status ${this.#status} before ${what}`);
      const now = Date.now();
      if (now >= deadline) throw this.#failure(`${what} did not come within ${timeoutMs / 1000} s`);
      const silenceEnds = Math.max(this.#lastOutputMs, startedMs) + silenceMs;
      if (now >= silenceEnds) throw this.#failure(`it said nothing for ${silenceMs / 1000} s before ${what}`);
      await this.#change(Math.min(deadline, silenceEnds));
    }
  }

  /**
   * Waits for the first shell prompt of a guest that tells on the way how far it is.
   *
   * @param silenceMs How long it may say nothing.
   * @throws HostError when the VMM ends, the guest's kernel crashes or falls silent, or the time is up first.
   */
  async booted(silenceMs: number = GUEST_TIMEOUT_MS.bootSilence): Promise<void> {
    const either = new RegExp(`${PROMPT.source}|${GUEST_CRASH.source}`);
    const [found] = await this.waitFor(either, "the shell prompt", GUEST_TIMEOUT_MS.boot, silenceMs);
    if (!PROMPT.test(found)) throw this.#failure("its kernel crashed before the shell prompt");
  }

  /** Types a command at the prompt and waits for its end and the next prompt. */
  async run(command: string, timeoutMs: number = GUEST_TIMEOUT_MS.command): Promise<CommandResult> {
    const startedMs = Date.now();
    // Both marks are echoed in another spelling than they are printed in, also where the echo wraps.
    this.type(`echo "<""<"; ${command}; echo "[status $?]"\n`);
    await this.waitFor(/<<\n/, `the start of ${command}`, timeoutMs);
    const start = this.#position;
    const match = await this.waitFor(/\[status (\d+)\]\n/, `the end of ${command}`, timeoutMs);
    const output = this.#transcript.slice(start, this.#position - match[0].length);
    await this.waitFor(PROMPT, "the next prompt", timeoutMs);
    return { status: Number(match[1]), output, seconds: (Date.now() - startedMs) / 1000 };
  }

  /** Sends characters to the guest's serial port. */
  type(text: string): void {
    this.#child.stdin?.write(text);
  }

  /** Types `poweroff` and waits until the VMM has ended. Answers its exit status. */
  async powerOff(): Promise<number> {
    this.type("poweroff\n");
    return await this.ended(GUEST_TIMEOUT_MS.powerOff);
  }

  /**
   * Waits until the VMM has ended. Answers its exit status.
   *
   * @throws HostError when the time is up; the VMM is killed then.
   */
  async ended(timeoutMs: number): Promise<number> {
    const deadline = Date.now() + timeoutMs;
    while (this.#status === undefined) {
      if (Date.now() >= deadline) {
        this.kill();
        throw this.#failure(`the VMM did not end within ${timeoutMs / 1000} s`);
      }
      await this.#change(deadline);
    }
    return await this.#ended;
  }

  /** Sends a signal to the VMM. */
  kill(signal: NodeJS.Signals = "SIGKILL"): void {
    this.#child.kill(signal);
  }

  /** Waits for the next output, the VMM's end, or the deadline. */
  #change(deadline: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(1, deadline - Date.now()));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #failure(text: string): HostError {
    const said = this.#complaints.trim() === "" ? "" : `\nThe VMM said:\n${this.#complaints.trimEnd()}`;
    const printed = this.#transcript.trimEnd().split("\n").slice(-15).join("\n  ");
    return new ToolError(`Cannot go on with the guest: ${text}${said}\nIts serial port's last lines:\n  ${printed}`);
  }
}
