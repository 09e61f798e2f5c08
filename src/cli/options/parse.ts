import { SpecError } from "../../base/errors.ts";
import type { LogSettings } from "../../vmm/log.ts";
import { MEMORY } from "../../vmm/spec/machine-parts.ts";
import { SameFileError } from "../../vmm/spec/outputs.ts";
import type { MachineInput, MachineSpec } from "../../vmm/spec/spec.ts";
import { allParts, completeSpec } from "../../vmm/spec/spec-check.ts";
import { type ArgumentValues, readArguments } from "./arguments.ts";
import { FOREIGN_OPTIONS } from "./foreign-options.ts";
import { runOptions } from "./options.ts";
import { checkOutputFile } from "./output-file.ts";
import { readPart } from "./read-part.ts";
import { readChoice, readInteger, readPath } from "./values.ts";

/** What a command line of `run` asks for. */
export interface RunRequest {
  readonly spec: MachineSpec;
  readonly log: LogSettings;
  /** Describe the machine instead of starting it. */
  readonly isDryRun: boolean;
  /** A dry run shows the functions' configuration spaces too. */
  readonly isVerbose: boolean;
  /** Where the summary goes. */
  readonly summary: string | undefined;
}

/** Options of fields that are no part of their own, and of files beside those of the specification. */
const OTHER_OPTIONS: Readonly<Record<string, string>> = {
  kernel: "--kernel",
  initramfs: "--initramfs",
  cmdline: "--cmdline",
  debugExitPort: "--debug-exit",
  pollMicroseconds: "--poll",
  log: "--log-file",
  summary: "--summary",
};

/** Which option a part of the spec comes from, so that a problem is told in the words it was given in. */
function optionOf(path: string): string | undefined {
  const name = /^\w+/.exec(path)?.[0] ?? "";
  return allParts().find(({ part }) => part === name)?.option ?? OTHER_OPTIONS[name];
}

/**
 * Reads the arguments of `run` and checks the machine they describe.
 *
 * @param home What `~/` stands for at the start of a path.
 * @throws SpecError with the option's name as its path.
 */
export function parseRun(argv: readonly string[], home: string): RunRequest {
  const values = readArguments(argv, runOptions(), { foreign: FOREIGN_OPTIONS });
  const log = readLogSettings(values, home);
  const input = readMachine(values, home);
  try {
    const text = values.get("--summary")?.[0];
    const summary = text === undefined ? undefined : readOutput("--summary", text, home);
    const outputs = [
      ...(log.file === undefined ? [] : [{ where: "log.file", path: log.file }]),
      ...(summary === undefined ? [] : [{ where: "summary", path: summary }]),
    ];
    const isDryRun = values.has("--dry-run");
    return { spec: completeSpec(input, outputs), log, isDryRun, isVerbose: values.has("--verbose"), summary };
  } catch (error) {
    throw inOptions(error);
  }
}

/**
 * A problem with the spec under the name of the option: `disks[0].path` becomes `--disk`. Other errors stay as they
 * are.
 */
export function inOptions(error: unknown): unknown {
  if (!(error instanceof SpecError)) return error;
  const option = optionOf(error.path);
  if (option === undefined) return error;
  if (error instanceof SameFileError)
    return new SameFileError(option, error.file, optionOf(error.other) ?? error.other);
  return new SpecError(error.code, option, error.text);
}

function readMachine(values: ArgumentValues, home: string): MachineInput {
  const one = (name: string): string | undefined => values.get(name)?.[0];
  const kernel = one("--kernel");
  if (kernel === undefined)
    throw new SpecError("TSVMM_VALUE_MISSING", "", "no kernel is given: --kernel PATH; tsvmm --help shows how");
  const initramfs = one("--initramfs");
  const debugExit = one("--debug-exit");
  const poll = one("--poll");
  const cmdline = one("--cmdline");
  const parts = allParts().map((description) => [
    description.part,
    readPart(description, values.get(description.option), home),
  ]);
  // Cast: each part was read after its description, which the type is made of.
  const given = Object.fromEntries(parts.filter(([, value]) => value !== undefined)) as Omit<MachineInput, "kernel">;
  return {
    // The terminal, where nothing else has it.
    serial: { kind: given.console?.kind === "tty" ? "null" : "tty" },
    ...given,
    kernel: readPath(kernel, home),
    ...(initramfs === undefined ? {} : { initramfs: readPath(initramfs, home) }),
    ...(cmdline === undefined ? {} : { cmdline }),
    ...(debugExit === undefined ? {} : { debugExitPort: readInteger("--debug-exit", debugExit) }),
    hasTestDevice: values.has("--test-device"),
    allowReboot: !values.has("--no-reboot"),
    ...(poll === undefined || poll === "auto" ? {} : { pollMicroseconds: readPoll(poll) }),
  };
}

/** Reads the value of `--memory`. @throws SpecError */
export function readMemory(text: string | undefined): NonNullable<MachineInput["memory"]> {
  // Cast: it was read after MEMORY, which the type is made of.
  return (readPart(MEMORY, text === undefined ? undefined : [text], "") ?? {}) as NonNullable<MachineInput["memory"]>;
}

function readPoll(text: string): number {
  if (!/^\d+$/.test(text))
    throw new SpecError("TSVMM_VALUE_INVALID", "--poll", `'${text}' is neither auto nor a number of microseconds`);
  return readInteger("--poll", text);
}

/** The path of a file to be written. @throws SpecError when it cannot be one */
function readOutput(option: string, text: string, home: string): string {
  if (text === "") throw new SpecError("TSVMM_VALUE_MISSING", option, "a path is needed");
  const path = readPath(text, home);
  checkOutputFile(option, path);
  return path;
}

function readLogSettings(values: ArgumentValues, home: string): LogSettings {
  const verbosity = values.get("--verbose")?.length ?? 0;
  if (verbosity > 0 && values.has("--quiet"))
    throw new SpecError("TSVMM_VALUE_CONFLICT", "--quiet", "contradicts --verbose");
  const format = values.get("--log-format")?.[0];
  const file = values.get("--log-file")?.[0];
  const levels = ["warn", "info", "debug", "trace"] as const;
  return {
    level: values.has("--quiet") ? "error" : (levels[Math.min(verbosity, levels.length - 1)] ?? "warn"),
    format: format === undefined ? "auto" : readChoice("--log-format", format, ["pretty", "json"]),
    ...(file === undefined ? {} : { file: readOutput("--log-file", file, home) }),
  };
}
