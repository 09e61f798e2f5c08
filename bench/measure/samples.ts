/** What several measurements of one thing say together. */
export interface Summary {
  readonly median: number;
  /** First and third quartile: the spread shown. */
  readonly low: number;
  readonly high: number;
  readonly count: number;
}

/** The value below which a share of the samples lies, interpolated between neighbours; NaN when there are none. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const position = (sorted.length - 1) * share;
  const below = sorted[Math.floor(position)] ?? Number.NaN;
  const above = sorted[Math.ceil(position)] ?? Number.NaN;
  return below + (above - below) * (position - Math.floor(position));
}

export const median = (samples: readonly number[]): number => quantile(samples, 0.5);

/** Median and quartiles. */
export function summarize(samples: readonly number[]): Summary {
  return {
    median: median(samples),
    low: quantile(samples, 0.25),
    high: quantile(samples, 0.75),
    count: samples.length,
  };
}

/**
 * One thing measured against another, round by round. The ratio of each round is taken before the median: a slow minute
 * of the machine slows both.
 */
export function ratioOf(ours: readonly number[], theirs: readonly number[]): Summary {
  return summarize(ours.flatMap((value, round) => (theirs[round] === undefined ? [] : [value / theirs[round]])));
}
