import type { HostError } from "../../base/errors.ts";
import { NODE_TIMERS, type Timers } from "../../base/timers.ts";
import type { ThreadProgress } from "../shared/thread-progress.ts";

/** Node's clock and timers; tests have their own. */
export interface PatienceClock extends Timers {
  now(): number;
}

const NODE_CLOCK: PatienceClock = { ...NODE_TIMERS, now: () => performance.now() };

const MOST_LOOK_MS = 1000;
const TELL_MS = 5000;

export interface PatienceParts {
  readonly progress: ThreadProgress;
  /** How long there may be no progress, in milliseconds; longer where the thread's step says so. */
  readonly stillMs: number;
  /** Called every five seconds, with the seconds waited. */
  readonly onWait: (seconds: number) => void;
  /** What it is rejected with when there is none for so long. */
  readonly error: () => HostError;
  readonly clock?: PatienceClock;
}

/** Waits for a promise as long as the thread that will settle it makes progress. */
export function waitWhileItProgresses<T>(promise: Promise<T>, parts: PatienceParts): Promise<T> {
  const { progress, stillMs, onWait, error, clock = NODE_CLOCK } = parts;
  return new Promise((resolve, reject) => {
    const start = clock.now();
    let mark = progress.mark();
    let since = start;
    let told = 0;
    const look = (): void => {
      const now = clock.now();
      const current = progress.mark();
      if (current !== mark) since = now;
      mark = current;
      if (now - since >= Math.max(stillMs, progress.allowanceMs())) return reject(error());
      const times = Math.floor((now - start) / TELL_MS);
      if (times > told) onWait((times * TELL_MS) / 1000);
      told = times;
      timer = clock.set(look, lookMs);
    };
    const lookMs = Math.min(MOST_LOOK_MS, Math.max(1, stillMs / 4));
    let timer = clock.set(look, lookMs);
    promise.then(resolve, reject).finally(() => clock.clear(timer));
  });
}
