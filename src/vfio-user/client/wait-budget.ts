/**
 * A turn in which a server took less in sum is free: between two turns everything else on the device thread has its go.
 * Milliseconds.
 */
const FREE_TURN_MS = 200;
/** What slow turns took is given back evenly, the whole limit in so many milliseconds. */
const WINDOW_MS = 60_000;

export interface WaitBudgetParts {
  /** What a server may take, in milliseconds; Infinity: as long as it likes. */
  readonly limitMs: number;
  /** How often the device thread's loop has come round. */
  readonly turns: () => number;
  /** Milliseconds that never go back. */
  readonly now?: () => number;
}

/**
 * How long the device thread may still wait for one server. Everything else on that thread waits meanwhile: disks,
 * consoles, a stop.
 *
 * Within a turn of the loop all waits count, so that a guest's access that becomes many messages is held no longer than
 * the limit. Over many turns those count that took {@link FREE_TURN_MS} and more, against the same limit, of which a
 * minute gives the whole back. A server that answers at once is never in debt, however often it is asked.
 */
export class WaitBudget {
  readonly #parts: WaitBudgetParts;
  readonly #now: () => number;
  #turn = 0;
  #turnMs = 0;
  /** Of earlier turns, as of {@link #owedAt}. */
  #owedMs = 0;
  #owedAt = 0;

  constructor(parts: WaitBudgetParts) {
    this.#parts = parts;
    this.#now = parts.now ?? performance.now.bind(performance);
  }

  get limitMs(): number {
    return this.#parts.limitMs;
  }

  /** Milliseconds that a wait may take now, 0 when all is used up. */
  allowance(): number {
    this.#settle();
    return Math.max(0, this.#parts.limitMs - this.#owedMs - this.#turnMs);
  }

  /** A wait took so long. To be called after {@link allowance}, in the same turn. */
  spend(ms: number): void {
    this.#turnMs += ms;
  }

  /** Closes the account of the turn before, if this is another one, and gives back what time has earned. */
  #settle(): void {
    const now = this.#now();
    const { limitMs } = this.#parts;
    if (this.#owedMs > 0) this.#owedMs = Math.max(0, this.#owedMs - ((now - this.#owedAt) * limitMs) / WINDOW_MS);
    this.#owedAt = now;
    const turn = this.#parts.turns();
    if (turn === this.#turn) return;
    this.#turn = turn;
    if (this.#turnMs >= FREE_TURN_MS) this.#owedMs += this.#turnMs;
    this.#turnMs = 0;
  }
}
