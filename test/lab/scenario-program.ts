import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { WaitError } from "../../src/index.ts";

/** A scenario's observations: plain data, whatever the scenario found worth telling. */
export type Observations = Record<string, unknown>;

/** Scenarios by name. Each ends with what it saw, or throws. */
export type Scenarios = Readonly<Record<string, () => Promise<Observations>>>;

/** Tells the nested host's agent that nothing more should run there. */
const EX_TEMPFAIL = 75;

/**
 * A guest or a program that went silent although nothing had gone wrong before: what an emulated host brings about at
 * times.
 */
export class StallError extends Error {}

/**
 * Runs inside the nested host: the scenarios named, one after another. What each saw goes to `resultsFile`, one JSON
 * line each, where the test on the other side judges it. One process for several, since starting node is what takes
 * longest there.
 */
export async function runScenarioProgram(
  scenarios: Scenarios,
  resultsFile: string,
  names: readonly string[],
): Promise<void> {
  // Should the nested host itself have gone down, this program runs again: what was seen before stays.
  let status = 0;
  const seen = existsSync(resultsFile) ? readFileSync(resultsFile, "utf8") : "";
  for (const name of names.filter((name) => !seen.includes(`"name":"${name}"`))) {
    const started = performance.now();
    let line: Observations;
    try {
      const scenario = scenarios[name];
      if (scenario === undefined) throw new Error(`There is no scenario ${name}`);
      line = { name, ...(await scenario()) };
    } catch (error) {
      const isStall = error instanceof WaitError || error instanceof StallError;
      status = isStall ? EX_TEMPFAIL : 1;
      line = { name, error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
    }
    const seconds = Math.round((performance.now() - started) / 1000);
    appendFileSync(resultsFile, `${JSON.stringify({ ...line, seconds })}\n`);
  }
  // What a failed scenario left running would keep this process alive.
  if (status !== 0) process.exit(status);
}
