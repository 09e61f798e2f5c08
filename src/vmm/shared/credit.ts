/*
 * How much the device thread may send that the control thread has not dealt with yet: words that both share. So the
 * queue of messages between the two is as long as its credit, and no longer.
 *
 * The device thread takes credit for each message and the control thread gives it back. Without credit it either waits
 * (a trace that loses nothing) or keeps its data and asks for a signal at new credit (output). In the second case it
 * stores the wish, then loads the credit once more. The control thread adds credit, then loads the wish. In either
 * order one of the two sees the other's store.
 */

/** Messages that may still be sent. Negative when some were sent without credit. */
const LEFT = 0;
/** 1: the device thread has something to send, and wants its doorbell rung when there is credit. */
const WISH = 1;

/** The words, with credit for so many messages. They cross threads as they are. */
export function makeCredit(messages: number): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer(8));
  words[LEFT] = messages;
  return words;
}

/** Device thread: takes credit for one message, which may go below nothing. @returns What was left before. */
export const takeCredit = (words: Int32Array): number => Atomics.sub(words, LEFT, 1);

/** What is left now; the control thread may add to it at any time. */
export const creditLeft = (words: Int32Array): number => Atomics.load(words, LEFT);

/** Device thread: whether credit is left. If not, the doorbell rings when there is. */
export function hasCredit(words: Int32Array): boolean {
  if (Atomics.load(words, LEFT) > 0) return true;
  Atomics.store(words, WISH, 1);
  return Atomics.load(words, LEFT) > 0;
}

/**
 * Device thread: waits until `left` is no longer what is left. @returns False when that took longer than `timeoutMs`.
 */
export const waitForCredit = (words: Int32Array, left: number, timeoutMs: number): boolean =>
  Atomics.wait(words, LEFT, left, timeoutMs) !== "timed-out";

/**
 * Control thread: so many messages have been dealt with. @returns True when the device thread wants its doorbell
 * rung.
 */
export function giveCredit(words: Int32Array, messages: number): boolean {
  if (Atomics.add(words, LEFT, messages) <= 0) Atomics.notify(words, LEFT);
  return Atomics.exchange(words, WISH, 0) === 1;
}
