/**
 * Numbers that look random and are the same for a seed: whole ones from 0 to `below` - 1. Xorshift, period 2^32 - 1.
 */
export function randomNumbers(seed: number): (below: number) => number {
  let state = Math.imul(seed + 1, 0x9e37_79b1) | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}
