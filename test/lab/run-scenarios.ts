import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import type { LabDevice } from "../../lab/devices.ts";
import { runLab, shellQuote } from "../../lab/run.ts";
import { LOST_STATUSES, type Scenario } from "../../lab/scenario.ts";
import type { Observations } from "./scenario-program.ts";

/*
 * Outside the nested host: runs scenario programs (scenario-program.ts) in it and collects what they saw, for tests to
 * judge.
 */

/** The longest takes a minute and a half beside nothing else. */
const SCENARIO_TIMEOUT_MS = 240_000;
/** How often a scenario that stands still is run. */
const ATTEMPTS = 5;

/** Where `run.ts` looks for what to show meanwhile; standard error when the test runs by itself. */
const progressFile = process.env["TSVMM_TEST_PROGRESS"];

/** Shows what is going on, at once. */
export function progress(text: string): void {
  if (progressFile === undefined) process.stderr.write(`lab: ${text}\n`);
  else appendFileSync(progressFile, `lab: ${text}\n`);
}

/** A directory that lasts as long as the test file. */
export function testFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-lab-test-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface LabPlan {
  readonly folder: string;
  readonly devices: readonly LabDevice[];
  readonly drivers?: "vfio" | "none";
  /** Compiled scenario program. */
  readonly program: string;
  /** Its first argument, as JSON. */
  readonly inputs: unknown;
  readonly names: readonly string[];
  /** Other commands to run in the nested host, after those, judged by their exit status. */
  readonly commands?: Readonly<Record<string, readonly string[]>>;
  readonly timeoutMs: number;
}

export interface LabOutcome {
  /** What each scenario saw, by name. */
  readonly results: ReadonlyMap<string, Observations>;
  /** Exit status of each command, by name. */
  readonly statuses: ReadonlyMap<string, number>;
}

/**
 * Runs scenarios in nested hosts, as many in one as it bears. Where a guest stood still or crashed, the scenario runs
 * again and the others go on in a fresh one. Wrong answers never run again.
 *
 * Nested virtualization under emulation loses a guest now and then, through no fault of what runs it: QEMU under the
 * same emulation loses as many. The translator seems to save the host's state as the guest's. A hanging guest had the
 * RIP, RSP and RAX of its host's kernel just before VMRUN. Others have the host's GS base, and the host's own kernel
 * then finds a wrong preemption count (NestedHostLost in lab-run.ts). A lost guest is reported and run again. The fifth
 * loss is an error of tsvmm's.
 */
export async function runScenarios(plan: LabPlan): Promise<LabOutcome> {
  const share = join(plan.folder, "share");
  mkdirSync(share, { recursive: true });
  const resultsFile = join(share, "results");
  const commands = plan.commands ?? {};
  const statuses = new Map<string, number>();
  const scenarioOf = (name: string): Scenario => {
    const command = commands[name] ?? ["node", plan.program, JSON.stringify(plan.inputs), "/lab/results", name];
    return { name, script: command.map(shellQuote).join(" "), timeoutMs: SCENARIO_TIMEOUT_MS };
  };
  const attempts = new Map<string, number>();
  let remaining: readonly string[] = [...plan.names, ...Object.keys(commands)];
  while (remaining.length > 0) {
    const { scenarios } = await runLab({
      devices: plan.devices,
      ...(plan.drivers !== undefined && { drivers: plan.drivers }),
      scenarios: remaining.map(scenarioOf),
      shareDirectory: share,
      timeoutMs: plan.timeoutMs,
      onProgress: progress,
      onOutput: (bytes) => void process.stderr.write(bytes),
    });
    const results = readResults(resultsFile);
    const done = new Set<string>();
    for (const { name, status, seconds } of scenarios) {
      const attempt = (attempts.get(name) ?? 0) + 1;
      attempts.set(name, attempt);
      if (name in commands) statuses.set(name, status);
      progress(`${name}: ${outcomeOf(results.get(name), status)} after ${Math.round(seconds)} s`);
      if (!LOST_STATUSES.includes(status) || attempt === ATTEMPTS) done.add(name);
      else {
        progress(`once more, in a fresh nested host, since its guest was lost: ${name}`);
        forget(resultsFile, name);
      }
    }
    if (scenarios.length === 0) break; // the agent did not find them: each test will say so
    remaining = remaining.filter((name) => !done.has(name));
  }
  return { results: readResults(resultsFile), statuses };
}

/** Takes a scenario's line out of the results. */
function forget(file: string, name: string): void {
  const lines = existsSync(file) ? readFileSync(file, "utf8").split("\n").filter(Boolean) : [];
  const kept = lines.filter((line) => !line.includes(`"name":"${name}"`));
  writeFileSync(file, kept.map((line) => `${line}\n`).join(""));
}

function outcomeOf(seen: Observations | undefined, status: number): string {
  const error = seen?.["error"];
  if (error !== undefined) return `failed (${String(error).split("\n")[0]})`;
  return LOST_STATUSES.includes(status) ? "its time was up" : `ended with status ${status}`;
}

function readResults(file: string): Map<string, Observations> {
  const lines = existsSync(file) ? readFileSync(file, "utf8").split("\n").filter(Boolean) : [];
  return new Map(
    lines.map((line) => {
      // Cast: scenario-program.ts wrote it.
      const observations = JSON.parse(line) as Observations & { name: string };
      return [observations.name, observations];
    }),
  );
}

/** A scenario's observations, after making sure that it came to its end. */
export function observed(outcome: LabOutcome, test: Pick<typeof t, "equal">, name: string): Observations {
  const found = outcome.results.get(name) ?? { error: "the scenario did not come to its end" };
  test.equal(found["error"], undefined, `${name} came to its end`);
  return found;
}
