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
  /** How long to look for further accesses after one was served, before sleeping. */
  readonly window: PollWindow;
  /** Microseconds that never go back. */
  readonly now: () => number;
}

/** Looks at the mailboxes between two looks at the clock: a look costs some 20 ns for a vCPU, the clock 50. */
const LOOKS_PER_TICK = 32;

/** A busy vCPU may keep the thread from its descriptors for so long, in microseconds. */
const DESCRIPTOR_INTERVAL = 50;

/**
 * The device thread's life: serve accesses, dispatch descriptors, sleep when there is neither.
 *
 * After an access it keeps looking for the next one for a while, since accesses come in runs (a driver's probe, a burst of console
 * output) and a wake-up through epoll costs ten times the access. Descriptors get their pass at intervals meanwhile.
 */
export function runDeviceLoop(parts: DeviceLoopParts): void {
  const { mailboxes, waiter, handle, flush, isDone, window, now } = parts;
  let lastServed = now();
  let descriptorsDue = 0;
  let hasSlept = false;
  while (!isDone()) {
    let served = 0;
    for (let look = 0; look < LOOKS_PER_TICK; look++) served += mailboxes.serve(handle);
    const time = now();
    if (served > 0) {
      // The sleep that matters is the one between two accesses, however many descriptors woke the thread in it.
      if (hasSlept) window.slept(time - lastServed);
      hasSlept = false;
      lastServed = time;
    }
    if (time < lastServed + window.microseconds) {
      if (time >= descriptorsDue) {
        descriptorsDue = time + DESCRIPTOR_INTERVAL;
        flush();
        waiter.wait(0);
      }
      continue;
    }
    flush();
    // The order of these three is the race told in mailbox.ts.
    mailboxes.fallAsleep();
    if (mailboxes.hasRequests) waiter.wait(0);
    else waiter.wait(-1);
    mailboxes.wakeUp();
    hasSlept = true;
  }
  flush();
}
