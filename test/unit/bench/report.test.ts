import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import type { Line } from "../../../bench/measure/row.ts";
import { formatReport, formatRow } from "../../../bench/report.ts";
import { projectRoot } from "../../../tools/cache.ts";

const same = (value: number): Line["value"] => ({ median: value, low: value, high: value, count: 1 });
const LINE: Line = {
  what: "a start",
  unit: "ms",
  value: { median: 93.44, low: 90, high: 1234.5, count: 7 },
  beside: [
    { name: "QEMU", value: same(65), ratio: same(1.4376) },
    { name: "node", value: same(0.5), ratio: same(0) },
  ],
  aim: { text: "at par", isReached: false },
};
const ROW = { name: "start", meaning: "From exec on.", lines: [LINE] };

t.test("formatRow() has a line for each peer, three digits, and whether the aim is reached", async (t) => {
  t.same(formatRow(ROW).split("\n").slice(4), [
    "| what | tsvmm | quartiles | beside | ratio | quartiles | aim |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    "| a start | 93.4 ms | 90–1,235 | QEMU: 65 ms | 1.44 | 1.44–1.44 | at par: **no** |",
    "|  |  |  | node: 0.5 ms | 0 | 0–0 |  |",
    "",
  ]);
});

t.test("formatRow() says whose values they are, and why there are none or not all", async (t) => {
  t.match(formatRow({ ...ROW, own: "koffi" }), /\| what \| koffi \|/);
  t.match(formatRow({ ...ROW, lines: [], problem: "no /dev/kvm" }), /^Not measured: no \/dev\/kvm$/m);
  t.match(formatRow({ ...ROW, problem: "interrupted" }), /^Not measured any further: interrupted$/m);
  const around = { median: -2, low: -211, high: 3, count: 3 };
  const odd = { ...LINE, beside: [{ name: "QEMU", value: same(-3), ratio: around }] };
  t.match(
    formatRow({ ...ROW, lines: [odd] }),
    /QEMU: -3 ms \| {2}\| {2}\| at par/,
    "no ratio to what lies around zero",
  );
  const bare = formatRow({ ...ROW, lines: [{ what: "x", unit: "ns", value: same(7), beside: [] }] });
  t.match(bare, /\| x \| 7 ns \| 7–7 \| {2}\| {2}\| {2}\| {2}\|/);
});

t.test("formatReport() starts with the machine", async (t) => {
  const text = formatReport({ machine: { cpu: "a 486", cores: 1 }, rounds: 3, rows: [ROW] });
  t.equal(text.split("\n")[0], "cpu a 486, cores 1; 3 rounds");
});

t.test("bench answers bad arguments with one line and status 2", async (t) => {
  const bench = (...argv: string[]): { readonly status: number | null; readonly errors: string } => {
    const done = spawnSync(process.execPath, [join(projectRoot(), "dist", "bench", "main.js"), ...argv]);
    return { status: done.status, errors: done.stderr.toString() };
  };
  for (const [argv, text] of [
    [["--fast"], /Unknown option '--fast'/],
    [["strat"], /there is no row 'strat': the rows are .*start/],
    [["--rounds", "0"], /--rounds: '0' is not a positive number/],
    [["--rounds"], /rounds/],
    [["--entry", "/nowhere.js"], /there is no \/nowhere.js/],
    [["--json", "/nowhere/x.json"], /nowhere/],
  ] as const) {
    const { status, errors } = bench(...argv);
    t.equal(status, 2, argv.join(" "));
    t.match(errors, text);
    t.equal(errors.trimEnd().split("\n").length, 1, errors);
  }
  t.notOk(existsSync("/nowhere"));
});
