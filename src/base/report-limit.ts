import type { Report } from "./backends.ts";

/** Lines of a kind that are told at once. */
const BURST = 10;
/** Later ones: one in so many milliseconds. */
const INTERVAL_MS = 10_000;
/** Kinds that are counted apart; what a guest or a peer can vary is numbers, which make no kind of their own. */
const MOST_KINDS = 200;
const NUMBER = /(?<![\w:.])(?:0x[\da-f_]+|\d[\d_,]*)(?![\w:]|\.\d)/gi;

interface Kind {
  /** Lines that may be told now; a fraction counts the time until the next. */
  allowance: number;
  /** When `allowance` was right, in milliseconds. */
  since: number;
  /** Lines that were not told since the last one that was. */
  hidden: number;
  /** The last of those. */
  last: Parameters<Report> | undefined;
}

/**
 * Bounds what a guest or a peer can make of the log. Of each kind of line the first ten are told, then one in ten
 * seconds, with the number of those before it that were not. Lines that differ in numbers only are of one kind;
 * numbers of a name (`disk0`, `0000:01:00.0`) count as the name.
 */
export class ReportLimit {
  readonly #report: Report;
  readonly #now: () => number;
  readonly #kinds = new Map<string, Kind>();

  /** @param now Milliseconds of a clock that never goes back. */
  constructor(report: Report, now: () => number = () => performance.now()) {
    this.#report = report;
    this.#now = now;
  }

  /** Tells a line, or counts it. A function of its own, to be handed on. */
  readonly report: Report = (...line) => {
    const [level, text, details] = line;
    const kind = this.#kindOf(`${level} ${text.replace(NUMBER, "#")}`);
    const now = this.#now();
    kind.allowance = Math.min(BURST, kind.allowance + (now - kind.since) / INTERVAL_MS);
    kind.since = now;
    if (kind.allowance < 1) {
      kind.hidden++;
      kind.last = line;
      return;
    }
    kind.allowance--;
    const more = kind.hidden > 0 ? ` (and ${kind.hidden} more like this before)` : "";
    const announcement = kind.allowance < 1 && more === "" ? " (more like this are counted)" : "";
    kind.hidden = 0;
    kind.last = undefined;
    this.#report(level, `${text}${more}${announcement}`, details);
  };

  /** Tells what was only counted: at the end of what reports. */
  settle(): void {
    for (const kind of this.#kinds.values()) {
      if (kind.last === undefined) continue;
      const [level, text, details] = kind.last;
      const more = kind.hidden > 1 ? ` (and ${kind.hidden - 1} more like this before)` : "";
      this.#report(level, `${text}${more}`, details);
      kind.hidden = 0;
      kind.last = undefined;
    }
  }

  #kindOf(name: string): Kind {
    // Beyond the limit all others share one.
    const key = this.#kinds.has(name) || this.#kinds.size < MOST_KINDS ? name : "";
    let kind = this.#kinds.get(key);
    if (kind === undefined) {
      kind = { allowance: BURST, since: this.#now(), hidden: 0, last: undefined };
      this.#kinds.set(key, kind);
    }
    return kind;
  }
}
