import { giveCredit, makeCredit, takeCredit, waitForCredit } from "./credit.ts";

/*
 * A guest traps faster than a log is written. So the device thread, which writes trace lines, waits when it is this
 * many ahead of the control thread, which shows them.
 */

const MOST_LINES = 1000;
/**
 * A control thread that shows nothing for so long is busy with its end: the devices are not kept waiting again then.
 * Milliseconds.
 */
const LONGEST_WAIT = 500;

/** Lines that may still be sent. */
export const makeTraceCredit = (): Int32Array => makeCredit(MOST_LINES);

/** Control thread: a line was shown. */
export const giveTraceCredit = (credit: Int32Array): void => void giveCredit(credit, 1);

/** Device thread: to be called before each line; waits for its turn. */
export function traceGate(credit: Int32Array): () => void {
  let isHeeded = true;
  return () => {
    const before = takeCredit(credit);
    if (before > 0) isHeeded = true;
    else if (isHeeded) isHeeded = waitForCredit(credit, before - 1, LONGEST_WAIT);
  };
}
