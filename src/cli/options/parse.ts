import { SpecError } from "../../base/errors.ts";
import type { LogSettings } from "../../vmm/log.ts";
import { SameFileError } from "../../vmm/spec/outputs.ts";
import type { CharSpec, DiskInput, MachineInput, MachineSpec, UserDeviceInput } from "../../vmm/spec/spec.ts";
import { completeSpec } from "../../vmm/spec/spec-check.ts";
import { type ArgumentValues, readArguments } from "./arguments.ts";
import { readDevice } from "./device-keys.ts";
import { FOREIGN_OPTIONS } from "./foreign-options.ts";
import { readKeys } from "./key-values.ts";
import { CPU_KEYS, DISK_KEYS, MEMORY_KEYS, OPTIONS, RNG_KEYS, USER_DEVICE_KEYS } from "./options.ts";
import { checkOutputFile } from "./output-file.ts";
import { didYouMean } from "./suggest.ts";
import { readChoice, readInteger, readPath, readSize, readSwitch } from "./values.ts";

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

/** Which option a part of the spec comes from, so that a problem is told in the words it was given in. */
const OPTION_OF: Readonly<Record<string, string>> = {
  kernel: "--kernel",
  initramfs: "--initramfs",
  cmdline: "--cmdline",
  cpus: "--cpus",
  memory: "--memory",
  disks: "--disk",
  devices: "--device",
  userDevices: "--user-device",
  serial: "--serial",
  console: "--console",
  rng: "--rng",
  debugExitPort: "--debug-exit",
  pollMicroseconds: "--poll",
  log: "--log-file",
  summary: "--summary",
};

const optionOf = (path: string): string | undefined => OPTION_OF[/^\w+/.exec(path)?.[0] ?? ""];

/**
 * Reads the arguments of `run` and checks the machine they describe.
 *
 * @param home What `~/` stands for at the start of a path.
 * @throws SpecError with the option's name as its path.
 */
export function parseRun(argv: readonly string[], home: string): RunRequest {
  const values = readArguments(argv, OPTIONS, { foreign: FOREIGN_OPTIONS });
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
  return new SpecError(option, error.message.slice(error.path.length + 2));
}

function readMachine(values: ArgumentValues, home: string): MachineInput {
  const one = (name: string): string | undefined => values.get(name)?.[0];
  const kernel = one("--kernel");
  if (kernel === undefined) throw new SpecError("", "no kernel is given: --kernel PATH; tsvmm --help shows how");
  const initramfs = one("--initramfs");
  const debugExit = one("--debug-exit");
  const poll = one("--poll");
  const console = readCharacter("--console", one("--console"), home) ?? { kind: "off" };
  const serial = readCharacter("--serial", one("--serial"), home);
  const cmdline = one("--cmdline");
  return {
    kernel: readPath(kernel, home),
    ...(initramfs === undefined ? {} : { initramfs: readPath(initramfs, home) }),
    ...(cmdline === undefined ? {} : { cmdline }),
    cpus: readCpus(one("--cpus")),
    memory: readMemory(one("--memory")),
    disks: (values.get("--disk") ?? []).map((text) => readDisk(text, home)),
    devices: (values.get("--device") ?? []).map((text) => readDevice(text, home)),
    userDevices: (values.get("--user-device") ?? []).map((text) => readUserDevice(text, home)),
    serial: serial ?? { kind: console.kind === "tty" ? "null" : "tty" },
    console,
    rng: readRng(one("--rng"), home),
    ...(debugExit === undefined ? {} : { debugExitPort: readInteger("--debug-exit", debugExit) }),
    hasTestDevice: values.has("--test-device"),
    allowReboot: !values.has("--no-reboot"),
    ...(poll === undefined || poll === "auto" ? {} : { pollMicroseconds: readPoll(poll) }),
  };
}

function readCpus(text: string | undefined): { readonly count?: number } {
  if (text === undefined) return {};
  const count = readKeys("--cpus", text, CPU_KEYS, "boot").get("boot");
  return count === undefined ? {} : { count: readInteger("--cpus", count) };
}

/** Reads the value of `--memory`. @throws SpecError */
export function readMemory(text: string | undefined): NonNullable<MachineInput["memory"]> {
  if (text === undefined) return {};
  const keys = readKeys("--memory", text, MEMORY_KEYS, "size");
  const size = keys.get("size");
  const flag = (key: "hugepages" | "prefault" | "shared"): Readonly<Partial<Record<typeof key, boolean>>> => {
    const value = keys.get(key);
    return value === undefined ? {} : { [key]: readSwitch(`--memory ${key}`, value) };
  };
  return {
    ...(size === undefined ? {} : { sizeBytes: readSize("--memory", size) }),
    ...flag("hugepages"),
    ...flag("prefault"),
    ...flag("shared"),
  };
}

function readDisk(text: string, home: string): DiskInput {
  const keys = readKeys("--disk", text, DISK_KEYS, "path");
  const path = keys.get("path");
  if (path === undefined) throw new SpecError("--disk", `'${text}' has no path=`);
  const type = keys.get("image_type") ?? "raw";
  if (type !== "raw") {
    throw new SpecError("--disk", `image_type ${type} is not supported: convert it with qemu-img convert -O raw`);
  }
  const serial = keys.get("serial");
  const id = keys.get("id");
  return {
    path: readPath(path, home),
    isReadOnly: readSwitch("--disk readonly", keys.get("readonly") ?? "off"),
    isDirect: readSwitch("--disk direct", keys.get("direct") ?? "off"),
    ...(serial === undefined ? {} : { serial }),
    ...(id === undefined ? {} : { id }),
  };
}

function readUserDevice(text: string, home: string): UserDeviceInput {
  const keys = readKeys("--user-device", text, USER_DEVICE_KEYS, "socket");
  const socket = keys.get("socket");
  if (socket === undefined) throw new SpecError("--user-device", `'${text}' has no socket=`);
  const id = keys.get("id");
  const timeout = keys.get("timeout");
  return {
    socket: readPath(socket, home),
    ...(id === undefined ? {} : { id }),
    ...(timeout === undefined ? {} : { timeoutSeconds: readTimeout("--user-device timeout", timeout) }),
  };
}

function readTimeout(option: string, text: string): number | "off" {
  if (text === "off") return text;
  if (!/^\d+$/.test(text)) throw new SpecError(option, `'${text}' is neither off nor a number of seconds`);
  return readInteger(option, text);
}

function readRng(text: string | undefined, home: string): { readonly source?: string } {
  if (text === undefined) return {};
  const source = readKeys("--rng", text, RNG_KEYS, "src").get("src");
  return source === undefined ? {} : { source: readPath(source, home) };
}

/** Reads where a character device goes; `undefined` when nothing was said. */
function readCharacter(option: string, text: string | undefined, home: string): CharSpec | undefined {
  if (text === undefined) return undefined;
  const match = /^(file|socket)=(.*)$/s.exec(text);
  if (match !== null) {
    // Cast: the expression names just these two.
    return { kind: match[1] as "file" | "socket", path: readPath((match[2] ?? "").replaceAll('"', ""), home) };
  }
  if (text === "off" || text === "null" || text === "tty" || text === "pty") return { kind: text };
  if (text === "file" || text === "socket") throw new SpecError(option, `'${text}' needs a path: ${text}=/some/where`);
  const guess = didYouMean(text.replace(/=.*/s, ""), ["off", "null", "tty", "pty", "file", "socket"]);
  throw new SpecError(option, `'${text}' is none of off, null, tty, pty, file=PATH, socket=PATH${guess}`);
}

function readPoll(text: string): number {
  if (!/^\d+$/.test(text)) throw new SpecError("--poll", `'${text}' is neither auto nor a number of microseconds`);
  return readInteger("--poll", text);
}

/** The path of a file to be written. @throws SpecError when it cannot be one */
function readOutput(option: string, text: string, home: string): string {
  if (text === "") throw new SpecError(option, "a path is needed");
  const path = readPath(text, home);
  checkOutputFile(option, path);
  return path;
}

function readLogSettings(values: ArgumentValues, home: string): LogSettings {
  const verbosity = values.get("--verbose")?.length ?? 0;
  if (verbosity > 0 && values.has("--quiet")) throw new SpecError("--quiet", "contradicts --verbose");
  const format = values.get("--log-format")?.[0];
  const file = values.get("--log-file")?.[0];
  const levels = ["warn", "info", "debug", "trace"] as const;
  return {
    level: values.has("--quiet") ? "error" : (levels[Math.min(verbosity, levels.length - 1)] ?? "warn"),
    format: format === undefined ? "auto" : readChoice("--log-format", format, ["pretty", "json"]),
    ...(file === undefined ? {} : { file: readOutput("--log-file", file, home) }),
  };
}
