import type { Random } from "../engine/random.ts";
import type { Operation } from "./server-operations.ts";

const KINDS = ["intx", "msi", "msix"] as const;

export function generate(random: Random, count: number): readonly Operation[] {
  const operations: Operation[] = [];
  while (operations.length < count) operations.push(...life(random));
  return operations;
}

/** One connection: most servers are right for a while, so that all of a device's life is met. */
function life(random: Random): readonly Operation[] {
  const isFunction = random.chance(40);
  const tampers = Array.from({ length: random.pick([0, 1, 1, 2]) }, () => tamper(random, isFunction ? 120 : 60));
  const steps = Array.from({ length: 5 + random.below(60) }, () => step(random));
  return [...tampers, { op: "open", isFunction }, ...steps];
}

const tamper = (random: Random, within: number): Operation => ({
  ...{ op: "tamper", after: random.below(within), seed: random.u32() },
});

function step(random: Random): Operation {
  const region = random.pick([0, 0, 0, 7, 7, random.below(9)]);
  const offset = random.pick([random.below(256), random.below(0x5000)]);
  const width = random.pick([1, 2, 4, 4] as const);
  const roll = random.below(100);
  if (roll < 30) return { op: "read", region, offset, width };
  if (roll < 60) return { op: "write", region, offset, width, value: random.u32() % 2 ** (8 * width) };
  if (roll < 66) return { op: "trigger", kind: random.pick(KINDS), start: random.below(3), count: random.below(4) };
  if (roll < 70) return { op: "disable", kind: random.pick(KINDS) };
  if (roll < 74) return { op: "mask", how: random.pick(["mask", "unmask", "unmaskOn"] as const) };
  if (roll < 78) return { op: "map" };
  if (roll < 83) return random.chance(60) ? { op: "place", address: 0xc000_0000 } : { op: "place" };
  if (roll < 85) return { op: "reset" };
  if (roll < 87) return tamper(random, 20);
  if (roll < 90) return push(random);
  return { op: "turn" };
}

/** A DMA_READ or DMA_WRITE of any address and size, or anything. */
function push(random: Random): Operation {
  if (random.chance(20)) {
    return { op: "push", words: Array.from({ length: 8 }, () => random.u32()), count: 1 + random.below(32) };
  }
  const dataWords = random.chance(50) ? 0 : random.below(25);
  const size = 32 + 4 * dataWords;
  const header = [random.below(0x1_0000) + 65_536 * (11 + random.below(2)), size, 0, 0];
  const address = [random.below(0x30_0000), random.chance(88) ? 0 : random.u32()];
  const length = [random.chance(66) ? 4 * dataWords : random.u32(), random.chance(88) ? 0 : random.u32()];
  const data = Array.from({ length: dataWords }, () => random.u32());
  return { op: "push", words: [...header, ...address, ...length, ...data], count: size };
}
