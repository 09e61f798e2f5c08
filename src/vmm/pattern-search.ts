import { types } from "node:util";
import type { TextHistory } from "./text-history.ts";

/** What a wait can look for: an expression, or a text that means itself. */
export type Pattern = RegExp | string;

/** A match, and which of several patterns it is of, from 0. */
export interface WaitMatch extends RegExpMatchArray {
  readonly patternIndex: number;
}

/**
 * A match of this many characters is found with its last character; a longer one by {@link
 * PatternSearch.findAnywhere}.
 */
export const NEAR = 4096;

/**
 * A pattern as an expression without flags that make it depend on an earlier search, and a string as one that means
 * itself.
 */
function expressionOf(pattern: RegExp | string): RegExp {
  // Not `instanceof`: a test runner's sandbox has a RegExp of its own.
  if (typeof pattern !== "string" && !types.isRegExp(pattern)) {
    throw new TypeError(`Cannot wait for ${String(pattern)}: give a string or a regular expression`);
  }
  const source = typeof pattern === "string" ? pattern.replace(/[.*+?^${}()|[\]\\]/g, "\\$&") : pattern.source;
  const flags = typeof pattern === "string" ? "" : pattern.flags.replace(/[gy]/g, "");
  return new RegExp(source, `${flags}g`); // `g`, so that lastIndex says where to begin
}

/**
 * The search for the first match of a pattern in a text that grows.
 *
 * What is found is what `text.match(pattern)` finds in the text from the search's start on. A search of the whole text
 * after each piece would cost the square of its length. So {@link find} searches the newest characters only. If they
 * have a match, it searches everything.
 */
export class PatternSearch {
  /** Position in the text where the search begins. */
  readonly start: number;
  readonly #history: TextHistory;
  readonly #expression: RegExp;
  /** Position up to which {@link find} has looked. */
  #seen: number;
  /** Position up to which all of the text has been looked at. */
  #seenAll: number;

  constructor(history: TextHistory, pattern: RegExp | string, start: number) {
    this.#history = history;
    this.#expression = expressionOf(pattern);
    this.start = start;
    this.#seen = start;
    this.#seenAll = start;
  }

  /** True when a match of more than {@link NEAR} characters may have been missed. */
  get isBehind(): boolean {
    return this.#seenAll < this.#history.end;
  }

  /** To be called after each piece. The cost is that of the piece and {@link NEAR} characters before it. */
  find(): RegExpMatchArray | undefined {
    const from = Math.max(this.start, this.#seen - NEAR);
    this.#seen = this.#history.end;
    if (from === this.start) return this.findAnywhere();
    return this.#matchSince(from) === undefined ? undefined : this.findAnywhere();
  }

  /** Looks at everything since the start. */
  findAnywhere(): RegExpMatchArray | undefined {
    this.#seen = this.#history.end;
    this.#seenAll = this.#history.end;
    return this.#matchSince(Math.max(this.start, this.#history.start));
  }

  #matchSince(position: number): RegExpMatchArray | undefined {
    // A character before the first that may match: `^` holds at the start of the search, not where a part of the text
    // begins.
    this.#expression.lastIndex = position === this.start ? 0 : 1;
    return this.#expression.exec(this.#history.since(position)) ?? undefined;
  }
}

/** The search for the first match of any of several patterns in a text that grows. */
export class FirstOfPatterns {
  readonly #searches: readonly PatternSearch[];

  /** @throws TypeError when a pattern is none, or when there is none */
  constructor(history: TextHistory, patterns: readonly Pattern[], start: number) {
    if (patterns.length === 0) throw new TypeError("Cannot wait for none of no patterns: give one or more");
    this.#searches = patterns.map((pattern) => new PatternSearch(history, pattern, start));
  }

  get isBehind(): boolean {
    return this.#searches.some(({ isBehind }) => isBehind);
  }

  /** As {@link PatternSearch.find}. */
  find(): WaitMatch | undefined {
    return this.#first((search) => search.find());
  }

  /** As {@link PatternSearch.findAnywhere}. */
  findAnywhere(): WaitMatch | undefined {
    return this.#first((search) => search.findAnywhere());
  }

  /** The match that begins first; of those, the first in the list. All searches have the same start. */
  #first(look: (search: PatternSearch) => RegExpMatchArray | undefined): WaitMatch | undefined {
    let first: WaitMatch | undefined;
    this.#searches.forEach((search, patternIndex) => {
      const match = look(search);
      if (match === undefined || (first !== undefined && (first.index ?? 0) <= (match.index ?? 0))) return;
      first = Object.assign(match, { patternIndex });
    });
    return first;
  }
}
