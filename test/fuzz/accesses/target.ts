import { firstWrong } from "../engine/operations.ts";
import { makeTarget, type Target } from "../engine/target.ts";
import { generate } from "./generator.ts";
import { isAccess, type Operation } from "./operations.ts";
import { Session } from "./session.ts";

/** Operations of one guest; a fresh machine for each keeps what has to be replayed short. */
const EPISODE_LENGTH = 4000;

/** Runs a guest on a fresh machine. @returns What went wrong, with the operation's number. */
async function runOperations(operations: readonly Operation[], ignoresMasks: boolean): Promise<string | undefined> {
  const session = new Session(ignoresMasks);
  return (await firstWrong(operations, (operation) => session.run(operation))) ?? session.close();
}

/**
 * A guest made of random accesses to PCI functions.
 *
 * @param ignoresMasks Puts a fault in: interrupts ignore masks.
 */
export const accessesTarget = (ignoresMasks = false): Target =>
  makeTarget<Operation>({
    name: "accesses",
    about: "a guest's accesses to virtio and passed-through functions",
    unit: "accesses",
    generate: (random) => generate(random, EPISODE_LENGTH),
    run: (operations) => runOperations(operations, ignoresMasks),
    kind: (operation) => (isAccess(operation) ? operation.op : undefined),
  });
