import { ERRORS, type ErrorCode } from "./error-codes/table.ts";

export type { DeviceErrorCode } from "./error-codes/devices.ts";
export { IOMMU_SWITCH } from "./error-codes/devices.ts";
export type { HostErrorCode } from "./error-codes/host.ts";
export type { InputErrorCode } from "./error-codes/input.ts";
export type { ErrorCode } from "./error-codes/table.ts";
export { ERROR_SECTIONS, ERRORS, isErrorCode } from "./error-codes/table.ts";

/** The user's specification or command line is wrong: shown as one line, without a stack, exit status 2. */
export class SpecError extends Error {
  override readonly name = "SpecError";
  /** The cause, for programs. */
  readonly code: ErrorCode;
  /** Which part of the spec (`devices[1].path`); the command line says the option instead (`--device`). */
  readonly path: string;
  /** `message` without the path. */
  readonly text: string;

  constructor(code: ErrorCode, path: string, text: string) {
    super(path === "" ? text : `${path}: ${text}`);
    this.code = code;
    this.path = path;
    this.text = text;
  }
}

/** The host refused or lacks something: shown as one line, without a stack, exit status 1. */
export class HostError extends Error {
  override readonly name: string = "HostError";
  /** The cause, for programs. */
  readonly code: ErrorCode;
  /** `message` without the advice. */
  readonly text: string;
  /** What the user can do about it; part of `message` too. */
  readonly advice: string | undefined;
  /** Lines for who looks into it, such as a vCPU's registers; shown below the message. */
  readonly details: string | undefined;

  /**
   * @param text What could not be done, a colon, the state found; sentence case, no period.
   * @param advice What to do; the code's when absent, none when empty.
   */
  constructor(code: ErrorCode, text: string, advice: string = adviceOf(code), details?: string) {
    super(advice === "" ? text : `${text} (${advice})`);
    this.code = code;
    this.text = text;
    this.advice = advice === "" ? undefined : advice;
    this.details = details;
  }
}

/** The constant advice of a code; empty where it has none. */
export const adviceOf = (code: ErrorCode): string => ERRORS[code].advice ?? "";

/** What errnos mean that mean the same for any call. */
const CAUSES_FOR_ANY_CALL: Readonly<Record<string, Cause>> = {
  EMFILE: ["TSVMM_OPEN_FILES", "raise the limit of open files: ulimit -n"],
  ENFILE: ["TSVMM_OPEN_FILES", "the host has no open files left: raise fs.file-max"],
};

/** What an error is, by its code; with advice of its own where that of the code does not fit. */
export type Cause = ErrorCode | readonly [code: ErrorCode, advice: string];

/** The cause for an errno's name that holds for any call; `undefined` where it depends on the call. */
export const causeForAnyCall = (errno: string): Cause | undefined => CAUSES_FOR_ANY_CALL[errno];

/** A cause as HostError takes it. */
export const codeAndAdvice = (cause: Cause): readonly [code: ErrorCode, advice?: string] =>
  typeof cause === "string" ? [cause] : cause;

/** The name node gives an error of the system: `ENOENT`; the whole text for others. */
export const errnoOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : String(error);

/**
 * Converts an error that the host caused to a HostError. A HostError stays as it is. A failed call of Node's modules
 * becomes one: `Cannot open /x: EMFILE (raise …)`. Any other error gives `undefined`.
 */
export function hostErrorOf(error: unknown): HostError | undefined {
  if (error instanceof HostError) return error;
  if (!(error instanceof Error) || !("syscall" in error) || typeof error.syscall !== "string") return undefined;
  const path = "path" in error && typeof error.path === "string" ? ` ${error.path}` : "";
  const errno = errnoOf(error);
  const [code, advice] = codeAndAdvice(causeForAnyCall(errno) ?? FILE_CAUSES[errno] ?? "TSVMM_HOST_CALL");
  return new HostError(code, `Cannot ${error.syscall}${path}: ${errno}`, advice);
}

/** What errnos of opening a file mean, which the user has named. */
const FILE_CAUSES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: "TSVMM_FILE_ABSENT",
  ENOTDIR: "TSVMM_FILE_ABSENT",
  EACCES: "TSVMM_FILE_DENIED",
  EPERM: "TSVMM_FILE_DENIED",
  EISDIR: "TSVMM_FILE_KIND",
};

/** The code for a user-named file that cannot be looked at or opened, by the errno's name. */
export const fileErrorCode = (errno: string): ErrorCode => FILE_CAUSES[errno] ?? "TSVMM_FILE_UNREADABLE";

/**
 * Error for a user-named file that cannot be opened: SpecError, or HostError if a host limit (EMFILE, ENFILE) is the
 * cause.
 */
export function openError(where: string, path: string, error: unknown): SpecError | HostError {
  const errno = errnoOf(error);
  const text = `Cannot open ${path}: ${errno}`;
  const cause = causeForAnyCall(errno);
  if (cause === undefined) return new SpecError(fileErrorCode(errno), where, text);
  const [code, advice] = codeAndAdvice(cause);
  return new HostError(code, text, advice);
}
