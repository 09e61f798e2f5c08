import { HostError, SpecError } from "../../src/base/errors.ts";
import { describeError, styleFor } from "../../src/cli/output.ts";

const plain = styleFor({}, {});

/** Controls, formats, halves of surrogates and line separators: what does things to a terminal. */
const EFFECTIVE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

/**
 * What is wrong with the refusal of bad input. It must be a SpecError about one of `options`. The program must show it
 * in one line of printable characters, with status 2.
 *
 * @param options Any when absent.
 */
export function judgeRefusal(error: unknown, options?: readonly string[]): string | undefined {
  if (!(error instanceof SpecError)) return `an exception: ${describe(error)}`;
  if (options !== undefined && !options.includes(error.path))
    return `a refusal about '${error.path}': ${error.message}`;
  return judgeLine(error, 2);
}

/** The same where the host may be what refuses: a HostError, with status 1. */
export function judgeFailure(error: unknown): string | undefined {
  return error instanceof HostError ? judgeLine(error, 1) : judgeRefusal(error);
}

function judgeLine(error: Error, wanted: number): string | undefined {
  const { text, status } = describeError(error, plain);
  if (status !== wanted) return `status ${status} instead of ${wanted}: ${text}`;
  if (EFFECTIVE.test(text)) return `characters that do not print: ${JSON.stringify(text)}`;
  return text.length > 700 ? `a refusal of ${text.length} characters` : undefined;
}

const describe = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error));
