import { firstWrong } from "../engine/operations.ts";
import { makeTarget, type Target } from "../engine/target.ts";
import { FuzzedBoard } from "./board.ts";
import { generate } from "./generator.ts";
import { kindOf, type Operation } from "./operations.ts";

const EPISODE_LENGTH = 4000;

function run(operations: readonly Operation[]): Promise<string | undefined> {
  const board = new FuzzedBoard();
  return firstWrong(operations, (operation) => board.run(operation));
}

/** Accesses to a machine's fixed devices, with input, time and events in between. */
export const platformTarget = (): Target =>
  makeTarget<Operation>({
    name: "platform",
    about: "a guest's accesses to serial port, clock, keyboard controller, ACPI and test device",
    unit: "accesses",
    generate: (random) => generate(random, EPISODE_LENGTH),
    run,
    kind: kindOf,
  });
