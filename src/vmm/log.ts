import { createRequire } from "node:module";
import { printable } from "../base/printable.ts";
import { LogOutput } from "./log-output.ts";
import type { LogLevel } from "./shared/messages.ts";
import type { NamedFile } from "./spec/outputs.ts";

/**
 * Lowest level shown; `silent` shows nothing, `trace` every step of guest and devices, which are `log` events of a
 * Machine then too.
 */
export type LogThreshold = LogLevel | "silent";

export interface LogSettings {
  readonly level: LogThreshold;
  /** `auto`: pretty on standard error where that is a terminal, JSON lines otherwise. */
  readonly format: "auto" | "pretty" | "json";
  /** Appends to a file instead of standard error. */
  readonly file?: string;
}

/** The file that is written with these settings, for the checks of a spec. */
export function logFiles(settings: LogSettings | undefined): readonly NamedFile[] {
  if (settings?.file === undefined || settings.level === "silent") return [];
  return [{ where: "log.file", path: settings.file }];
}

/** A place for log lines. Only the control thread has one; workers send {@link LogMessage}s. */
export interface Logger extends Disposable {
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

/** Makes a logger that writes its lines there. */
export type LogLoader = (settings: LogSettings, output: LogOutput) => Pino;

const NO_LOG: Logger = { log: () => undefined, close: () => undefined, [Symbol.dispose]: () => undefined };

/** How long a machine runs before pino is loaded, in milliseconds, where no line needs it sooner. */
const LOAD_DELAY = 100;

/**
 * A pino logger. Importing pino takes 30 ms, and most runs log nothing. So the first line imports it, or a timer when
 * the machine has run for a moment. Later the package may have been replaced, or descriptors have run out. A log with
 * lines of the start imports it while the threads load, before the guest runs. A log that cannot be loaded is lost,
 * which is said with the first line that is.
 *
 * Lines are written synchronously, so that the last one before a crash is there.
 *
 * @throws SpecError or HostError when the file cannot be opened.
 */
export function createLogger(settings: LogSettings, load: LogLoader = loadPino): Logger {
  if (settings.level === "silent") return NO_LOG;
  const output = new LogOutput(settings.file);
  let pino: Pino | undefined;
  const loaded = (): Pino => {
    clearTimeout(timer);
    pino ??= tryToLoad(load, settings, output);
    return pino;
  };
  output.onLost = (count) => loaded().warn({}, `${count} lines of the log were lost: its reader is too slow`);
  const timer = setTimeout(loaded, LOAD_DELAY).unref();
  const atOnce = RANK.info >= RANK[settings.level] ? setImmediate(loaded) : undefined;
  const close = (): void => {
    clearTimeout(timer);
    clearImmediate(atOnce);
    output.close();
  };
  return {
    log(level, text, details = {}) {
      if (RANK[level] >= RANK[settings.level]) loaded()[level](details, printable(text));
    },
    close,
    [Symbol.dispose]: close,
  };
}

function tryToLoad(load: LogLoader, settings: LogSettings, output: LogOutput): Pino {
  try {
    return load(settings, output);
  } catch (error) {
    const [reason = ""] = (error instanceof Error ? error.message : String(error)).split("\n", 1);
    let isTold = false;
    const lose = (): void => {
      if (isTold) return;
      isTold = true;
      const text = printable(`Cannot load the log's package: ${reason}: the log is lost`);
      const stderr = new LogOutput(undefined);
      stderr.write(`tsvmm: ${text}\n`);
      stderr.close();
    };
    return { trace: lose, debug: lose, info: lose, warn: lose, error: lose };
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
