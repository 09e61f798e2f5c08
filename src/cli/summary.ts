import type { Machine } from "../vmm/machine.ts";
import type { MachineExit } from "../vmm/machine-exit.ts";
import { writeFile } from "./write-file.ts";

/**
 * Writes what a machine was and did, as JSON: `exit` (status, reason, text), `statistics` (exits by kind, accesses by
 * device, counters of passed-through functions, resets), `plan`, `seconds` (from the start of the machine to its end).
 *
 * @param started performance.now() before the start.
 * @throws HostError when the file cannot be written.
 */
export async function writeSummary(path: string, machine: Machine, exit: MachineExit, started: number): Promise<void> {
  const { status, reason, text } = exit;
  const seconds = Math.round(performance.now() - started) / 1000;
  const summary = {
    exit: { status, reason, text },
    seconds,
    statistics: await machine.statistics(),
    plan: machine.plan,
  };
  await writeFile("the summary", path, `${JSON.stringify(summary, undefined, 2)}\n`);
}
