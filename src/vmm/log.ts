import { createRequire } from "node:module";
import type { LogLevel } from "./messages.ts";

/** Lowest level shown; `silent` shows nothing, `trace` every step of guest and devices, which are `log` events of a Machine then too. */
export type LogThreshold = LogLevel | "silent";

export interface LogSettings {
  readonly level: LogThreshold;
  /** `auto`: pretty where standard error is a terminal, JSON lines otherwise. */
  readonly format: "auto" | "pretty" | "json";
  /** Appends JSON lines to a file instead of standard error. */
  readonly file?: string;
}

/** A place for log lines. Only the control thread has one; workers send {@link LogMessage}s. */
export interface Logger {
  log(level: LogLevel, text: string, details?: Readonly<Record<string, unknown>>): void;
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
type Sink = Readonly<Record<LogLevel, (details: object, text: string) => void>>;

/**
 * A pino logger that is loaded by its first line: importing pino takes about 30 ms, and most runs log nothing.
 *
 * Lines are written synchronously to descriptor 2, so that the last one before a crash is there.
 */
export function createLogger(settings: LogSettings): Logger {
  let sink: Sink | undefined;
  return {
    log(level, text, details = {}) {
      if (RANK[level] < RANK[settings.level]) return;
      sink ??= openSink(settings);
      sink[level](details, text);
    },
  };
}

function openSink(settings: LogSettings): Sink {
  const require = createRequire(import.meta.url);
  // Cast: require answers `any`; this is pino's CommonJS export.
  const pino = require("pino") as typeof import("pino").default;
  const options = { base: null, level: settings.level };
  const isPretty =
    settings.file === undefined &&
    (settings.format === "pretty" || (settings.format === "auto" && process.stderr.isTTY));
  if (isPretty) {
    // Cast: as above, pino-pretty's CommonJS export.
    const pretty = require("pino-pretty") as typeof import("pino-pretty");
    // The guest may have the terminal in raw mode, where a bare line feed does not return the carriage.
    const colorize = process.stderr.isTTY && process.env["NO_COLOR"] === undefined;
    return pino(
      options,
      pretty({ destination: 2, sync: true, colorize, translateTime: "HH:MM:ss.l", ignore: "pid,hostname,trace" }),
    );
  }
  return pino(options, pino.destination({ dest: settings.file ?? 2, sync: true, append: true }));
}
