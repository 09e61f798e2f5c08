/**
 * Runs operations one after another, up to the first after which something is wrong.
 *
 * @param run Does one. @returns What is wrong then.
 */
export async function firstWrong<Operation>(
  operations: readonly Operation[],
  run: (operation: Operation) => string | undefined | Promise<string | undefined>,
): Promise<string | undefined> {
  for (const [index, operation] of operations.entries()) {
    const answer = run(operation);
    const wrong = answer instanceof Promise ? await answer : answer; // a turn of the queue for each takes longer
    if (wrong !== undefined) return `after operation ${index}: ${wrong}`;
  }
  return undefined;
}

/** Something that operations are done to, and that tells at its end what is wrong with what is left. */
interface Judged<Operation> {
  run(operation: Operation): string | undefined | Promise<string | undefined>;
  close(): Promise<string | undefined>;
}

/** {@link firstWrong}, then the end of what it was done to, which comes also when an operation throws. */
export async function firstWrongToTheEnd<Operation>(
  judged: Judged<Operation>,
  operations: readonly Operation[],
): Promise<string | undefined> {
  let atEnd: string | undefined;
  let wrong: string | undefined;
  try {
    wrong = await firstWrong(operations, (operation) => judged.run(operation));
  } finally {
    atEnd = await judged.close();
  }
  return wrong ?? atEnd;
}
