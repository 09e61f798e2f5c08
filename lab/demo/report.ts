import { hex, KIB, MIB } from "../../src/base/units.ts";
import type { PlanBar } from "../../src/vmm/shared/plan.ts";
import type { DemoResult, MachineSummary } from "./result.ts";

/** Something that must be so at the demo's end. */
export interface Check {
  readonly text: string;
  readonly isTrue: boolean;
}

type Row = readonly [title: string, lines: readonly string[]];

/**
 * Tells what the demo has shown, for a reader who sees it for the first time.
 *
 * @param host What the VMM ran on.
 */
export function demoReport(result: DemoResult, checks: readonly Check[], host: string): string {
  const rows: readonly Row[] = [
    ["command", [result.commandLine]],
    ["host", [host]],
    [
      "guest",
      [
        `${result.cpus} CPUs, shell after ${result.bootSeconds.toFixed(1)} s, all together ` +
          `${result.totalSeconds.toFixed(1)} s`,
      ],
    ],
    ["PCI in guest", result.functions],
    ["driver", [result.driver === "" ? "none in the guest's kernel" : `${result.driver}, the guest's own`]],
    ["interrupts", result.interrupts.map((line) => line.trim().replaceAll(/ +/g, " "))],
    ...(result.summary === undefined ? [] : machineRows(result.summary)),
    ["checks", checks.map(({ text, isTrue }) => `${isTrue ? "yes" : "NO "}  ${text}`)],
  ];
  const width = Math.max(...rows.map(([title]) => title.length)) + 2;
  const body = rows.flatMap(([title, lines]) =>
    lines.map((line, index) => `  ${(index === 0 ? title : "").padEnd(width)}${line}`),
  );
  const verdict = checks.every((check) => check.isTrue)
    ? "A PCI device of the host worked in the guest"
    : "Something went wrong";
  return ["", `== ${verdict} ==`, ...body, ""].join("\n");
}

/** What tsvmm itself says of the passed-through functions and of what its guest cost. */
function machineRows({ plan, statistics }: MachineSummary): readonly Row[] {
  const passed = plan.functions.filter((one) => one.title.startsWith("host "));
  const exits = Object.entries(statistics.exits).filter(([, count]) => count > 0);
  const accesses = Object.entries(statistics.accesses).sort(([, a], [, b]) => b - a);
  return [
    ...passed.flatMap((one): readonly Row[] => [
      ["device", [`${one.title}, ${one.bdf} in the guest, ${one.interrupts}`]],
      ["BARs", one.bars.map(barLine)],
    ]),
    ...statistics.functions.map(
      (one): Row => [
        "counters",
        [
          `${one.name}: ${Object.entries(one.counters)
            .map(([name, value]) => `${name} ${value}`)
            .join(", ")}`,
        ],
      ],
    ),
    ["exits to tsvmm", [exits.map(([kind, count]) => `${kind} ${count}`).join(", ")]],
    [
      "accesses to",
      [
        accesses
          .slice(0, 8)
          .map(([name, count]) => `${name} ${count}`)
          .join(", "),
      ],
    ],
  ];
}

function barLine(bar: PlanBar): string {
  const where = bar.address === undefined ? "" : ` at ${hex(bar.address)}`;
  const parts = bar.parts.map(
    (part) => `${size(part.sizeBytes)} ${part.way}${part.reason === undefined ? "" : ` (${part.reason})`}`,
  );
  return `${bar.index === 6 ? "ROM" : bar.index} ${bar.kind} ${size(bar.sizeBytes)}${where}: ${parts.join(", ")}`;
}

const size = (bytes: number): string =>
  bytes >= MIB ? `${bytes / MIB} MiB` : bytes >= KIB ? `${bytes / KIB} KiB` : `${bytes} bytes`;
