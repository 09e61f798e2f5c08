import type { DemoResult } from "./demo-result.ts";

/** Something that must be so at the demo's end. */
export interface Check {
  readonly text: string;
  readonly isTrue: boolean;
}

/**
 * Tells what the demo has shown, for a reader who sees it for the first time.
 *
 * @param host What the VMM ran on.
 */
export function demoReport(result: DemoResult, checks: readonly Check[], host: string): string {
  const rows: readonly (readonly [string, readonly string[]])[] = [
    ["command", [result.commandLine]],
    ["host", [host]],
    [
      "guest",
      [
        `${result.cpus} CPUs, shell after ${result.bootSeconds.toFixed(1)} s, all together ${result.totalSeconds.toFixed(1)} s`,
      ],
    ],
    ["PCI in guest", result.functions],
    ["driver", [result.driver === "" ? "none in the guest's kernel" : `${result.driver}, the guest's own`]],
    ["interrupts", result.interrupts.map((line) => line.trim().replaceAll(/ +/g, " "))],
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
