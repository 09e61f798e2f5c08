import { HostError, SpecError } from "../base/errors.ts";
import { Binder, type BindingResult, type HostChanges } from "../host-pci/binding.ts";
import { hostChanges } from "../host-pci/driver-changes.ts";
import {
  describeGroup,
  type HostFunction,
  isBridge,
  isVfioDriver,
  isVfioFunction,
  readFunction,
  vmdReason,
} from "../host-pci/functions.ts";
import { kernelArgument } from "../host-pci/platform-checks.ts";
import { DeviceUsage } from "../host-pci/usage.ts";
import type { OptionRow } from "./options/option-table.ts";
import { findFunctions, HELP_OPTION, readSubcommand, type SubcommandText } from "./subcommand.ts";
import { processSurroundings, type Surroundings } from "./surroundings.ts";

const flag = (name: string, help: string): OptionRow => ({ name, group: "Options", form: { kind: "flag" }, help });

const BIND: SubcommandText = {
  name: "bind",
  usage: "[OPTIONS] BDF ...",
  about:
    "tsvmm bind gives PCI functions to vfio-pci, so that they can be passed through. Only the named ones: it " +
    "goes\nthrough driver_override, and other functions of the same model keep their drivers.",
  examples: [
    { text: "Take an NVMe drive from the host", lines: ["tsvmm bind 0000:01:00.0"] },
    { text: "See what that would write, without doing it", lines: ["tsvmm bind --dry-run 0000:01:00.0"] },
    { text: "Take a graphics card with its audio function", lines: ["tsvmm bind --group 0000:01:00.0"] },
  ],
  options: [
    flag("--group", "all functions of the same IOMMU group too, bridges apart"),
    flag("--force", "also what the host uses: mounted disks, swap, the default route, the boot display"),
    flag("--dry-run", "print each write instead of doing it"),
    HELP_OPTION,
  ],
  notes: [
    "Missing modules are loaded. The driver a function had is remembered in /run/tsvmm for tsvmm unbind. Binding " +
      "what is",
    "bound changes nothing; a failure halfway puts back what was there.",
  ].join("\n"),
};

const UNBIND: SubcommandText = {
  name: "unbind",
  usage: "[OPTIONS] BDF ...",
  about: "tsvmm unbind takes PCI functions from vfio-pci and gives them back to the drivers they had.",
  examples: [{ text: "Give an NVMe drive back to the host", lines: ["tsvmm unbind 0000:01:00.0"] }],
  options: [
    flag("--group", "all functions of the same IOMMU group too"),
    flag("--force", "also what a process has open: the kernel waits then until it lets go"),
    flag("--dry-run", "print each write instead of doing it"),
    HELP_OPTION,
  ],
  notes: [
    "Where no driver is remembered the kernel chooses one. A function that vfio-pci does not have is left alone; " +
      "a failure",
    "halfway puts back what was there.",
  ].join("\n"),
};

/** The command `bind`. @returns The exit status. @throws SpecError, HostError */
export function bind(
  argv: readonly string[],
  surroundings: Surroundings = processSurroundings(),
  changes?: HostChanges,
): number {
  const request = readRequest(argv, BIND, surroundings);
  if (request === undefined) return 0;
  const { functions, isForced, isDryRun } = request;
  const usage = new DeviceUsage(surroundings.root);
  for (const one of functions) {
    if (isForced || isVfioFunction(one)) continue;
    const reason = vmdReason(one) ?? usage.reasons(one)[0];
    if (reason !== undefined) throw refusal("bind", one, reason);
    if (one.group === undefined) {
      const advice = kernelArgument(surroundings.root.proc);
      throw new HostError("TSVMM_NO_IOMMU", `Cannot bind ${one.bdf}: no IOMMU translates for it`, advice);
    }
  }
  const real = changes ?? hostChanges((bdf, seconds) => tellWait(functions, bdf, seconds, surroundings));
  const binder = new Binder(surroundings.root, isDryRun ? printed(surroundings) : real, isDryRun);
  const results = binder.bind(functions);
  if (isDryRun) return 0;
  for (const result of results) surroundings.print(`${result.bdf}: ${changeText(result)}\n`);
  for (const text of stillInTheWay(functions)) surroundings.remark(`${text}\n`);
  return 0;
}

/** The command `unbind`. @returns The exit status. @throws SpecError, HostError */
export function unbind(
  argv: readonly string[],
  surroundings: Surroundings = processSurroundings(),
  changes?: HostChanges,
): number {
  const request = readRequest(argv, UNBIND, surroundings);
  if (request === undefined) return 0;
  const { functions, isForced, isDryRun } = request;
  const usage = new DeviceUsage(surroundings.root);
  for (const one of functions) {
    if (isForced || !isVfioDriver(one.driver)) continue;
    const holder = usage.holder(one);
    if (holder !== undefined) throw refusal("unbind", one, `${holder} has its IOMMU group open`);
  }
  const real = changes ?? hostChanges((bdf, seconds) => tellWait(functions, bdf, seconds, surroundings));
  const binder = new Binder(surroundings.root, isDryRun ? printed(surroundings) : real, isDryRun);
  const results = binder.unbind(functions);
  if (isDryRun) return 0;
  for (const result of results) {
    const text =
      result.before === result.after ? `nothing to do, ${driverText(result.after)} has it` : changeText(result);
    surroundings.print(`${result.bdf}: ${text}\n`);
  }
  return 0;
}

interface BindingRequest {
  readonly functions: readonly HostFunction[];
  readonly isForced: boolean;
  readonly isDryRun: boolean;
}

function readRequest(
  argv: readonly string[],
  text: SubcommandText,
  surroundings: Surroundings,
): BindingRequest | undefined {
  const request = readSubcommand(argv, text, surroundings);
  if (request === undefined) return undefined;
  const { values, operands } = request;
  if (operands.length === 0) {
    throw new SpecError(
      "TSVMM_VALUE_MISSING",
      "",
      `no PCI function is named: tsvmm ${text.name} 0000:01:00.0; tsvmm devices lists them`,
    );
  }
  const named = findFunctions(operands, surroundings);
  const members = values.has("--group") ? named.flatMap((one) => describeGroup(one)?.members ?? []) : [];
  const functions = new Map(named.map((one) => [one.bdf, one]));
  // No program takes a bridge from its driver; in a group it is harmless.
  for (const one of members) if (!isBridge(one) && !functions.has(one.bdf)) functions.set(one.bdf, one);
  return {
    functions: [...functions.values()],
    isForced: values.has("--force"),
    isDryRun: values.has("--dry-run"),
  };
}

function refusal(verb: string, { bdf }: HostFunction, reason: string): HostError {
  return new HostError("TSVMM_DEVICE_IN_USE", `Cannot ${verb} ${bdf}: ${reason}`, `--force does it all the same`);
}

/** Tells why a driver does not let go of a function, as far as it is seen. */
export function tellWait(
  functions: readonly HostFunction[],
  bdf: string,
  seconds: number,
  { root, remark }: Surroundings,
): void {
  const waiting = functions.find((one) => one.bdf === bdf);
  const user = waiting === undefined ? undefined : new DeviceUsage(root).user(waiting);
  const who = user ?? "no process is seen that has it open";
  const how = "Ctrl-C ends this command, and the kernel goes on waiting";
  remark(`${bdf}: ${waiting?.driver ?? "its driver"} has not let go of it for ${seconds} s: ${who}; ${how}\n`);
}

/** What a dry run does to the host: commands of the shell that would do the same. */
function printed({ print }: Surroundings): HostChanges {
  return {
    write: (file, text) => print(`echo ${text.trim() === "" ? "" : `${text.trim()} `}> ${file}\n`),
    loadModule: (name) => print(`modprobe ${name}\n`),
  };
}

const driverText = (driver: string | undefined): string => driver ?? "no driver";

function changeText({ before, after }: BindingResult): string {
  if (before === after) return `${driverText(after)} has it already`;
  return `${driverText(before)} → ${driverText(after)}`;
}

/** Members of the functions' groups that host drivers still have. */
function stillInTheWay(functions: readonly HostFunction[]): readonly string[] {
  const texts = functions.flatMap((one) => {
    const now = readFunction(one.path);
    const obstacles = now === undefined ? [] : (describeGroup(now)?.obstacles ?? []);
    if (obstacles.length === 0) return [];
    const names = obstacles.map(({ bdf, driver }) => `${bdf} (${driver})`).join(", ");
    return [`group ${one.group} cannot be used yet, host drivers have ${names}: tsvmm bind --group ${one.bdf}`];
  });
  return [...new Set(texts)];
}
