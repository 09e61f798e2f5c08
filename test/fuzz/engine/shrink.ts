/** Runs that shrinking a failure may take. */
const MAX_SHRINK_RUNS = 400;

/** What is wrong, and the operations that bring it about. */
export interface Shrunk<Operation> {
  readonly operations: readonly Operation[];
  readonly text: string;
}

/**
 * Cuts pieces out of a failing list for as long as it fails, large ones first. What fails then may be another thing
 * than at first; it is a failure all the same.
 *
 * @param run Runs a list on fresh things and answers what is wrong, `undefined` for nothing.
 */
export async function shrink<Operation>(
  operations: readonly Operation[],
  run: (operations: readonly Operation[]) => Promise<string | undefined>,
): Promise<Shrunk<Operation>> {
  let best = operations;
  let text = (await run(best)) ?? "it does not fail again: what it found depends on more than its operations";
  let runs = 0;
  for (
    let size = Math.ceil(best.length / 2);
    size >= 1 && runs < MAX_SHRINK_RUNS;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let start = 0; start < best.length && runs < MAX_SHRINK_RUNS; ) {
      const candidate = [...best.slice(0, start), ...best.slice(start + size)];
      runs++;
      const found = candidate.length === 0 ? undefined : await run(candidate);
      if (found === undefined) start += size;
      else {
        best = candidate;
        text = found;
      }
    }
  }
  return { operations: best, text };
}
