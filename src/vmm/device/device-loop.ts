import type { AccessHandler, MailboxServer } from "../shared/mailbox.ts";
import type { PollWindow } from "./polling.ts";

/** What the loop needs of epoll: dispatches what is ready, waiting at most so long (-1: without a limit). */
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

/**
 * Looks at a mailbox between two looks at the clock and at the descriptors, while polling: a look costs some 20 ns,
 * those 500.
 */
const LOOKS_PER_TICK = 128;

/** Yields are rarer than that, so that an access rarely comes during one. */
const TICKS_PER_YIELD = 4;

/**
 * Descriptors are looked at so often while polling, in microseconds, however short a tick is: a doorbell's ring waits
 * that long.
 */
const DESCRIPTOR_INTERVAL = 2;

/** A busy vCPU keeps collected work for so long, in microseconds. */
const FLUSH_INTERVAL = 50;

/**
 * The device thread's life: serve accesses, dispatch descriptors, sleep when there is neither.
 *
 * After work, it polls for `window` µs: accesses come in bursts, and an epoll wake-up costs ten times as much. It calls
 * sched_yield after work and every few ticks, so that a vCPU can run when no CPU is spare. It reports the duration of
 * each yield to the window.
 */
export function runDeviceLoop(parts: DeviceLoopParts): void {
  const { mailboxes, waiter, handle, flush, isDone, window, yieldProcessor, now } = parts;
  let lastWork = now();
  let descriptorsDue = 0;
  let flushDue = 0;
  let isPolling = false; // false for what a wake-up was for
  let ticks = 0; // without work, since the last yield
  const looksPerTick = Math.ceil(LOOKS_PER_TICK / mailboxes.vcpuCount);
  while (!isDone()) {
    let done = mailboxes.serve(handle);
    for (let look = window.microseconds > 0 ? looksPerTick : 0; look > 0 && done === 0; look--) {
      done = mailboxes.serve(handle);
    }
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
      }
      if (window.microseconds === 0) continue;
      isPolling = true;
      ticks = done > 0 ? TICKS_PER_YIELD : ticks + 1;
      if (ticks >= TICKS_PER_YIELD) {
        ticks = 0;
        const before = now();
        yieldProcessor();
        window.yielded(now() - before);
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
