import { SpecError } from "../../base/errors.ts";
import type { OptionRow } from "./option-table.ts";
import { didYouMean } from "./suggest.ts";

/** Values by option name. Flags have one empty value for each time they were given. */
export type ArgumentValues = ReadonlyMap<string, readonly string[]>;

const isOption = (argument: string): boolean => /^-./.test(argument);

/** How a command differs from `run`, which takes options only. */
export interface ArgumentRules {
  /** Takes the words that belong to no option, in order; without it there must be none. */
  readonly operands?: string[];
  /** The command that lists the options. */
  readonly help?: string;
  /** What to say of options that are known from elsewhere. */
  readonly foreign?: ReadonlyMap<string, string>;
}

/**
 * Splits a command line into options and their values: `--name value`, `--name=value`, several values after an option
 * that takes a list, and `-vv`.
 *
 * @throws SpecError for what is unknown, given twice, or without a value.
 */
export function readArguments(
  argv: readonly string[],
  options: readonly OptionRow[],
  rules: ArgumentRules = {},
): ArgumentValues {
  const values = new Map<string, string[]>();
  const add = (row: OptionRow, value: string): void => {
    const list = values.get(row.name);
    if (list === undefined) values.set(row.name, [value]);
    else if (row.form.kind === "list" || row.form.kind === "count") list.push(value);
    else throw new SpecError("TSVMM_VALUE_TWICE", row.name, "is given twice");
  };
  for (let index = 0; index < argv.length; index++) {
    const argument = argv[index] ?? "";
    if (!isOption(argument)) {
      if (rules.operands === undefined)
        throw new SpecError("TSVMM_UNKNOWN_OPTION", "", strayText(argument, argv[index - 2]));
      rules.operands.push(argument);
      continue;
    }
    const { name, attached } = splitArgument(argument);
    const row = findOption(name, options);
    if (row === undefined) throw new SpecError("TSVMM_UNKNOWN_OPTION", "", unknownText(name, options, rules));
    const { form } = row;
    if (!("value" in form)) {
      if (attached !== undefined) throw new SpecError("TSVMM_VALUE_INVALID", row.name, "takes no value");
      const times = /^-v+$/.test(argument) ? argument.length - 1 : 1;
      for (let time = 0; time < times; time++) add(row, "");
      continue;
    }
    const next = argv[index + 1];
    // A value may begin with a dash, as a command line's first word does; only what is an option itself is none.
    const isMissing = next === undefined || findOption(splitArgument(next).name, options) !== undefined;
    if (attached === undefined && isMissing)
      throw new SpecError("TSVMM_VALUE_MISSING", row.name, `needs a value: ${row.name} ${form.value}`);
    if (attached === undefined) index++;
    add(row, attached ?? next ?? "");
    if (form.kind !== "list") continue;
    for (let more = argv[index + 1]; more !== undefined && !isOption(more); more = argv[index + 1]) {
      add(row, more);
      index++;
    }
  }
  return values;
}

function splitArgument(argument: string): { readonly name: string; readonly attached: string | undefined } {
  const equals = argument.startsWith("--") ? argument.indexOf("=") : -1;
  if (equals < 0) return { name: argument, attached: undefined };
  return { name: argument.slice(0, equals), attached: argument.slice(equals + 1) };
}

function findOption(name: string, options: readonly OptionRow[]): OptionRow | undefined {
  const spelled = /^-v+$/.test(name) ? "-v" : name;
  return options.find((row) => row.name === spelled || row.short === spelled);
}

function unknownText(name: string, options: readonly OptionRow[], rules: ArgumentRules): string {
  const { help = "tsvmm --help", foreign } = rules;
  const advice = foreign?.get(name);
  if (advice !== undefined) return `unknown option '${name}': ${advice}`;
  const found = didYouMean(
    name.replace(/^-+/, ""),
    options.map((row) => row.name.slice(2)),
  ).replace("'", "'--");
  return `unknown option '${name}'${found === "" ? `; ${help} lists them` : found}`;
}

function strayText(argument: string, optionBefore: string | undefined): string {
  const advice =
    optionBefore === "--cmdline" ? ': put the whole command line in quotes, --cmdline "console=ttyS0 rw"' : "";
  return `'${argument}' belongs to no option${advice}`;
}
