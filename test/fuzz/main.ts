import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { type FuzzProgress, fuzz } from "./engine/run.ts";
import type { Target } from "./engine/target.ts";
import { TARGETS } from "./targets.ts";

/*
 * The long fuzz runs: `node dist/test/fuzz/main.js --help`. It ends with status 0 when nothing was found, with 1 after
 * printing what failed, with 2 for arguments it does not know.
 */

const REPORT_INTERVAL_MS = 10_000;
const DEFAULT_SECONDS = 60;

const targets = new Map(TARGETS.map((make) => [make().name, make]));

const USAGE = `Random input against models of what must hold.

Usage: npm run fuzz -- [--target NAME] [--seed N] [--operations N | --seconds N | --minutes N]
       npm run fuzz -- --target NAME --replay FILE

  --target NAME    what to fuzz, or all, one after another; default: accesses
  --seed N         the same seed brings the same operations; default: from the clock
  --operations N   end after so many of them
  --seconds N      end after so long; default: ${DEFAULT_SECONDS}
  --replay FILE    run the operations of a failure again

Targets:
${[...targets].map(([name, make]) => `  ${name.padEnd(18)} ${make().about}\n`).join("")}`;

/** When a run ends, whichever comes first. */
interface Limits {
  readonly operations: number;
  readonly seconds: number;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      ...{ target: { type: "string" }, seed: { type: "string" }, replay: { type: "string" } },
      ...{ operations: { type: "string" }, seconds: { type: "string" }, minutes: { type: "string" } },
      help: { type: "boolean" },
    },
  });
  if (values.help === true) {
    process.stdout.write(USAGE);
    return 0;
  }
  const chosen = pick(values.target ?? "accesses");
  if (values.replay !== undefined) return replay(chosen, values.replay);
  const seed = positive("--seed", values.seed ?? String(Date.now() >>> 0), 0);
  const operations = values.operations === undefined ? undefined : positive("--operations", values.operations, 1);
  const minutes = values.minutes === undefined ? undefined : 60 * positive("--minutes", values.minutes, 1);
  const seconds = values.seconds === undefined ? minutes : positive("--seconds", values.seconds, 1);
  const limits = {
    operations: operations ?? Number.POSITIVE_INFINITY,
    seconds: seconds ?? (operations === undefined ? DEFAULT_SECONDS : Number.POSITIVE_INFINITY),
  };
  let status = 0;
  for (const make of chosen) {
    const target = make();
    try {
      status = Math.max(status, await runOne(target, seed, limits));
    } finally {
      target.close();
    }
  }
  return status;
}

function pick(name: string): readonly (() => Target)[] {
  const make = targets.get(name);
  if (name !== "all" && make === undefined)
    throw new TypeError(`--target: '${name}' is none of all, ${[...targets.keys()].join(", ")}`);
  return make === undefined ? TARGETS : [make];
}

function positive(option: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least)
    throw new TypeError(`${option}: '${text}' is not a whole number from ${least} on`);
  return value;
}

async function runOne(target: Target, seed: number, { operations, seconds }: Limits): Promise<number> {
  const { name, unit } = target;
  console.log(`${name}: seed ${seed}`);
  for (const text of target.leftOut()) console.log(`${name}: left out: ${text}`);
  const started = performance.now();
  const elapsed = (): number => (performance.now() - started) / 1000;
  let nextReport = REPORT_INTERVAL_MS / 1000;
  const { failure, progress } = await fuzz(target, {
    seed,
    goesOn: (soFar) => {
      if (elapsed() >= nextReport) {
        nextReport += REPORT_INTERVAL_MS / 1000;
        console.log(`${name}: ${describe(soFar, unit)}, ${Math.round(soFar.operations / elapsed())}/s`);
      }
      return elapsed() < seconds && soFar.operations < operations;
    },
  });
  const repeat = `npm run fuzz -- --target ${name} --seed ${seed} --operations ${Math.max(1, progress.operations)}`;
  const done = `${describe(progress, unit)}, ${Math.round(elapsed())} s`;
  if (failure === undefined) {
    console.log(`${name}: nothing found in ${done}; again: ${repeat}`);
    return 0;
  }
  const file = `fuzz-${name}-${failure.seed}.txt`;
  writeFileSync(file, failure.listing);
  console.log(`${failure.listing}${failure.text}`);
  const [first] = failure.text.split("\n");
  const again = `npm run fuzz -- --target ${name} --replay ${file}`;
  console.log(`${name}: found with seed ${seed} after ${done}: ${first}; again: ${again}`);
  return 1;
}

async function replay(chosen: readonly (() => Target)[], file: string): Promise<number> {
  const [make, ...others] = chosen;
  if (make === undefined || others.length > 0) throw new TypeError("--replay: one --target is needed");
  const target = make();
  const text = await target.replay(readFileSync(file, "utf8"));
  target.close();
  console.log(`${target.name}: ${text ?? "nothing found"}`);
  return text === undefined ? 0 : 1;
}

function describe({ episodes, operations, counts }: FuzzProgress, unit: string): string {
  const kinds = [...counts].map(([kind, count]) => `${count} ${kind}`).join(", ");
  return `${operations} ${unit} (${kinds}), ${episodes} runs`;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof TypeError)) throw error;
  console.error(`fuzz: ${error.message.split("\n")[0]}; --help shows how`);
  process.exitCode = 2;
}
