import { SpecError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { describeGroup, type HostFunction, isVfioFunction, listFunctions } from "../host-pci/functions.ts";
import { DeviceUsage } from "../host-pci/usage.ts";
import { judge, type Verdict } from "../host-pci/verdict.ts";
import type { DeviceRecording } from "../passthrough/recording.ts";
import { checkOutputFile } from "./options/output-file.ts";
import { formatSize, wrapText } from "./output.ts";
import { findFunctions, HELP_OPTION, readSubcommand, type SubcommandText } from "./subcommand.ts";
import { processSurroundings, type Surroundings } from "./surroundings.ts";
import { writeFile } from "./write-file.ts";

const TEXT: SubcommandText = {
  name: "devices",
  usage: "[--json] [BDF ...]\n  tsvmm devices --record BDF FILE",
  about: "tsvmm devices lists the host's PCI functions, and says of each whether it can be passed through.",
  examples: [
    { text: "See what there is", lines: ["tsvmm devices"] },
    {
      text: "Addresses of all functions that are ready",
      lines: [`tsvmm devices --json | jq -r '.[] | select(.verdict.state == "ready") | .address'`],
    },
    {
      text: "Describe a function so that tests can replay it",
      lines: ["tsvmm devices --record 0000:01:00.0 nvme.json"],
    },
  ],
  options: [
    { name: "--json", group: "Options", form: { kind: "flag" }, help: "print JSON, for programs" },
    {
      name: "--record",
      group: "Options",
      form: { kind: "value", value: "BDF" },
      help:
        "write a description of one function to FILE (- for standard output): configuration space, regions, " +
        "interrupts",
    },
    HELP_OPTION,
  ],
  notes: [
    "The verdict is one of: ready; needs bind, which tsvmm bind does; blocked by what the host uses the function " +
      "for, or by",
    "what cannot be changed. tsvmm doctor BDF goes into everything else that a start needs.",
    "A function that is bound to vfio-pci is opened for --record, which resets it; others are described from sysfs.",
  ].join("\n"),
};

/** A function as `--json` shows it. */
export interface DeviceReport {
  readonly address: string;
  readonly vendorId: number;
  readonly deviceId: number;
  /** 24 bits. */
  readonly classCode: number;
  /** Names of the `pci.ids` database; `null` where it has none. */
  readonly vendor: string | null;
  readonly device: string | null;
  readonly class: string | null;
  readonly driver: string | null;
  readonly group: {
    readonly number: number;
    /** All of them, this function too. */
    readonly members: readonly { readonly address: string; readonly driver: string | null }[];
  } | null;
  readonly resetMethods: readonly string[];
  /** -1 when the platform does not tell. */
  readonly numaNode: number;
  /** Index 6 is the expansion ROM. */
  readonly bars: readonly { readonly index: number; readonly kind: "memory" | "io"; readonly sizeBytes: number }[];
  readonly verdict: Verdict;
}

/**
 * The command `devices`.
 *
 * @returns The exit status.
 * @throws SpecError, HostError
 */
export async function devices(
  argv: readonly string[],
  surroundings: Surroundings = processSurroundings(),
): Promise<number> {
  const request = readSubcommand(argv, TEXT, surroundings);
  if (request === undefined) return 0;
  const { values, operands } = request;
  const recorded = values.get("--record")?.[0];
  if (recorded !== undefined) {
    if (values.has("--json")) throw new SpecError("TSVMM_VALUE_CONFLICT", "--json", "a recording is JSON in any case");
    await record(recorded, operands, surroundings);
    return 0;
  }
  const found = operands.length > 0 ? findFunctions(operands, surroundings) : listFunctions(surroundings.root.sys);
  const reports = describeFunctions(found, surroundings);
  if (values.has("--json")) surroundings.print(`${JSON.stringify(reports, undefined, 2)}\n`);
  else if (reports.length === 0) surroundings.remark("this host has no PCI functions\n");
  else surroundings.print(formatReports(reports, surroundings));
  return 0;
}

function describeFunctions(found: readonly HostFunction[], surroundings: Surroundings): readonly DeviceReport[] {
  const names = surroundings.names();
  const usage = new DeviceUsage(surroundings.root);
  return found.map((one) => {
    const members = describeGroup(one)?.members ?? [];
    return {
      address: one.bdf,
      vendorId: one.vendorId,
      deviceId: one.deviceId,
      classCode: one.classCode,
      vendor: names.vendor(one.vendorId) ?? null,
      device: names.device(one.vendorId, one.deviceId) ?? null,
      class: names.class(one.classCode) ?? null,
      driver: one.driver ?? null,
      group:
        one.group === undefined
          ? null
          : {
              number: one.group,
              members: members.map(({ bdf, driver }) => ({ address: bdf, driver: driver ?? null })),
            },
      resetMethods: one.resetMethods,
      numaNode: one.numaNode,
      bars: one.resources.map(({ index, kind, sizeBytes }) => ({ index, kind, sizeBytes })),
      verdict: judge(one, usage),
    };
  });
}

/** Three lines or so for each function: what decides, what it is, what it has. */
function formatReports(reports: readonly DeviceReport[], { style, columns }: Surroundings): string {
  const widest = (texts: readonly string[]): number => Math.max(...texts.map((text) => text.length));
  const groupOf = ({ group }: DeviceReport): string => (group === null ? "-" : String(group.number));
  const driverOf = ({ driver }: DeviceReport): string => driver ?? "-";
  const widths = {
    address: widest(["ADDRESS", ...reports.map(({ address }) => address)]),
    driver: Math.min(20, widest(["DRIVER", ...reports.map(driverOf)])),
    group: widest(["GROUP", ...reports.map(groupOf)]),
  };
  const line = (address: string, driver: string, group: string, verdict: string): string => {
    const head =
      `${address.padEnd(widths.address)}  ${driver.padEnd(widths.driver)}  ` + `${group.padStart(widths.group)}  `;
    // On a narrow terminal a long verdict goes below, where it has room.
    const room = columns - head.length;
    if (verdict.length <= room || room >= 40) return wrapText(verdict, columns, head, " ".repeat(head.length));
    return `${head.trimEnd()}\n${wrapText(verdict, columns, "    ", "    ")}`;
  };
  const parts = reports.map((report) => {
    const first = line(report.address, driverOf(report), groupOf(report), verdictText(report.verdict));
    const details = [nameText(report), detailText(report)].map((text) => wrapText(text, columns, "    ", "      "));
    return `${style.bold(first.trimEnd())}\n${details.join("")}`;
  });
  return line("ADDRESS", "DRIVER", "GROUP", "VERDICT") + parts.join("");
}

function verdictText(verdict: Verdict): string {
  switch (verdict.state) {
    case "ready":
      return "ready";
    case "needs bind":
      return verdict.bind.length === 1 ? "needs bind" : `needs bind, of ${verdict.bind.join(", ")}`;
    case "blocked":
      return `blocked: ${verdict.reason}`;
    default:
      return verdict satisfies never;
  }
}

function nameText(report: DeviceReport): string {
  const digits = (value: number, count: number): string => value.toString(16).padStart(count, "0");
  const kind = report.class ?? `class ${digits(report.classCode, 6)}`;
  const name = [report.vendor, report.device].filter((part) => part !== null).join(" ");
  return `${kind}: ${name === "" ? "" : `${name} `}[${digits(report.vendorId, 4)}:${digits(report.deviceId, 4)}]`;
}

function detailText({ bars, resetMethods, numaNode, group, address }: DeviceReport): string {
  const sizes = bars.map(({ index, kind, sizeBytes }) => {
    const name = index === 6 ? "ROM" : `BAR ${index}`;
    return `${name} ${kind === "io" ? "ports " : ""}${formatSize(sizeBytes)}`;
  });
  const others = group?.members.filter((member) => member.address !== address) ?? [];
  const members = others.map((member) => `${member.address} (${member.driver ?? "no driver"})`);
  return [
    sizes.join(", ") || "no BARs",
    `reset ${resetMethods.join(", ") || "-"}`,
    numaNode < 0 ? "NUMA node -" : `NUMA node ${numaNode}`,
    ...(group === null ? [] : [members.length === 0 ? "alone in its group" : `group with ${members.join(", ")}`]),
  ].join("; ");
}

async function record(word: string, operands: readonly string[], surroundings: Surroundings): Promise<void> {
  const [file, ...rest] = operands;
  if (file === undefined)
    throw new SpecError("TSVMM_VALUE_MISSING", "--record", "needs a file behind the address: --record BDF FILE");
  if (rest.length > 0)
    throw new SpecError("TSVMM_UNKNOWN_OPTION", "--record", `takes one address and one file: '${rest[0]}' is too many`);
  const [pciFunction] = findFunctions([word], surroundings);
  if (pciFunction === undefined) return;
  // Before the function is opened, which resets it.
  if (file === "") throw new SpecError("TSVMM_VALUE_MISSING", "--record", "a file is needed, or - for standard output");
  if (file !== "-") checkOutputFile("--record", file);
  const { formatRecording } = await import("../passthrough/recording.ts");
  const recording = await recordFunction(pciFunction, surroundings);
  if (file === "-") return surroundings.print(formatRecording(recording));
  await writeFile("the recording", file, formatRecording(recording));
  surroundings.remark(`${pciFunction.bdf} is recorded in ${printable(file)}\n`);
}

async function recordFunction(pciFunction: HostFunction, surroundings: Surroundings): Promise<DeviceRecording> {
  const { recordFromSysfs, recordThroughVfio } = await import("./record-device.ts");
  if (isVfioFunction(pciFunction)) {
    const { libc } = await import("../host/libc.ts");
    return recordThroughVfio(libc, pciFunction, (_level, text) => surroundings.remark(`tsvmm: ${text}\n`));
  }
  const driver = pciFunction.driver ?? "no driver";
  surroundings.remark(
    `tsvmm: ${pciFunction.bdf} belongs to ${driver}, not vfio-pci: recorded from sysfs; what may be mapped and ` +
      "the interrupts are guessed\n",
  );
  return recordFromSysfs(pciFunction);
}
