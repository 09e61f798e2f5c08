import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { projectRoot } from "../guest-images/cache.ts";
import { missingPeers } from "./contenders.ts";
import { killAll } from "./process.ts";
import { describeMachine, formatRow, type Report, type RowReport } from "./report.ts";
import type { Line, Row } from "./row.ts";
import { block, interrupt } from "./rows/block.ts";
import { exits, exitsOneCore } from "./rows/exits.ts";
import { ffi } from "./rows/ffi.ts";
import { growth } from "./rows/growth.ts";
import { idle, memory } from "./rows/idle.ts";
import { start, startCold } from "./rows/start.ts";

/*
 * `npm run bench`: measures this program beside what a user would pick instead, on this machine, now.
 *
 *   node dist/bench/main.js [row…] [--rounds N] [--json FILE] [--entry FILE] [--long]
 */

const ROWS: readonly Row[] = [exits, exitsOneCore, start, startCold, block, interrupt, memory, idle, ffi, growth];

const DEFAULT_ROUNDS = 7;

const USAGE = `node dist/bench/main.js [row…] [--rounds N] [--json FILE] [--entry FILE] [--long]
  --rounds N    measurements of each thing, ${DEFAULT_ROUNDS} unless told
  --json FILE   writes the result there too
  --entry FILE  the program to measure, dist/bundle/main.js unless told
  --long        idles for a minute instead of seconds
rows: ${ROWS.map(({ name }) => name).join(", ")}
`;

async function main(argv: readonly string[]): Promise<number> {
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
  const rounds = Number(values.rounds);
  const unknown = positionals.filter((name) => !ROWS.some((row) => row.name === name));
  if (values.help || unknown.length > 0 || !Number.isInteger(rounds) || rounds < 1) {
    if (unknown.length > 0) process.stderr.write(`bench: there is no row ${unknown.join(", ")}\n`);
    process[values.help ? "stdout" : "stderr"].write(USAGE);
    return values.help ? 0 : 2;
  }

  const folder = mkdtempSync(join(tmpdir(), "tsvmm-bench-"));
  const machine = describeMachine();
  const rows: RowReport[] = [];
  const finish = (): void => {
    const report: Report = { machine, rounds, rows };
    if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`);
    rmSync(folder, { recursive: true, force: true });
  };
  let current: { row: Row; lines: Line[] } | undefined;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      killAll();
      if (current !== undefined) show({ ...reported(current), problem: "interrupted" }, rows);
      finish();
      process.exit(130);
    });
  }

  process.stdout.write(
    `${Object.entries(machine)
      .map(([name, value]) => `${name} ${value}`)
      .join(", ")}; ${rounds} rounds\n`,
  );
  for (const text of missingPeers()) process.stdout.write(`missing: ${text}\n`);
  process.stdout.write("\n");
  let status = 0;
  for (const row of positionals.length === 0 ? ROWS : ROWS.filter(({ name }) => positionals.includes(name))) {
    const problem = row.missing();
    if (problem !== undefined) {
      show({ name: row.name, meaning: row.meaning, lines: [], problem }, rows);
      continue;
    }
    current = { row, lines: [] };
    const { lines } = current;
    try {
      await row.run({
        ...{ rounds, entry: values.entry, folder, isLong: values.long },
        add: (line) => void lines.push(line),
        progress: (text) => progress(`${row.name}: ${text}`),
      });
      show(reported(current), rows);
    } catch (error) {
      status = 1;
      show({ ...reported(current), problem: error instanceof Error ? error.message : String(error) }, rows);
    }
    current = undefined;
  }
  finish();
  return status;
}

const reported = ({ row, lines }: { readonly row: Row; readonly lines: readonly Line[] }): RowReport => ({
  name: row.name,
  meaning: row.meaning,
  lines,
});

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
