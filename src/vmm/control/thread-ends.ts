import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import { withDeadline } from "./worker-link.ts";

/** A thread that has been asked to end. */
export interface EndingThread {
  /** As in the middle of a sentence. */
  readonly name: string;
  readonly ended: Promise<void>;
}

/** What threads use by address and by number: guest RAM, descriptors. */
export interface SharedThings {
  /** As in the middle of a sentence, in the plural. */
  readonly name: string;
  /** Gives them back. */
  close(): void;
  /** Called when they were given back after all. */
  onLate(): void;
}

const ADVICE = "it is in a call of the kernel: look for a disk or a file system that does not answer";

/**
 * Gives back what threads use, once all of them have ended. A live thread could write to an address or a descriptor
 * that another machine uses by then. So after `timeoutMs` all of it stays until the last thread has ended, which may be
 * never.
 *
 * @returns What stays, and why; `undefined` when it was given back in time.
 */
export async function closeBehind(
  threads: readonly EndingThread[],
  timeoutMs: number,
  things: SharedThings,
  report: Report,
): Promise<HostError | undefined> {
  const running = new Set(threads);
  const all = Promise.all(threads.map((thread) => thread.ended.then(() => running.delete(thread))));
  await withDeadline(all, timeoutMs, "").catch(() => undefined); // the ends themselves are never rejected
  if (running.size === 0) {
    things.close();
    return undefined;
  }
  const names = [...running].map(({ name }) => name).join(" and ");
  const error = new HostError(
    "TSVMM_THREAD_STUCK",
    `Cannot end ${names}: ${things.name} stay in use until it ends`,
    ADVICE,
  );
  report("error", error.message);
  void all.then(() => {
    things.close();
    report("warn", `${names} has ended: ${things.name} are given back`);
    things.onLate();
  });
  return error;
}
