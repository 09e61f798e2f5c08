import type { HostCheck } from "../host-pci/check.ts";
import { FunctionFacts } from "../host-pci/functions.ts";
import type { HostDemands } from "../vmm/control/host-checks.ts";
import { MEMORY } from "../vmm/spec/machine-parts.ts";
import { completeMemory } from "../vmm/spec/spec-check.ts";
import { inOptions, readMemory } from "./options/parse.ts";
import { optionRow } from "./options/part-options.ts";
import { formatSize, wrapText } from "./output.ts";
import { findFunctions, HELP_OPTION, readSubcommand, type SubcommandText } from "./subcommand.ts";
import { processSurroundings, type Surroundings } from "./surroundings.ts";

const TEXT: SubcommandText = {
  name: "doctor",
  usage: "[OPTIONS] [BDF ...]",
  about:
    "tsvmm doctor checks everything that a machine with these PCI functions needs of the host, and tells what to do.",
  examples: [
    { text: "Would a machine with this function and 4 GiB start", lines: ["tsvmm doctor 0000:01:00.0 --memory 4G"] },
    { text: "What does the host lack for passthrough", lines: ["tsvmm doctor"] },
  ],
  options: [
    { ...optionRow(MEMORY), group: "Options", help: "guest RAM, as for run; default: 512M" },
    { name: "--json", group: "Options", form: { kind: "flag" }, help: "print JSON, for programs" },
    HELP_OPTION,
  ],
  notes: [
    "Exit status: 0 only if such a machine would start, 1 otherwise. Without a function that is a machine without " +
      "passthrough,",
    "and what would stand in the way of that is a warning. A start makes the same checks and ends at the first " +
      "that failed.",
  ].join("\n"),
};

const LABELS: Readonly<Record<HostCheck["state"], string>> = {
  good: "ok",
  warning: "warn",
  unknown: "?",
  failed: "FAIL",
};

/** What is asked of the host; tests answer themselves. */
export type CheckHost = (demands: HostDemands) => readonly HostCheck[];

/**
 * The command `doctor`.
 *
 * @returns The exit status.
 * @throws SpecError
 */
export async function doctor(
  argv: readonly string[],
  surroundings: Surroundings = processSurroundings(),
  check?: CheckHost,
): Promise<number> {
  const request = readSubcommand(argv, TEXT, surroundings);
  if (request === undefined) return 0;
  const facts = new FunctionFacts();
  const functions = findFunctions(request.operands, surroundings, facts);
  const demands = readDemands(request.values.get("--memory")?.[0], functions, facts);
  // Loads the FFI: only now, as a wrong command line should not wait for that.
  const checkHost = check ?? (await import("../vmm/control/host-checks.ts")).checkHost;
  const checks = [...checkHost(demands), terminalCheck(process.stdin.isTTY)];
  const failed = checks.filter(({ state }) => state === "failed").length;
  if (request.values.has("--json")) {
    surroundings.print(`${JSON.stringify({ wouldStart: failed === 0, checks }, undefined, 2)}\n`);
  } else surroundings.print(formatChecks(checks, surroundings) + conclusion(demands, failed, checks.length));
  return failed === 0 ? 0 : 1;
}

function readDemands(
  memory: string | undefined,
  functions: readonly { readonly path: string }[],
  facts: FunctionFacts,
): HostDemands {
  try {
    return { memory: completeMemory(readMemory(memory)), devices: functions.map(({ path }) => path), facts };
  } catch (error) {
    throw inOptions(error);
  }
}

function formatChecks(checks: readonly HostCheck[], { style, columns }: Surroundings): string {
  const topicWidth = Math.max(...checks.map(({ topic }) => topic.length));
  return checks
    .map(({ state, topic, found, why, remedy }) => {
      const label = LABELS[state].padEnd(4);
      const shown = state === "failed" ? style.red(label) : label;
      // A line is measured without its colours.
      const head = `${label}  ${topic.padEnd(Math.min(topicWidth, columns - 40))}  `;
      const indent = " ".repeat(columns - head.length >= 50 ? head.length : 6);
      const text = wrapText(`${found} (${why})`, columns, head, indent);
      const remedyText =
        state === "good" || remedy === undefined ? "" : wrapText(remedy, columns, `${indent}→ `, `${indent}  `);
      return shown + text.slice(label.length) + remedyText;
    })
    .join("");
}

function conclusion({ memory, devices }: HostDemands, failed: number, count: number): string {
  const what =
    devices.length === 0
      ? "without passed-through functions"
      : `with ${devices.map((path) => path.slice(path.lastIndexOf("/") + 1)).join(", ")}`;
  const machine = `\nA machine ${what} and ${formatSize(memory.sizeBytes)} of memory would`;
  return failed === 0 ? `${machine} start\n` : `${machine} not start: ${failed} of ${count} checks failed\n`;
}

/** `--serial tty` and `--console tty` take any standard input; only what becomes of keys differs. */
function terminalCheck(isTerminal: boolean | undefined): HostCheck {
  const found =
    isTerminal === true
      ? "standard input is one: raw while the guest runs, Ctrl-A x quits"
      : "standard input is none: the guest's serial port reads it as it comes";
  return { topic: "terminal", state: "good", found, why: "the guest's console is there by default", action: "use it" };
}
