import { formatOperations, parseOperations } from "./listing.ts";
import { Random } from "./random.ts";
import { shrink } from "./shrink.ts";

/** What a target does, in the terms of its own operations. */
export interface TargetDefinition<Operation> {
  readonly name: string;
  /** For the help: what is attacked, and by whom. */
  readonly about: string;
  /** What operations that count are, in the plural: `accesses`. */
  readonly unit: string;
  /** What cannot be done on this machine, and why: a sentence each. */
  readonly leftOut?: () => readonly string[];
  /** The operations of one run; they follow from the numbers alone. */
  readonly generate: (random: Random) => readonly Operation[];
  /** Runs them on fresh things. @returns What is wrong, `undefined` for nothing; it need not catch exceptions. */
  readonly run: (operations: readonly Operation[]) => string | undefined | Promise<string | undefined>;
  /** The kind an operation is counted under; `undefined` for one that is not counted. */
  readonly kind: (operation: Operation) => string | undefined;
  /** Gives back what runs shared. */
  readonly close?: () => void;
}

/** What became of one run. */
export interface Episode {
  /** Operations by kind. */
  readonly counts: ReadonlyMap<string, number>;
  readonly failure?: Failure;
}

/** What is wrong, and a listing of the operations that bring it about. */
export interface Failure {
  readonly text: string;
  readonly listing: string;
}

/** Something to fuzz, whatever its operations are. */
export interface Target {
  readonly name: string;
  readonly about: string;
  readonly unit: string;
  leftOut(): readonly string[];
  /** One run, which follows from the seed alone; a failing one is shrunk. */
  episode(seed: number): Promise<Episode>;
  /** Runs a listing again. @returns What is wrong, `undefined` for nothing. */
  replay(listing: string): Promise<string | undefined>;
  close(): void;
}

/** Makes a target of its definition. */
export function makeTarget<Operation>(definition: TargetDefinition<Operation>): Target {
  const { name, about, unit, leftOut, generate, kind, close } = definition;
  const run = async (operations: readonly Operation[]): Promise<string | undefined> => {
    try {
      return await definition.run(operations);
    } catch (error) {
      return `an exception: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
    }
  };
  return {
    ...{ name, about, unit },
    leftOut: () => leftOut?.() ?? [],
    episode: async (seed) => {
      const operations = generate(new Random(seed));
      const counts = new Map<string, number>();
      for (const operation of operations) {
        const counted = kind(operation);
        if (counted !== undefined) counts.set(counted, (counts.get(counted) ?? 0) + 1);
      }
      if ((await run(operations)) === undefined) return { counts };
      const { operations: left, text } = await shrink(operations, run);
      return { counts, failure: { text, listing: formatOperations(left) } };
    },
    replay: (listing) => run(parseOperations<Operation>(listing)),
    close: () => close?.(),
  };
}
