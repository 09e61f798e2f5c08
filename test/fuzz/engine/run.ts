import type { Failure, Target } from "./target.ts";

export interface FuzzOptions {
  readonly seed: number;
  /** Asked before each episode with what was done so far; false ends the run. */
  readonly goesOn: (progress: FuzzProgress) => boolean;
}

export interface FuzzProgress {
  readonly episodes: number;
  /** Operations that count, all kinds together. */
  readonly operations: number;
  /** By kind. */
  readonly counts: ReadonlyMap<string, number>;
}

/** A failure with the seed of the episode that brought it about. */
export interface SeededFailure extends Failure {
  readonly seed: number;
}

/** What a run of a target came to. */
export interface FuzzResult {
  readonly progress: FuzzProgress;
  readonly failure: SeededFailure | undefined;
}

/** The seed of an episode: those of one run differ, and differ from another run's. */
export const episodeSeed = (seed: number, episode: number): number =>
  (Math.imul(seed, 0x9e37_79b1) + Math.imul(episode, 0x85eb_ca6b)) >>> 0;

/** Episodes without end, each on fresh things. @returns The first failure, shrunk; `undefined` when there was none. */
export async function fuzz(target: Target, { seed, goesOn }: FuzzOptions): Promise<FuzzResult> {
  const counts = new Map<string, number>();
  let operations = 0;
  for (let episodes = 0; ; ) {
    if (!goesOn({ episodes, operations, counts })) {
      return { failure: undefined, progress: { episodes, operations, counts } };
    }
    const ownSeed = episodeSeed(seed, episodes++);
    const episode = await target.episode(ownSeed);
    for (const [kind, count] of episode.counts) {
      counts.set(kind, (counts.get(kind) ?? 0) + count);
      operations += count;
    }
    if (episode.failure !== undefined) {
      return { failure: { ...episode.failure, seed: ownSeed }, progress: { episodes, operations, counts } };
    }
  }
}
