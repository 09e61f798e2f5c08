import type { Random } from "../engine/random.ts";
import { MISTAKES, MOST_SECTORS, type Operation, type Place, SECTORS } from "./operations.ts";

/** A guest's requests on one disk, several at a time, with resets in between. */
export function generate(random: Random, length: number, places: readonly Place[]): readonly Operation[] {
  const operations: Operation[] = [
    { op: "disk", place: random.pick(places), isDirect: random.chance(40), isWriteThrough: random.chance(30) },
  ];
  while (operations.length < length) operations.push(step(random));
  return operations;
}

function step(random: Random): Operation {
  const die = random.below(100);
  if (die < 30) return { op: "write", ...range(random), ...buffer(random) };
  if (die < 55) return { op: "read", ...range(random), ...buffer(random) };
  if (die < 63) return { op: "zero", ...range(random), mayUnmap: random.chance(50) };
  if (die < 68) return { op: "discard", ...range(random) };
  if (die < 76) return { op: "flush" };
  if (die < 80) return { op: "wrong", how: random.pick(MISTAKES), sector: random.below(SECTORS) };
  return die < 99 ? { op: "turn" } : { op: "reset" };
}

/** Small ranges mostly, often at the borders of 4 KiB and of the disk. */
function range(random: Random): { readonly sector: number; readonly count: number } {
  const count = 1 + random.below(random.chance(80) ? 9 : MOST_SECTORS);
  const anywhere = random.below(SECTORS);
  if (random.chance(20)) return { sector: SECTORS - count, count };
  return { sector: random.chance(40) ? anywhere - (anywhere % 8) : anywhere, count };
}

function buffer(random: Random): { readonly pieces: readonly number[]; readonly odd: number } {
  const pieces = Array.from({ length: 1 + random.below(random.chance(80) ? 2 : 6) }, () => 1 + random.below(7));
  return { pieces, odd: random.chance(70) ? 0 : random.below(512) };
}
