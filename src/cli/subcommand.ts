import { join } from "node:path";
import { SpecError } from "../base/errors.ts";
import { FunctionFacts, type HostFunction } from "../host-pci/functions.ts";
import { resolvePciFunction } from "../vmm/spec/fields/spec-paths.ts";
import { type Example, formatOptions } from "./help.ts";
import { type ArgumentValues, readArguments } from "./options/arguments.ts";
import type { OptionRow } from "./options/option-table.ts";
import type { Style } from "./output.ts";
import type { Surroundings } from "./surroundings.ts";

/** What a subcommand's help and grammar are made of. */
export interface SubcommandText {
  readonly name: string;
  /** What follows the name: "[OPTIONS] BDF ...". */
  readonly usage: string;
  /** A sentence or two. */
  readonly about: string;
  readonly examples: readonly Example[];
  readonly options: readonly OptionRow[];
  readonly notes: string;
}

export const HELP_OPTION: OptionRow = {
  name: "--help",
  short: "-h",
  group: "Options",
  form: { kind: "flag" },
  help: "print this text",
};

/** A subcommand's command line, split; `undefined` when the help was asked for, which is printed then. */
export function readSubcommand(
  argv: readonly string[],
  text: SubcommandText,
  surroundings: Surroundings,
): { readonly values: ArgumentValues; readonly operands: readonly string[] } | undefined {
  if (argv.includes("--help") || argv.includes("-h")) {
    surroundings.print(subcommandHelp(text, surroundings.style));
    return undefined;
  }
  const operands: string[] = [];
  const values = readArguments(argv, text.options, { operands, help: `tsvmm ${text.name} --help` });
  return { values, operands };
}

function subcommandHelp(text: SubcommandText, style: Style): string {
  const examples = text.examples.map((one) => `  ${one.text}:\n${one.lines.map((line) => `    ${line}\n`).join("")}`);
  return [
    `${text.about}\n\n`,
    `${style.bold("Examples:")}\n${examples.join("\n")}\n`,
    `${style.bold("Usage:")}\n  tsvmm ${text.name} ${text.usage}\n\n`,
    `${formatOptions(text.options, style)}\n`,
    `${text.notes}\n`,
  ].join("");
}

/**
 * Finds the functions that a command line names, by address or sysfs directory.
 *
 * @param facts Keeps what was read.
 * @throws SpecError for what is no PCI function of this host, or is named twice.
 */
export function findFunctions(
  words: readonly string[],
  { root }: Surroundings,
  facts: FunctionFacts = new FunctionFacts(),
): readonly HostFunction[] {
  const found: HostFunction[] = [];
  for (const word of words) {
    const path = resolvePciFunction("", word, join(root.sys, "bus/pci/devices"));
    const pciFunction = facts.at(path);
    if (pciFunction === undefined) throw new SpecError("TSVMM_NOT_PCI_FUNCTION", "", `${word} is not a PCI function`);
    if (found.some(({ bdf }) => bdf === pciFunction.bdf)) {
      throw new SpecError("TSVMM_VALUE_TWICE", "", `${pciFunction.bdf} is given twice`);
    }
    found.push(pciFunction);
  }
  return found;
}
