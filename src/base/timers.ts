/** Timers as Node has them; tests have their own. */
export interface Timers {
  set(work: () => void, ms: number): unknown;
  clear(timer: unknown): void;
}

export const NODE_TIMERS: Timers = {
  set: (work, ms) => setTimeout(work, ms),
  // Cast: what `set` made comes back.
  clear: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout>),
};
