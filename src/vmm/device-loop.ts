import type { AccessHandler, MailboxServer } from "./mailbox.ts";

/** What the loop needs of epoll: dispatches what is ready, waiting at most so long (-1 for ever). */
export interface Waiter {
  wait(timeoutMs: number): number;
}

export interface DeviceLoopParts {
  readonly mailboxes: MailboxServer;
  readonly waiter: Waiter;
  readonly handle: AccessHandler;
  /** Work collected during a pass and done before the thread sleeps: serial output, batched interrupts. */
  readonly flush: () => void;
  /** True ends the loop after the current pass. */
  readonly isDone: () => boolean;
  /** How long to look for further accesses after one was served before sleeping; 0 for never. */
  readonly pollMicroseconds: number;
  /** Microseconds that never go back. */
  readonly now: () => number;
}

/** Looks at the mailboxes between two looks at the clock: a look costs some 20 ns for a vCPU, the clock 50. */
const LOOKS_PER_TICK = 32;

/**
 * The device thread's life: serve accesses, dispatch descriptors, sleep when there is neither.
 *
 * After an access it keeps looking for the next one for a while, since accesses come in runs (a driver's probe, a burst of console
 * output) and a wake-up through epoll costs ten times the access. Whenever a window closes one pass over the descriptors is made, so
 * that a busy vCPU cannot starve them; the window is also cut into ticks of at most {@link LOOKS_PER_TICK} looks for that reason.
 */
export function runDeviceLoop(parts: DeviceLoopParts): void {
  const { mailboxes, waiter, handle, flush, isDone, pollMicroseconds, now } = parts;
  let pollUntil = 0;
  let descriptorsDue = 0;
  while (!isDone()) {
    let served = 0;
    for (let look = 0; look < LOOKS_PER_TICK; look++) served += mailboxes.serve(handle);
    if (pollMicroseconds > 0) {
      const time = now();
      if (served > 0) pollUntil = time + pollMicroseconds;
      if (time < pollUntil) {
        if (time >= descriptorsDue) {
          descriptorsDue = time + pollMicroseconds;
          flush();
          waiter.wait(0);
        }
        continue;
      }
    }
    flush();
    // The order of these three is the race told in mailbox.ts.
    mailboxes.fallAsleep();
    if (mailboxes.hasRequests) waiter.wait(0);
    else waiter.wait(-1);
    mailboxes.wakeUp();
  }
  flush();
}
