import { creditLeft, giveCredit, makeCredit, takeCredit, waitForCredit } from "./credit.ts";

/*
 * A guest traps faster than a trace is written. So the device thread is at most so many events ahead of the control
 * thread, which tells them to its listeners.
 */

const MOST_EVENTS = 1000;
/**
 * A control thread that takes nothing for so long is busy with its end: the devices are not kept waiting again then.
 * Milliseconds.
 */
const LONGEST_WAIT = 500;

/**
 * What becomes of events when the listener is behind: the device thread waits, which slows the guest, or drops and
 * counts them.
 */
export type WhenBehind = "wait" | "drop";

/** Events that may still be sent. */
export const makeTraceCredit = (): Int32Array => makeCredit(MOST_EVENTS);

/** Control thread: an event was told. */
export const giveTraceCredit = (credit: Int32Array): void => void giveCredit(credit, 1);

/** Device thread: to be called before each event; waits for its turn. */
export function traceGate(credit: Int32Array): () => void {
  let isHeeded = true;
  return () => {
    const before = takeCredit(credit);
    if (before > 0) isHeeded = true;
    else if (isHeeded) isHeeded = waitForCredit(credit, before - 1, LONGEST_WAIT);
  };
}

/** Device thread: takes a turn if there is one. No other thread takes any, so what is left here is left until then. */
export function takeTraceCredit(credit: Int32Array): boolean {
  return creditLeft(credit) > 0 && takeCredit(credit) > 0;
}
