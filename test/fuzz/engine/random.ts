/**
 * Numbers that repeat from run to run: the same seed gives the same guest. Mulberry32, which passes for random and is
 * one line.
 */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 to 2^32 - 1. */
  u32(): number {
    this.#state = (this.#state + 0x6d2b_79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.u32() / 2 ** 32) * limit);
  }

  /** True in `percent` of a hundred cases. */
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  /** @throws RangeError for an empty list. */
  pick<Value>(list: readonly Value[]): Value {
    const index = this.below(list.length);
    if (!(index in list)) throw new RangeError("Cannot pick from an empty list");
    return list[index] as Value; // Cast: the index is there
  }
}
