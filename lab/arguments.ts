import { parseArgs } from "node:util";
import { SpecError } from "../src/base/errors.ts";
import type { Accelerator } from "./accelerator.ts";
import { type LabDevice, parseLabDevice } from "./devices.ts";

/** What the lab's command line asks for. */
export interface LabArguments {
  readonly devices: readonly LabDevice[];
  readonly command: readonly string[];
  readonly out: string | undefined;
  readonly timeoutMs: number;
  readonly cpus: number;
  readonly memoryMib: number;
  readonly drivers: "vfio" | "none";
  readonly accelerator: Accelerator | undefined;
}

const OPTIONS = {
  device: { type: "string", multiple: true },
  "keep-drivers": { type: "boolean" },
  out: { type: "string" },
  timeout: { type: "string" },
  cpus: { type: "string" },
  memory: { type: "string" },
  tcg: { type: "boolean" },
  kvm: { type: "boolean" },
  help: { type: "boolean" },
} as const;

/**
 * Reads the lab's command line.
 *
 * @returns `undefined` when the help text is asked for.
 * @throws SpecError when it cannot be understood.
 */
export function parseLabArguments(args: readonly string[]): LabArguments | undefined {
  // Ours end where the command begins: at "--", or at the first word that is no option of ours.
  const end = endOfOptions(args);
  const { values } = parse(args.slice(0, end));
  const command = args.slice(args[end] === "--" ? end + 1 : end);
  if (values.help) return undefined;
  if (command.length === 0) throw new SpecError("TSVMM_VALUE_INVALID", "command", "there is none to run (see --help)");
  if (values.tcg && values.kvm)
    throw new SpecError("TSVMM_VALUE_INVALID", "--kvm", "cannot be given together with --tcg");
  return {
    devices: (values.device ?? []).map(parseLabDevice),
    command,
    out: values.out,
    timeoutMs: 1000 * count("--timeout", values.timeout, 600),
    cpus: count("--cpus", values.cpus, 2),
    memoryMib: count("--memory", values.memory, 4096),
    drivers: values["keep-drivers"] ? "none" : "vfio",
    accelerator: values.tcg ? "tcg" : values.kvm ? "kvm" : undefined,
  };
}

function parse(args: readonly string[]): ReturnType<typeof parseArgs<{ options: typeof OPTIONS; args: string[] }>> {
  try {
    return parseArgs({ args: [...args], options: OPTIONS });
  } catch (error) {
    throw new SpecError("TSVMM_VALUE_INVALID", "", error instanceof Error ? error.message : String(error));
  }
}

function endOfOptions(args: readonly string[]): number {
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] ?? "";
    if (arg === "--" || !arg.startsWith("--")) return index;
    const option = Object.entries(OPTIONS).find(([name]) => arg === `--${name}`)?.[1];
    if (option?.type === "string") index++;
  }
  return args.length;
}

function count(option: string, text: string | undefined, whenAbsent: number): number {
  const value = text === undefined ? whenAbsent : Number(text);
  if (!Number.isInteger(value) || value <= 0)
    throw new SpecError("TSVMM_VALUE_INVALID", option, `${text} is no positive whole number`);
  return value;
}
