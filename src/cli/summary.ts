import { HostError, SpecError } from "../base/errors.ts";
import type { Machine } from "../vmm/machine.ts";
import type { MachineExit } from "../vmm/machine-exit.ts";
import { writeFile } from "./write-file.ts";

/**
 * Writes what a machine was and did, as JSON. The keys are `exit` (status, reason, text, code of a failure),
 * `statistics`, `plan`, and `seconds` from start to end. The statistics are exits by kind, accesses by device, counters
 * of passed-through functions, and resets.
 *
 * @param started performance.now() before the start.
 * @throws HostError when the file cannot be written.
 */
export async function writeSummary(path: string, machine: Machine, exit: MachineExit, started: number): Promise<void> {
  const { status, reason, text } = exit;
  const code = exit.error instanceof HostError || exit.error instanceof SpecError ? exit.error.code : undefined;
  const seconds = Math.round(performance.now() - started) / 1000;
  const summary = {
    exit: { status, reason, text, ...(code === undefined ? {} : { code }) },
    seconds,
    statistics: await machine.statistics(),
    plan: machine.plan,
  };
  await writeFile("the summary", path, `${JSON.stringify(summary, undefined, 2)}\n`);
}
