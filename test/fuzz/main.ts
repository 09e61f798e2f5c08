import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { formatOperations, parseOperations } from "./operations.ts";
import { type FuzzProgress, fuzz, runOperations } from "./run.ts";

/*
 * The long fuzz run: `node dist/test/fuzz/main.js [--minutes N] [--seed S]`, or `--replay FILE` for a guest that failed. It ends with
 * status 0 when nothing was found, with 1 after printing the failing guest, with 2 for arguments it does not know.
 */

const USAGE = "usage: fuzz [--minutes N] [--seed S] | --replay FILE";
const REPORT_INTERVAL_MS = 10_000;

function main(): number {
  const { minutes, seed, replay } = parseArgs({
    options: { minutes: { type: "string" }, seed: { type: "string" }, replay: { type: "string" } },
  }).values;
  if (replay !== undefined) return replayFile(replay);
  const limitMinutes = Number(minutes ?? "1");
  const firstSeed = seed === undefined ? Date.now() >>> 0 : Number(seed);
  if (!(limitMinutes > 0) || !Number.isSafeInteger(firstSeed) || firstSeed < 0) throw new TypeError("no such number");

  console.log(`seed ${firstSeed}, ${limitMinutes} min`);
  const started = performance.now();
  let nextReport = REPORT_INTERVAL_MS;
  const { failure, progress } = fuzz({
    seed: firstSeed,
    goesOn: (soFar) => {
      const elapsed = performance.now() - started;
      if (elapsed >= nextReport) {
        nextReport += REPORT_INTERVAL_MS;
        console.log(describe(soFar, elapsed));
      }
      return elapsed < limitMinutes * 60_000;
    },
  });
  console.log(describe(progress, performance.now() - started));
  if (failure === undefined) {
    console.log(`nothing found with seed ${firstSeed}`);
    return 0;
  }
  const file = `fuzz-${failure.seed}.txt`;
  writeFileSync(file, formatOperations(failure.operations));
  console.log(`\nseed ${firstSeed}, episode seed ${failure.seed}: ${failure.text}`);
  console.log(`${failure.operations.length} operations, also in ${file} for --replay:`);
  console.log(formatOperations(failure.operations));
  return 1;
}

function replayFile(file: string): number {
  const operations = parseOperations(readFileSync(file, "utf8"));
  const text = runOperations(operations);
  console.log(`${operations.length} operations: ${text ?? "nothing found"}`);
  return text === undefined ? 0 : 1;
}

function describe({ episodes, accesses, signals }: FuzzProgress, elapsedMs: number): string {
  const { config, bar, absolute, ram } = accesses;
  const total = config + bar + absolute + ram;
  const rate = Math.round(total / (elapsedMs / 1000));
  const kinds = `${config} config, ${bar} BAR, ${absolute} other addresses, ${ram} queue memory`;
  return `${Math.round(elapsedMs / 1000)} s: ${total} accesses (${kinds}), ${signals} signals, ${episodes} machines, ${rate}/s`;
}

try {
  process.exitCode = main();
} catch (error) {
  if (!(error instanceof TypeError)) throw error;
  console.error(`fuzz: ${error.message}\n${USAGE}`);
  process.exitCode = 2;
}
