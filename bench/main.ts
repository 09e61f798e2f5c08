import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { projectRoot } from "../tools/cache.ts";
import { missingPeers } from "./measure/contenders.ts";
import { Interrupted } from "./measure/interleave.ts";
import { killAll } from "./measure/process.ts";
import type { Line, Row } from "./measure/row.ts";
import { describeMachine, formatRow, type Report, type RowReport } from "./report.ts";
import { block, interrupt } from "./rows/block.ts";
import { exits, exitsOneCore } from "./rows/exits.ts";
import { ffi } from "./rows/ffi.ts";
import { flood } from "./rows/flood.ts";
import { growth } from "./rows/growth.ts";
import { idle, memory } from "./rows/idle.ts";
import { boot, linuxIdle, path } from "./rows/lab.ts";
import { snapshot } from "./rows/snapshot.ts";
import { start, startCold } from "./rows/start.ts";

/*
 * `npm run bench`: measures this program beside what a user would pick instead, on this machine, now.
 *
 *   node dist/bench/main.js [row…] [--rounds N] [--json FILE] [--entry FILE] [--long]
 */

const ROWS: readonly Row[] = [
  ...[
    exits,
    exitsOneCore,
    start,
    startCold,
    boot,
    path,
    block,
    interrupt,
    memory,
    idle,
    linuxIdle,
    ffi,
    growth,
    snapshot,
    flood,
  ],
];

const DEFAULT_ROUNDS = 7;

const USAGE = `node dist/bench/main.js [row…] [--rounds N] [--json FILE] [--entry FILE] [--long]
  --rounds N    measurements of each thing; default: ${DEFAULT_ROUNDS}
  --json FILE   writes the result there too
  --entry FILE  the program to measure; default: dist/bundle/main.js
  --long        idles for a minute instead of seconds, starts QEMU's q35 too, floods for an hour
rows: ${ROWS.map(({ name }) => name).join(", ")}
`;

/** What the command line asks for. */
interface Request {
  readonly rows: readonly Row[];
  readonly rounds: number;
  readonly json: string | undefined;
  readonly entry: string;
  readonly isLong: boolean;
}

/** Reads the command line. @throws Error in one line */
function parse(argv: readonly string[]): Request | "help" {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      rounds: { type: "string", default: String(DEFAULT_ROUNDS) },
      json: { type: "string" },
      entry: { type: "string", default: join(projectRoot(), "dist", "bundle", "main.js") },
      long: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return "help";
  const unknown = positionals.find((name) => !ROWS.some((row) => row.name === name));
  if (unknown !== undefined)
    throw new Error(`there is no row '${unknown}': the rows are ${ROWS.map(({ name }) => name).join(", ")}`);
  if (!/^[1-9]\d*$/.test(values.rounds)) throw new Error(`--rounds: '${values.rounds}' is not a positive number`);
  if (!existsSync(values.entry))
    throw new Error(`--entry: there is no ${values.entry}; npm run build makes the bundle`);
  if (values.json !== undefined) writeFileSync(values.json, ""); // better now than after an hour
  return {
    rows: positionals.length === 0 ? ROWS : ROWS.filter(({ name }) => positionals.includes(name)),
    rounds: Number(values.rounds),
    json: values.json,
    entry: values.entry,
    isLong: values.long,
  };
}

async function main(argv: readonly string[]): Promise<number> {
  let request: Request | "help";
  try {
    request = parse(argv);
  } catch (error) {
    const [line = ""] = (error instanceof Error ? error.message : String(error)).split(". ");
    process.stderr.write(`bench: ${line}\n`);
    return 2;
  }
  if (request === "help") {
    process.stdout.write(USAGE);
    return 0;
  }
  return await measure(request);
}

async function measure(request: Request): Promise<number> {
  const { rounds, entry, isLong, json } = request;
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-bench-"));
  const rows: RowReport[] = [];
  const interruption = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      interruption.abort(); // first: who waits for a process that ends now should know why
      killAll();
    });
  }
  const machine = describeMachine();
  const described = Object.entries(machine).map(([name, value]) => `${name} ${value}`);
  process.stdout.write(`${described.join(", ")}; ${rounds} rounds\n`);
  for (const text of missingPeers()) process.stdout.write(`missing: ${text}\n`);
  process.stdout.write("\n");
  let status = 0;
  for (const row of request.rows) {
    if (interruption.signal.aborted) break;
    const lines: Line[] = [];
    let problem = row.missing();
    try {
      if (problem === undefined) {
        await row.run({
          ...{ rounds, entry, folder, isLong, signal: interruption.signal },
          add: (line) => void lines.push(line),
          progress: (text) => progress(`${row.name}: ${text}`),
        });
        if (interruption.signal.aborted) problem = "interrupted; the lines are of the rounds before that";
      }
    } catch (error) {
      if (!(error instanceof Interrupted)) status = 1;
      problem = error instanceof Error ? error.message : String(error);
    }
    const own = row.own === undefined ? {} : { own: row.own };
    show({ name: row.name, ...own, meaning: row.meaning, lines, ...(problem === undefined ? {} : { problem }) }, rows);
  }
  const report: Report = { machine, rounds, rows };
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(report, undefined, 2)}\n`);
  rmSync(folder, { recursive: true, force: true });
  return interruption.signal.aborted ? 130 : status;
}

function show(row: RowReport, rows: RowReport[]): void {
  rows.push(row);
  progress("");
  process.stdout.write(`${formatRow(row)}\n`);
}

/** One line that is overwritten; nothing where standard error is no terminal. */
function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

process.exitCode = await main(process.argv.slice(2));
