import { hostErrorOf, SpecError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";

/** Styles for one output stream; they do nothing where colours are not wanted. */
export interface Style {
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
}

/** What decides about colours. */
export interface StyleTarget {
  readonly isTTY?: boolean;
}

/** Colours on terminals, unless NO_COLOR is set (no-color.org) or the terminal is dumb. */
export function styleFor(stream: StyleTarget, environment: Readonly<Record<string, string | undefined>>): Style {
  const isPlain = stream.isTTY !== true || (environment["NO_COLOR"] ?? "") !== "" || environment["TERM"] === "dumb";
  const wrap = (code: number) => (text: string) => (isPlain ? text : `\x1b[${code}m${text}\x1b[0m`);
  return { bold: wrap(1), dim: wrap(2), red: wrap(31) };
}

/** Exit statuses that are this program's own. */
export const EXIT_STATUS = { hostFailure: 1, badInput: 2 } as const;

/**
 * Longest text about a command line, and what is left of a longer one at its start and end: a value may have any
 * length.
 */
const LONGEST = { whole: 500, start: 300, end: 150 } as const;

function shortened(text: string): string {
  if (text.length <= LONGEST.whole) return text;
  const { start, end } = LONGEST;
  return `${text.slice(0, start)}… (${text.length - start - end} more characters) …${text.slice(-end)}`;
}

const printableLines = (text: string): string => text.split("\n").map(printable).join("\n");

/**
 * How an error is shown, and the exit status. An error that the user or the host caused is one line. Only an error of
 * the program itself has its stack.
 */
export function describeError(error: unknown, style: Style): { readonly text: string; readonly status: number } {
  const name = style.red("tsvmm:");
  if (error instanceof SpecError) {
    return { text: `${name} ${shortened(printable(error.message))}`, status: EXIT_STATUS.badInput };
  }
  const ofHost = hostErrorOf(error);
  if (ofHost !== undefined) {
    const details = ofHost.details === undefined ? "" : `\n${printableLines(ofHost.details)}`;
    return { text: `${name} ${printable(ofHost.message)}${details}`, status: EXIT_STATUS.hostFailure };
  }
  const stack = printableLines(error instanceof Error ? (error.stack ?? error.message) : String(error));
  return { text: `${name} internal error, please report it\n${stack}`, status: EXIT_STATUS.hostFailure };
}

const UNITS = [
  ["T", 2 ** 40],
  ["G", 2 ** 30],
  ["M", 2 ** 20],
  ["K", 2 ** 10],
] as const;

/** A size as the command line takes it: `512M`, `4K`, `100`. */
export function formatSize(sizeBytes: number): string {
  for (const [letter, unit] of UNITS) {
    if (sizeBytes >= unit && sizeBytes % unit === 0) return `${sizeBytes / unit}${letter}`;
  }
  return String(sizeBytes);
}

/** Lays rows out in columns, two spaces apart, in characters that print; the last column is as long as it is. */
export function formatTable(rows: readonly (readonly string[])[], indent = ""): string {
  const widths: number[] = [];
  const shown = rows.map((row) => row.map(printable));
  for (const row of shown) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return shown
    .map((row) => {
      const cells = row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)));
      return `${indent}${cells.join("  ").trimEnd()}\n`;
    })
    .join("");
}

/**
 * Breaks a text at spaces, in characters that print, so that no line is longer than `columns`, where words allow.
 *
 * @param first Goes before the first line, `indent` before the others.
 */
export function wrapText(text: string, columns: number, first: string, indent: string): string {
  const lines: string[] = [];
  let line = first;
  let isEmpty = true;
  for (const word of printable(text).split(" ")) {
    if (!isEmpty && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = indent;
      isEmpty = true;
    }
    line += isEmpty ? word : ` ${word}`;
    isEmpty = false;
  }
  return [...lines, line].map((one) => `${one.trimEnd()}\n`).join("");
}
