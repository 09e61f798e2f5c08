import { GUEST_CRASH } from "../../lab/guest-session.ts";
import { Machine, type MachineInput, type MachineStatistics, type WaitOptions } from "../../src/index.ts";
import { StallError } from "./scenario-program.ts";

/** What one command typed at the guest's shell gave. */
export interface CommandResult {
  readonly status: number;
  /** Standard output and error, lines ending in `\n`. */
  readonly output: string;
}

/** Guests in an emulated host are slow, and slower still beside other work: nothing waits longer than it must. */
const BOOT = { timeoutMs: 240_000 };
const COMMAND = { timeoutMs: 120_000 };
const END = { timeoutMs: 60_000 };

/** How far back it is looked for, in characters. */
const CRASH_WINDOW = 1000;

/** Cursor questions and colours: the guest's shell believes that a terminal listens. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape byte is what begins them
const TERMINAL_SEQUENCES = /\x1b\[[0-9;?]*[A-Za-z]/g;

/** A Linux guest with a shell on its serial port, driven through the typed API. */
export class GuestShell {
  readonly machine: Machine;
  #count = 0;
  /** The guest's kernel is meant to crash. */
  mayCrash = false;

  private constructor(machine: Machine) {
    this.machine = machine;
  }

  /** Starts a guest and waits for its shell; what it prints and what the machine logs goes to our own output. */
  static async boot(input: MachineInput): Promise<GuestShell> {
    const machine = await Machine.start(input);
    machine.serial.onOutput((text) => process.stdout.write(text));
    machine.on("log", (level, text, details) => {
      if (level !== "debug") process.stdout.write(`\n[tsvmm] ${level}: ${text} ${JSON.stringify(details ?? {})}\n`);
    });
    const shell = new GuestShell(machine);
    await shell.waitForPrompt();
    return shell;
  }

  /** Waits for the first prompt, also after a reboot. */
  async waitForPrompt(): Promise<void> {
    await this.#waitFor(/guest:[^\n]*# /, BOOT);
    // The shell breaks what is typed at the terminal's width, and the echo would no longer be one line.
    this.machine.serial.write("stty cols 2000\n");
    await this.#waitFor(/guest:[^\n]*# /, COMMAND);
  }

  /** Waits for output, and no longer than until the guest's kernel has crashed. */
  async #waitFor(pattern: RegExp | string, options: WaitOptions): Promise<RegExpMatchArray> {
    const { serial } = this.machine;
    const match = serial.waitFor(pattern, options);
    match.catch(() => undefined); // when the crash was first
    let stop: () => void = () => undefined;
    const crash = new Promise<never>((_, reject) => {
      stop = serial.onOutput(() => {
        const text = serial.text.slice(-CRASH_WINDOW);
        const found = this.mayCrash ? null : GUEST_CRASH.exec(text);
        if (found !== null) reject(new StallError(`The guest's kernel crashed: ${text.slice(found.index)}`));
      });
    });
    try {
      return await Promise.race([match, crash]);
    } finally {
      stop();
    }
  }

  async run(command: string): Promise<CommandResult> {
    // The typed line holds `$?`, what the shell prints holds the number: only the latter matches.
    const mark = `end${this.#count++}`;
    this.machine.serial.write(`${command}; echo ${mark}=$?\n`);
    await this.#waitFor(`${mark}=$?`, COMMAND); // the echo of what was typed
    const match = await this.#waitFor(new RegExp(`([\\s\\S]*?)${mark}=(\\d+)`), COMMAND);
    await this.#waitFor(/guest:[^\n]*# /, COMMAND); // what is typed before the prompt is echoed twice
    const output = (match[1] ?? "")
      .replaceAll("\r", "")
      .replaceAll(TERMINAL_SEQUENCES, "")
      .replace(/^[^\n]*\n/, "");
    return { status: Number(match[2]), output };
  }

  /** Types a command that ends the guest, and waits until the machine has ended. */
  async end(command: string): Promise<{ readonly status: number; readonly statistics: MachineStatistics }> {
    this.machine.serial.write(`${command}\n`);
    const timer = setTimeout(() => void this.machine.stop(`the guest did not end by "${command}"`), END.timeoutMs);
    const exit = await this.machine.exited;
    clearTimeout(timer);
    if (exit.reason !== "powerOff") throw new Error(`The machine ended otherwise: ${exit.text}`);
    return { status: exit.status, statistics: await this.machine.statistics() };
  }
}
