import type { Beside, Context, Line, Unit } from "./row.ts";
import { ratioOf, summarize } from "./samples.ts";

/** Measures one contender once; answers a value for each thing measured. */
export type Measure<What extends string> = () => Promise<Readonly<Record<What, number>>>;

/** Samples of each contender, by what was measured; the n-th samples of all are of the same round. */
export type Samples<What extends string> = Readonly<Record<string, Readonly<Record<What, readonly number[]>>>>;

/** The run was interrupted before there was a single round. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";

  constructor() {
    super("interrupted");
  }
}

/**
 * Measures contenders in turns, so that what else the machine does meets all alike; every other round in the opposite
 * order.
 *
 * @param contenders By name; ours among them.
 * @returns Samples of whole rounds: as many as were asked for, or were complete when the run was interrupted.
 * @throws Interrupted when none was.
 */
export async function interleave<What extends string>(
  context: Pick<Context, "rounds" | "progress" | "signal">,
  contenders: Readonly<Record<string, Measure<What>>>,
): Promise<Samples<What>> {
  const samples: Record<string, Partial<Record<What, number[]>>> = {};
  for (let round = 0; round < context.rounds; round++) {
    const found = await measureAll(context, round, contenders);
    if (found === undefined) {
      if (round === 0) throw new Interrupted();
      break;
    }
    for (const [name, values] of found) {
      samples[name] ??= {};
      const kept = samples[name];
      // Cast: the keys of a Record<What, …> are of What.
      for (const what of Object.keys(values) as What[]) kept[what] = [...(kept[what] ?? []), values[what]];
    }
  }
  return samples as Samples<What>; // cast: every measurement has answered a value for each What
}

/** One round; `undefined` when it was interrupted. */
async function measureAll<What extends string>(
  { rounds, progress, signal }: Pick<Context, "rounds" | "progress" | "signal">,
  round: number,
  contenders: Readonly<Record<string, Measure<What>>>,
): Promise<(readonly [string, Readonly<Record<What, number>>])[] | undefined> {
  const order = Object.entries(contenders);
  if (round % 2 === 1) order.reverse();
  const found: (readonly [string, Readonly<Record<What, number>>])[] = [];
  for (const [name, measure] of order) {
    if (signal.aborted) return undefined;
    progress(`round ${round + 1} of ${rounds}: ${name}`);
    try {
      found.push([name, await measure()]);
    } catch (error) {
      if (signal.aborted) return undefined; // its process was killed
      throw error;
    }
  }
  return signal.aborted ? undefined : found;
}

/** Lays our samples of one thing beside everybody else's. */
export function compare<What extends string>(
  samples: Samples<What>,
  ours: string,
  key: What,
  line: { readonly what: string; readonly unit: Unit; readonly scale?: number },
): Line {
  const scale = line.scale ?? 1;
  const of = (name: string): number[] => (samples[name]?.[key] ?? []).map((value) => value * scale);
  const beside: Beside[] = Object.keys(samples)
    .filter((name) => name !== ours && of(name).length > 0)
    .map((name) => ({ name, value: summarize(of(name)), ratio: ratioOf(of(ours), of(name)) }));
  return { what: line.what, unit: line.unit, value: summarize(of(ours)), beside };
}

/** How many times a peer's value ours is, the median of the rounds; `undefined` without that peer. */
export const ratioTo = (line: Line, name: string): number | undefined =>
  line.beside.find((peer) => peer.name === name)?.ratio.median;

/** A line with what was wanted. */
export const withAim = (line: Line, text: string, isReached: boolean | undefined): Line => ({
  ...line,
  aim: { text, isReached },
});
