import type { Summary } from "./samples.ts";

/** Unit of a line's values. */
export type Unit = "ns" | "µs" | "ms" | "MiB" | "%" | "requests/s";

/** Something the project's own value is laid beside. */
export interface Beside {
  readonly name: string;
  readonly value: Summary;
  /** Ours by theirs, the median of the rounds' ratios. */
  readonly ratio: Summary;
}

/** One line of the table. */
export interface Line {
  /** What was measured: `exit, PIO write`. */
  readonly what: string;
  readonly unit: Unit;
  readonly value: Summary;
  readonly beside: readonly Beside[];
  /** What is wanted, as a sentence, and whether it was reached; `undefined` where it is not for this machine to say. */
  readonly aim?: { readonly text: string; readonly isReached: boolean | undefined };
}

/** What a row is given. */
export interface Context {
  readonly rounds: number;
  /** The program under test: a compiled entry file that node runs. */
  readonly entry: string;
  /** A folder for images and disks, removed at the end. */
  readonly folder: string;
  /** True for the long version of what can be short (idle for a minute). */
  readonly isLong: boolean;
  /** Called by a row with each line as soon as it is known, so that an interrupted run has it. */
  readonly add: (line: Line) => void;
  /** Says what goes on, on standard error. */
  readonly progress: (text: string) => void;
  /** Aborted when the person at the terminal has seen enough: measurements end with the round that is complete. */
  readonly signal: AbortSignal;
}

/** One row of the benchmark; it may add several lines. */
export interface Row {
  readonly name: string;
  /** What the values are of, where it is not this program. */
  readonly own?: string;
  /** What its lines mean, in a sentence or two. */
  readonly meaning: string;
  /** Why it cannot run here and what would enable it; `undefined` when it can. */
  readonly missing: () => string | undefined;
  readonly run: (context: Context) => Promise<void>;
}
