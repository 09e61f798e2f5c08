/*
 * A guest traps faster than a log is written. So the device thread, which writes trace lines, waits when it is this many ahead of the control
 * thread, which shows them: the queue between the two is as long as that, and no longer.
 */

const MOST_LINES = 1000;
/** A control thread that shows nothing for so long is busy with its end: the devices are not kept waiting again then. Milliseconds. */
const LONGEST_WAIT = 500;

/** One shared word: lines that may still be sent. */
export function makeTraceCredit(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(4)).fill(MOST_LINES);
}

/** Control thread: a line was shown. */
export function giveTraceCredit(credit: Int32Array): void {
  if (Atomics.add(credit, 0, 1) <= 0) Atomics.notify(credit, 0);
}

/** Device thread: to be called before each line; waits for its turn. */
export function traceGate(credit: Int32Array): () => void {
  let isHeeded = true;
  return () => {
    const before = Atomics.sub(credit, 0, 1);
    if (before > 0) isHeeded = true;
    else if (isHeeded) isHeeded = Atomics.wait(credit, 0, before - 1, LONGEST_WAIT) !== "timed-out";
  };
}
