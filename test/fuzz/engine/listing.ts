/*
 * Operations of a fuzzed run as text: one a line, as a person reads it and `--replay` takes it. They are plain data
 * which mean the same whatever came before, so that a list of them can be stored, cut and run again.
 */

/** One operation a line, with its number. */
export const formatOperations = (operations: readonly unknown[]): string =>
  operations.map((operation, index) => `${String(index).padStart(4)} ${JSON.stringify(operation)}\n`).join("");

/** Reads what {@link formatOperations} wrote; lines without an operation are skipped. */
export function parseOperations<Operation>(text: string): readonly Operation[] {
  return text.split("\n").flatMap((line): readonly Operation[] => {
    const json = /^\s*\d+ (\{.*\}|\[.*\])\s*$/.exec(line)?.[1];
    // Cast: the lines are this program's own output; others are caught by what executes them.
    return json === undefined ? [] : [JSON.parse(json) as Operation];
  });
}
