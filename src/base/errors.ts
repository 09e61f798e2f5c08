/** The user's specification or command line is wrong: shown as one line, without a stack, exit status 2. */
export class SpecError extends Error {
  override readonly name = "SpecError";
  /** Which part: an option (`--memory`) or a path in the spec (`devices[1].bdf`). */
  readonly path: string;

  constructor(path: string, text: string) {
    super(path === "" ? text : `${path}: ${text}`);
    this.path = path;
  }
}

/** The host refused or lacks something: shown as one line, without a stack, exit status 1. */
export class HostError extends Error {
  override readonly name: string = "HostError";
  /** What the user can do about it; part of `message` too. */
  readonly advice: string | undefined;
  /** Lines for who looks into it, such as a vCPU's registers; shown below the message. */
  readonly details: string | undefined;

  /** @param text What could not be done, a colon, the state found; sentence case, no period. */
  constructor(text: string, advice?: string, details?: string) {
    super(advice === undefined ? text : `${text} (${advice})`);
    this.advice = advice;
    this.details = details;
  }
}

/** What to do about errors that mean the same whatever was called. */
const ADVICE_FOR_ANY_CALL: Readonly<Record<string, string>> = {
  EMFILE: "raise the limit of open files: ulimit -n",
  ENFILE: "the host has no open files left: raise fs.file-max",
};

/** Advice for an errno's name that holds for any call; `undefined` where it depends on the call. */
export const adviceForAnyCall = (errno: string): string | undefined => ADVICE_FOR_ANY_CALL[errno];

/** The name node gives an error of the system: `ENOENT`; the whole text for others. */
export const errnoOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : String(error);

/**
 * Converts an error that the host caused to a HostError: a HostError as it is, a failed call of Node's modules wrapped,
 * `undefined` for any other: `Cannot open /x: EMFILE (raise …)`.
 */
export function hostErrorOf(error: unknown): HostError | undefined {
  if (error instanceof HostError) return error;
  if (!(error instanceof Error) || !("syscall" in error) || typeof error.syscall !== "string") return undefined;
  const path = "path" in error && typeof error.path === "string" ? ` ${error.path}` : "";
  const errno = errnoOf(error);
  return new HostError(`Cannot ${error.syscall}${path}: ${errno}`, adviceForAnyCall(errno));
}

/**
 * Error for a user-named file that cannot be opened: SpecError, or HostError if a host limit (EMFILE, ENFILE) is the
 * cause.
 */
export function openError(where: string, path: string, error: unknown): SpecError | HostError {
  const errno = errnoOf(error);
  const text = `Cannot open ${path}: ${errno}`;
  const advice = adviceForAnyCall(errno);
  return advice === undefined ? new SpecError(where, text) : new HostError(text, advice);
}
