import { adviceOf, type ErrorCode, HostError } from "../base/errors.ts";

/** `unknown`: this user may not look, or the kernel does not tell. Only `failed` keeps a machine from starting. */
export type CheckState = "good" | "warning" | "unknown" | "failed";

/** What keeps a machine from starting. */
export interface FailedOutcome {
  readonly state: "failed";
  /** The cause, for programs: that of the error which a start ends with. */
  readonly code: ErrorCode;
  /** What was found: begins in lower case, no period. */
  readonly found: string;
  /** What to do, as exact as can be; absent where nothing helps. */
  readonly remedy?: string;
}

/** What lets a machine start. */
export interface OtherOutcome {
  readonly state: Exclude<CheckState, "failed">;
  /** The cause, where a start may end with an error all the same, or a machine with other devices. */
  readonly code?: ErrorCode;
  /** What was found: begins in lower case, no period. */
  readonly found: string;
  /** What to do, as exact as can be; absent where all is well or nothing helps. */
  readonly remedy?: string;
}

export type CheckOutcome = FailedOutcome | OtherOutcome;

/** What is checked, and why. */
export interface CheckSubject {
  /** A few words: "IOMMU", "driver of 0000:01:00.0". */
  readonly topic: string;
  /** Why it matters: begins in lower case, no period. */
  readonly why: string;
  /** What cannot be done when it failed: "pass 0000:01:00.0 through". */
  readonly action: string;
}

/** One thing that a start depends on: `tsvmm doctor` shows all of them, a start ends at the first that failed. */
export type HostCheck = CheckSubject & CheckOutcome;

/** A check that keeps a machine from starting. */
export type FailedCheck = CheckSubject & FailedOutcome;

export const isFailed = (check: HostCheck): check is FailedCheck => check.state === "failed";

/** A failed outcome. @param remedy The code's advice when absent. */
export function failed(code: ErrorCode, found: string, remedy: string = adviceOf(code)): FailedOutcome {
  return { state: "failed", code, found, ...(remedy === "" ? {} : { remedy }) };
}

/** The error that a failed check is at a start: "Cannot pass 0000:01:00.0 through: it is a bridge". */
export function checkError({ action, code, found, remedy }: FailedCheck): HostError {
  return new HostError(code, `Cannot ${action}: ${found}`, remedy);
}

/** The check that an error of a start is: the other way round. */
export function failedCheck(topic: string, why: string, error: HostError): FailedCheck {
  const { advice, code, text } = error;
  const [, action = "start the machine", found = text] = /^Cannot (.*?): (.*)$/s.exec(text) ?? [];
  return { topic, state: "failed", code, found, why, action, ...(advice === undefined ? {} : { remedy: advice }) };
}
