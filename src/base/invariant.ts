/** Thrown when our own code is wrong: the machine is stopped in order and the state reported. */
export class InvariantError extends Error {
  override readonly name = "InvariantError";
}

/**
 * States what must hold whatever the guest, the user and the host do.
 *
 * @throws InvariantError when `condition` is false. Never use it on guest input: a guest must not be able to stop the
 *   machine so.
 */
export function invariant(condition: unknown, text: string): asserts condition {
  if (!condition) throw new InvariantError(`Internal error: ${text}`);
}
