import type { AccessHandler, MailboxServer } from "./mailbox.ts";
import type { PollWindow } from "./polling.ts";

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
  /** How long to look for further work after some was done, before sleeping. */
  readonly window: PollWindow;
  /** Lets another thread have this processor, where one waits for it. */
  readonly yieldProcessor: () => void;
  /** Microseconds that never go back. */
  readonly now: () => number;
}

/** Looks at the mailboxes between two looks at the clock: a look costs some 20 ns for a vCPU, the clock 50. */
const LOOKS_PER_TICK = 32;

/** Descriptors are looked at so often while polling, in microseconds: a doorbell's ring waits that long at most. A look costs half of one. */
const DESCRIPTOR_INTERVAL = 10;

/** A busy vCPU keeps collected work for so long, in microseconds. */
const FLUSH_INTERVAL = 50;

/**
 * The device thread's life: serve accesses, dispatch descriptors, sleep when there is neither.
 *
 * After work it keeps looking for more for a while, since accesses come in runs (a driver's probe, a burst of console output), requests
 * follow their completions, and a wake-up through epoll costs ten times the work. It yields between looks: with a processor to spare that
 * is nothing, and without one the vCPU, whose next access it waits for, gets on with it. Other programs would too, for a whole time slice:
 * the window is told how long each yield took.
 */
export function runDeviceLoop(parts: DeviceLoopParts): void {
  const { mailboxes, waiter, handle, flush, isDone, window, yieldProcessor, now } = parts;
  let lastWork = now();
  let descriptorsDue = 0;
  let flushDue = 0;
  let isPolling = false; // false for what a wake-up was for
  while (!isDone()) {
    let done = 0;
    for (let look = 0; look < LOOKS_PER_TICK; look++) done += mailboxes.serve(handle);
    const time = now();
    if (time < lastWork + window.microseconds || done > 0) {
      if (time >= flushDue) {
        flushDue = time + FLUSH_INTERVAL;
        flush();
      }
      if (time >= descriptorsDue) {
        descriptorsDue = time + DESCRIPTOR_INTERVAL;
        done += waiter.wait(0);
      }
      if (done > 0) {
        lastWork = time;
        if (isPolling) window.found();
      } else {
        isPolling = true;
        yieldProcessor();
        window.yielded(now() - time);
      }
      continue;
    }
    flush();
    // The order of these three is the race told in mailbox.ts.
    mailboxes.fallAsleep();
    if (mailboxes.hasRequests) waiter.wait(0);
    else waiter.wait(-1);
    mailboxes.wakeUp();
    const woken = now();
    window.slept(woken - lastWork);
    lastWork = woken;
    isPolling = false;
    descriptorsDue = woken + DESCRIPTOR_INTERVAL; // they have just been looked at
  }
  flush();
}
