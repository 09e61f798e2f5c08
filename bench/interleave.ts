import type { Beside, Context, Line, Unit } from "./row.ts";
import { ratioOf, summarize } from "./samples.ts";

/** Measures one contender once; answers a value for each thing measured. */
export type Measure<What extends string> = () => Promise<Readonly<Record<What, number>>>;

/** Samples of each contender, by what was measured; the n-th samples of all are of the same round. */
export type Samples<What extends string> = Readonly<Record<string, Readonly<Record<What, readonly number[]>>>>;

/**
 * Measures contenders in turns, so that what else the machine does meets all alike; every other round in the opposite order.
 *
 * @param contenders By name; ours among them.
 */
export async function interleave<What extends string>(
  context: Pick<Context, "rounds" | "progress">,
  contenders: Readonly<Record<string, Measure<What>>>,
): Promise<Samples<What>> {
  const samples: Record<string, Partial<Record<What, number[]>>> = {};
  for (let round = 0; round < context.rounds; round++) {
    const order = Object.entries(contenders);
    if (round % 2 === 1) order.reverse();
    for (const [name, measure] of order) {
      context.progress(`round ${round + 1} of ${context.rounds}: ${name}`);
      const values = await measure();
      samples[name] ??= {};
      const kept = samples[name];
      // Cast: the keys of a Record<What, …> are of What.
      for (const what of Object.keys(values) as What[]) kept[what] = [...(kept[what] ?? []), values[what]];
    }
  }
  return samples as Samples<What>; // cast: every measurement has answered a value for each What
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

/** A line with what was wanted. */
export const withAim = (line: Line, text: string, isReached: boolean | undefined): Line => ({
  ...line,
  aim: { text, isReached },
});
