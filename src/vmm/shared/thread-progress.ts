import { readFileSync } from "node:fs";

/*
 * The progress of a thread that ends, in words that it shares with the control thread. The kernel may take a minute to
 * release a device, and as long to unpin a terabyte. The control thread waits while there is progress, also where it
 * can take no message (when the process exits).
 */

/** Words of {@link LoadingWorker.stage}, by their places; the first is the stage itself. */
const WORD = { stage: 0, steps: 1, allowanceSeconds: 2, tid: 3 } as const;
export const THREAD_WORDS = 4;

/** What the kernel may take for one device: it waits 60 s for one to answer after a reset, and may reset two ways. */
export const DEVICE_STEP_SECONDS = 150;

/** A thread says which it is, so that its time in the kernel counts as progress. */
export function announceThread(words: Int32Array, tid: number): void {
  Atomics.store(words, WORD.tid, tid);
}

/** A thread begins a step, during which the kernel may sleep so long. */
export function announceStep(words: Int32Array, allowanceSeconds: number): void {
  Atomics.store(words, WORD.allowanceSeconds, allowanceSeconds);
  Atomics.add(words, WORD.steps, 1);
}

/** How far a thread is, for who waits for it. */
export interface ThreadProgress {
  /** Another text after any progress: a step, or time that the thread spent in the kernel. */
  readonly mark: () => string;
  /** How long it may stand still now, in milliseconds; 0 where nothing is known. */
  readonly allowanceMs: () => number;
}

/** Reads the words of a thread of this process. */
export function threadProgress(words: Int32Array): ThreadProgress {
  return {
    mark: () => `${Atomics.load(words, WORD.steps)} ${systemTime(Atomics.load(words, WORD.tid))}`,
    allowanceMs: () => Atomics.load(words, WORD.allowanceSeconds) * 1000,
  };
}

/** Ticks that a thread has spent in the kernel. proc(5): `stime`, the 13th word behind the name. */
function systemTime(tid: number): string {
  if (tid === 0) return "";
  try {
    const stat = readFileSync(`/proc/self/task/${tid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[12] ?? "";
  } catch {
    return ""; // it has ended
  }
}
