import { HostError } from "../base/errors.ts";

/** `unknown`: this user may not look, or the kernel does not tell. Only `failed` keeps a machine from starting. */
export type CheckState = "good" | "warning" | "unknown" | "failed";

/** One thing that a start depends on: `tsvmm doctor` shows all of them, a start ends at the first that failed. */
export interface HostCheck {
  /** A few words: "IOMMU", "driver of 0000:01:00.0". */
  readonly topic: string;
  readonly state: CheckState;
  /** What was found: begins in lower case, no period. */
  readonly found: string;
  /** Why it matters: the same. */
  readonly why: string;
  /** What to do, as exact as can be; absent where all is well or nothing helps. */
  readonly remedy?: string;
  /** What cannot be done when it failed: "pass 0000:01:00.0 through". */
  readonly action: string;
}

/** The error that a failed check is at a start: "Cannot pass 0000:01:00.0 through: it is a bridge". */
export function checkError({ action, found, remedy }: HostCheck): HostError {
  return new HostError(`Cannot ${action}: ${found}`, remedy);
}

/** The check that an error of a start is: the other way round. */
export function failedCheck(topic: string, why: string, error: HostError): HostCheck {
  const { advice } = error;
  const text = advice === undefined ? error.message : error.message.slice(0, -` (${advice})`.length);
  const [, action = "start the machine", found = text] = /^Cannot (.*?): (.*)$/s.exec(text) ?? [];
  return { topic, state: "failed", found, why, action, ...(advice === undefined ? {} : { remedy: advice }) };
}
