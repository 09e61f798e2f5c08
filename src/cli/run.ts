import { homedir } from "node:os";
import { runHelp } from "./help.ts";
import { runOptions } from "./options/options.ts";
import { inOptions, parseRun, type RunRequest } from "./options/parse.ts";
import { describeError, styleFor } from "./output.ts";
import { formatPlan } from "./plan-view.ts";
import { StopRequests } from "./stop-requests.ts";
import { writeSummary } from "./summary.ts";
import { packageVersion } from "./version.ts";

/**
 * The command `run`: makes a machine of the arguments and waits for its end.
 *
 * @param commands Names and summaries of all commands, for the help.
 * @returns The exit status of the process.
 * @throws SpecError, HostError
 */
export async function run(argv: readonly string[], commands: readonly (readonly string[])[]): Promise<number> {
  const { stdout, env } = process;
  if (argv.includes("--help") || argv.includes("-h")) {
    stdout.write(runHelp(runOptions(), commands, styleFor(stdout, env)));
    return 0;
  }
  if (argv.includes("--version")) {
    stdout.write(`tsvmm ${packageVersion()}\n`);
    return 0;
  }
  try {
    return await runMachine(parseRun(argv, env["HOME"] ?? homedir()));
  } catch (error) {
    throw inOptions(error);
  }
}

async function runMachine({ spec, log, isDryRun, isVerbose, summary }: RunRequest): Promise<number> {
  const { stdout, stderr, env } = process;
  // Only now: the machine's code loads the FFI, and a wrong command line should not wait for that.
  const { describeCompleted, startCompleted } = await import("../vmm/machine.ts");
  if (isDryRun) {
    const plan = await describeCompleted(spec, { log });
    stdout.write(formatPlan(plan, styleFor(stdout, env)));
    // lspci -F skips what stands above: nothing there begins with an address.
    if (isVerbose) stdout.write(`\nConfiguration spaces, as lspci -F reads them\n\n${plan.configDump}`);
    return 0;
  }
  const report = (error: Error): void => void stderr.write(`${describeError(error, styleFor(stderr, env)).text}\n`);
  // Before the start, which a signal that comes meanwhile stops.
  const requests = new StopRequests(process, report);
  try {
    const started = performance.now();
    const machine = await startCompleted(spec, { log, signal: requests.signal });
    requests.attach(machine);
    const exit = await machine.exited;
    if (summary !== undefined) await writeSummary(summary, machine, exit, started);
    if (exit.error !== undefined) throw exit.error;
    return requests.status ?? exit.status;
  } catch (error) {
    if (requests.status === undefined || error !== requests.signal.reason) throw error;
    return requests.status;
  } finally {
    requests.close();
  }
}
