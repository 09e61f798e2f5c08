import { generate as generateGuest } from "../accesses/generator.ts";
import { FUNCTION_COUNT } from "../accesses/world.ts";
import { firstWrong } from "../engine/operations.ts";
import type { Random } from "../engine/random.ts";
import { makeTarget, type Target } from "../engine/target.ts";
import { RemovalMachine } from "./machine.ts";
import { kindOf, type Operation } from "./operations.ts";

const GUEST_OPERATIONS = 1500;

/** The guest of the target `accesses`, with functions taken away in between. */
function generate(random: Random): readonly Operation[] {
  return generateGuest(random, GUEST_OPERATIONS).flatMap((operation): readonly Operation[] => {
    const own = operation.op === "probe" ? [] : [operation];
    if (!random.chance(4)) return own;
    return [...own, between(random)];
  });
}

function between(random: Random): Operation {
  const fn = random.below(FUNCTION_COUNT);
  const roll = random.below(100);
  if (roll < 8) return { op: "eject", slots: random.chance(90) ? 2 ** random.below(12) : random.u32() };
  if (roll < 20) return { op: "wants", fn };
  if (roll < 24) return { op: "error", fn };
  if (roll < 28) return { op: "vanish", fn };
  return roll < 50 ? { op: "memoryFault" } : { op: "turn" };
}

async function run(operations: readonly Operation[]): Promise<string | undefined> {
  const machine = new RemovalMachine();
  return (await firstWrong(operations, (operation) => machine.run(operation))) ?? machine.close();
}

/** Functions that go while the guest runs: by the guest, the host, errors, silence and memory that does not answer. */
export const removalsTarget = (): Target =>
  makeTarget<Operation>({
    name: "removals",
    about: "functions taken from a running guest, and memory faults, amid its accesses",
    unit: "operations",
    generate,
    run,
    kind: kindOf,
  });
