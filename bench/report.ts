import { execFileSync } from "node:child_process";
import { cpus, release } from "node:os";
import { qemuVersion } from "./measure/contenders.ts";
import type { Line, Unit } from "./measure/row.ts";
import type { Summary } from "./measure/samples.ts";

/** The whole result, as it is written to a file. */
export interface Report {
  /** What the numbers were taken on. */
  readonly machine: Readonly<Record<string, string | number>>;
  readonly rounds: number;
  readonly rows: readonly RowReport[];
}

export interface RowReport {
  readonly name: string;
  /** What the values are of, where it is not this program. */
  readonly own?: string;
  readonly meaning: string;
  readonly lines: readonly Line[];
  /** Why there are no lines, or not all. */
  readonly problem?: string;
}

/** What a reader has to know of the machine. */
export function describeMachine(): Readonly<Record<string, string | number>> {
  const [first] = cpus();
  const qemu = qemuVersion();
  return {
    cpu: first?.model.trim() ?? "unknown",
    cores: cpus().length,
    kernel: release(),
    node: process.version,
    ...(qemu === undefined ? {} : { qemu }),
    // Timings mean little on a busy machine; a reader should see that.
    load: execFileSync("cat", ["/proc/loadavg"], { encoding: "utf8" }).split(" ")[0] ?? "unknown",
  };
}

/** Three digits, or all of a large number. */
function formatNumber(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}

const withUnit = (value: Summary, unit: Unit): string => `${formatNumber(value.median)} ${unit}`;

const spread = ({ low, high }: Summary): string => `${formatNumber(low)}–${formatNumber(high)}`;

/** A Markdown table of a row's lines. */
export function formatRow(row: RowReport): string {
  const text = [`### ${row.name}`, "", row.meaning, ""];
  if (row.problem !== undefined)
    text.push(`Not measured${row.lines.length > 0 ? " any further" : ""}: ${row.problem}`, "");
  if (row.lines.length > 0) {
    text.push(
      `| what | ${row.own ?? "tsvmm"} | quartiles | beside | ratio | quartiles | aim |`,
      "| --- | --- | --- | --- | --- | --- | --- |",
    );
    for (const line of row.lines) text.push(...formatLine(line));
    text.push("");
  }
  return text.join("\n");
}

function formatLine({ what, unit, value, beside, aim }: Line): string[] {
  const verdict = aim?.isReached === undefined ? "" : aim.isReached ? ": yes" : ": **no**";
  const wanted = aim === undefined ? "" : `${aim.text}${verdict}`;
  const own = [what, withUnit(value, unit), spread(value)];
  if (beside.length === 0) return [cells([...own, "", "", "", wanted])];
  return beside.map((peer, index) =>
    cells([
      ...(index === 0 ? own : ["", "", ""]),
      `${peer.name}: ${withUnit(peer.value, unit)}`,
      // What lies on both sides of zero has no ratio.
      ...(peer.ratio.low >= 0 ? [formatNumber(peer.ratio.median), spread(peer.ratio)] : ["", ""]),
      index === 0 ? wanted : "",
    ]),
  );
}

const cells = (texts: readonly string[]): string => `| ${texts.join(" | ")} |`;

/** All of it. */
export function formatReport(report: Report): string {
  const machine = Object.entries(report.machine).map(([name, value]) => `${name} ${value}`);
  return [`${machine.join(", ")}; ${report.rounds} rounds`, "", ...report.rows.map(formatRow)].join("\n");
}
