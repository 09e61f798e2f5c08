import { closeSync, openSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { errnoOf, openError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import type { LogLevel } from "./shared/messages.ts";

/** Lowest level shown; `silent` shows nothing, `trace` every step of guest and devices, which are `log` events of a Machine then too. */
export type LogThreshold = LogLevel | "silent";

export interface LogSettings {
  readonly level: LogThreshold;
  /** `auto`: pretty on standard error where that is a terminal, JSON lines otherwise. */
  readonly format: "auto" | "pretty" | "json";
  /** Appends to a file instead of standard error. */
  readonly file?: string;
}

/** A place for log lines. Only the control thread has one; workers send {@link LogMessage}s. */
export interface Logger {
  log(level: LogLevel, text: string, details?: Readonly<Record<string, unknown>>): void;
  /** Closes the file; lines that come later are dropped. */
  close(): void;
}

const RANK: Readonly<Record<LogThreshold, number>> = {
  trace: 10,
  debug: 20,
  info: 30,
  warn: 40,
  error: 50,
  silent: 100,
};

/** The part of pino we use. */
type Pino = Readonly<Record<LogLevel, (details: object, text: string) => void>>;

/**
 * A pino logger that is loaded by its first line: importing pino takes about 30 ms, and most runs log nothing.
 *
 * Lines are written synchronously, so that the last one before a crash is there.
 *
 * @throws SpecError or HostError when the file cannot be opened.
 */
export function createLogger(settings: LogSettings): Logger {
  const output = new LogOutput(settings.level === "silent" ? undefined : settings.file);
  let pino: Pino | undefined;
  return {
    log(level, text, details = {}) {
      if (RANK[level] < RANK[settings.level]) return;
      pino ??= loadPino(settings, output);
      pino[level](details, printable(text));
    },
    close: () => output.close(),
  };
}

const STDERR = 2;
/** How often a full pipe that does not block is tried again, and how many milliseconds lie between: a second in all. */
const RETRIES = 100;
const RETRY_MS = 10;

/**
 * What a terminal obeys or does not show, beyond what JSON escapes by itself: details in a line are JSON in either format, so that an
 * escape of JSON says the same.
 */
const BEYOND_ASCII = /[\x7f-\x9f\p{Cf}\p{Zl}\p{Zp}]/gu;
const escaped = (characters: string): string =>
  Array.from({ length: characters.length }, (_, at) => {
    const code = characters.charCodeAt(at); // of a pair, both halves: \uXXXX is UTF-16
    return `\\u${code.toString(16).padStart(4, "0")}`;
  }).join("");

/** Where lines go: a log that cannot be written is said once, and never in the way of the machine. */
class LogOutput {
  readonly #path: string | undefined;
  #descriptor: number;
  #isBroken = false;

  constructor(path: string | undefined) {
    this.#path = path;
    try {
      this.#descriptor = path === undefined ? STDERR : openSync(path, "a");
    } catch (error) {
      throw openError("log.file", path ?? "", error);
    }
  }

  write(line: string): void {
    if (this.#descriptor < 0 || this.#isBroken) return;
    const bytes = Buffer.from(line.replace(BEYOND_ASCII, escaped));
    try {
      for (let done = 0; done < bytes.length; ) done += this.#writeSome(bytes, done);
    } catch (error) {
      this.#isBroken = true;
      if (this.#path === undefined) return; // nobody is there to be told
      const text = `tsvmm: Cannot write the log to ${this.#path}: ${errnoOf(error)}: what follows is lost`;
      new LogOutput(undefined).write(`${printable(text)}\n`);
    }
  }

  #writeSome(bytes: Buffer, start: number): number {
    for (let left = RETRIES; ; left--) {
      try {
        return writeSync(this.#descriptor, bytes, start);
      } catch (error) {
        if (errnoOf(error) !== "EAGAIN" || left === 0) throw error;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
      }
    }
  }

  close(): void {
    if (this.#path !== undefined && this.#descriptor >= 0) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }
}

function loadPino(settings: LogSettings, output: LogOutput): Pino {
  const require = createRequire(import.meta.url);
  // Cast: require answers `any`; this is pino's CommonJS export.
  const pino = require("pino") as typeof import("pino").default;
  const options = { base: null, level: settings.level };
  const { file, format } = settings;
  const isPretty = format === "pretty" || (format === "auto" && file === undefined && process.stderr.isTTY);
  if (!isPretty) return pino(options, output);
  // Cast: as above, pino-pretty's CommonJS export.
  const { prettyFactory } = require("pino-pretty") as typeof import("pino-pretty");
  const colorize = file === undefined && process.stderr.isTTY && process.env["NO_COLOR"] === undefined;
  const prettify = prettyFactory({ colorize, translateTime: "HH:MM:ss.l", ignore: "pid,hostname,trace" });
  return pino(options, { write: (line: string) => output.write(prettify(line)) });
}
