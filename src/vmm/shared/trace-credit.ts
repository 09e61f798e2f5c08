/*
 * A guest traps faster than a trace is written. One shared word is how many events the device thread may still send: it takes one for each, and
 * the control thread gives it back when its listeners have had the event. So the queue between the two is at most so long.
 */

const MOST_EVENTS = 1000;
/** A control thread that takes nothing for so long is busy with its end: the devices are not kept waiting again then. Milliseconds. */
const LONGEST_WAIT = 500;

/** What becomes of events when the listener is behind: the device thread waits, which slows the guest, or drops and counts them. */
export type WhenBehind = "wait" | "drop";

/** One shared word: events that may still be sent. */
export function makeTraceCredit(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(4)).fill(MOST_EVENTS);
}

/** Control thread: an event was told. */
export function giveTraceCredit(credit: Int32Array): void {
  if (Atomics.add(credit, 0, 1) <= 0) Atomics.notify(credit, 0);
}

/** Device thread: waits for its turn before each event. */
export function traceGate(credit: Int32Array): () => void {
  let isHeeded = true;
  return () => {
    const before = Atomics.sub(credit, 0, 1);
    if (before > 0) isHeeded = true;
    else if (isHeeded) isHeeded = Atomics.wait(credit, 0, before - 1, LONGEST_WAIT) !== "timed-out";
  };
}

/** Device thread: takes a turn if there is one. Only this thread takes, so that what is seen here is not taken by another in between. */
export function takeTraceCredit(credit: Int32Array): boolean {
  if (Atomics.load(credit, 0) <= 0) return false;
  Atomics.sub(credit, 0, 1);
  return true;
}
