import { HostError } from "../src/base/errors.ts";

/** A failure of the project's own tools: shown as an error of the host is, with the code of none of its causes. */
export class ToolError extends HostError {
  /** @param text What could not be done, a colon, the state found; sentence case, no period. */
  constructor(text: string, advice?: string) {
    super("TSVMM_HOST_CALL", text, advice);
  }
}
