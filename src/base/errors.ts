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

  /** @param text What could not be done, a colon, the state found; sentence case, no period. */
  constructor(text: string, advice?: string) {
    super(advice === undefined ? text : `${text} (${advice})`);
    this.advice = advice;
  }
}

/** The name node gives an error of the system: `ENOENT`; the whole text for others. */
export const errnoOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : String(error);
