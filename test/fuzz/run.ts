import { generate } from "./generator.ts";
import { isAccess, type Operation } from "./operations.ts";
import { Random } from "./random.ts";
import { Session } from "./session.ts";

/** Operations of one guest; a fresh machine for each keeps what has to be replayed short. */
const EPISODE_LENGTH = 4000;
/** Runs that shrinking a failure may take. */
const MAX_SHRINK_RUNS = 400;

/** What is wrong, and the guest that brings it about. */
export interface Failure {
  /** Of the episode; {@link fuzz} with it and one episode finds the same again. */
  readonly seed: number;
  readonly text: string;
  readonly operations: readonly Operation[];
}

export interface FuzzOptions {
  readonly seed: number;
  /** Asked before each episode with what was done so far; false ends the run. */
  readonly goesOn: (progress: FuzzProgress) => boolean;
  /** Puts a fault in: interrupts ignore masks. */
  readonly ignoresMasks?: boolean;
}

export interface FuzzProgress {
  readonly episodes: number;
  /** By what kind: configuration space, BARs, absolute addresses, RAM. */
  readonly accesses: Readonly<Record<"config" | "bar" | "absolute" | "ram", number>>;
  readonly signals: number;
}

/** The seed of an episode: those of one run differ, and differ from another run's. */
export const episodeSeed = (seed: number, episode: number): number =>
  (Math.imul(seed, 0x9e37_79b1) + Math.imul(episode, 0x85eb_ca6b)) >>> 0;

/** Guests without end, each on a machine of its own. @returns The first failure, shrunk; `undefined` when there was none. */
export function fuzz(options: FuzzOptions): { readonly failure: Failure | undefined; readonly progress: FuzzProgress } {
  const accesses = { config: 0, bar: 0, absolute: 0, ram: 0 };
  let signals = 0;
  for (let episodes = 0; ; episodes++) {
    const progress = { episodes, accesses, signals };
    if (!options.goesOn(progress)) return { failure: undefined, progress };
    const seed = episodeSeed(options.seed, episodes);
    const operations = generate(new Random(seed), EPISODE_LENGTH);
    const text = runOperations(operations, options.ignoresMasks);
    if (text !== undefined) {
      const shrunk = shrink(operations, (candidate) => runOperations(candidate, options.ignoresMasks));
      return { failure: { seed, ...shrunk }, progress };
    }
    for (const operation of operations) {
      if (operation.op === "signal") signals++;
      if (isAccess(operation)) accesses[operation.op as "config"]++; // Cast: accesses are of these kinds
    }
  }
}

/** Runs a guest on a fresh machine. @returns What went wrong, with the operation's number. */
export function runOperations(operations: readonly Operation[], ignoresMasks = false): string | undefined {
  const session = new Session(ignoresMasks);
  for (const [index, operation] of operations.entries()) {
    const wrong = session.run(operation);
    if (wrong !== undefined) return `after operation ${index}: ${wrong}`;
  }
  return session.close();
}

/**
 * Cuts pieces out of a failing guest for as long as it fails, large ones first. What fails then may be another thing than at first; it
 * is a failure all the same.
 */
export function shrink(
  operations: readonly Operation[],
  run: (operations: readonly Operation[]) => string | undefined,
): { readonly operations: readonly Operation[]; readonly text: string } {
  let best = operations;
  let text = run(best) ?? "it does not fail again: what it found depends on more than its operations";
  let runs = 0;
  for (
    let size = Math.ceil(best.length / 2);
    size >= 1 && runs < MAX_SHRINK_RUNS;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let start = 0; start < best.length && runs < MAX_SHRINK_RUNS; ) {
      const candidate = [...best.slice(0, start), ...best.slice(start + size)];
      runs++;
      const found = candidate.length === 0 ? undefined : run(candidate);
      if (found === undefined) start += size;
      else {
        best = candidate;
        text = found;
      }
    }
  }
  return { operations: best, text };
}
