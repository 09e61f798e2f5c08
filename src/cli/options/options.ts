import { allKinds } from "../../vmm/spec/kinds/list.ts";
import { CPUS, MEMORY, PLATFORM } from "../../vmm/spec/machine-parts.ts";
import type { OptionRow } from "./option-table.ts";
import { optionRow } from "./part-options.ts";

const BOOT_OPTIONS: readonly OptionRow[] = [
  {
    name: "--kernel",
    group: "What to boot",
    form: { kind: "value", value: "PATH" },
    help: "ELF vmlinux with a PVH note, bzImage, or multiboot kernel; required",
  },
  {
    name: "--initramfs",
    group: "What to boot",
    form: { kind: "value", value: "PATH" },
    help: "initial RAM disk; the first module of a multiboot kernel",
  },
  {
    name: "--cmdline",
    group: "What to boot",
    form: { kind: "value", value: "TEXT" },
    help: "kernel command line, passed as it is; quote it when it has spaces",
  },
];

const MACHINE_OPTIONS: readonly OptionRow[] = [
  {
    name: "--no-reboot",
    group: "Machine",
    form: { kind: "flag" },
    help: "end when the guest resets itself, instead of starting it anew",
  },
];

const TEST_OPTIONS: readonly OptionRow[] = [
  {
    name: "--debug-exit",
    group: "Devices",
    form: { kind: "value", value: "PORT" },
    help: "I/O port whose writes end the machine with status value * 2 + 1, as test suites use 0xf4",
  },
  {
    name: "--test-device",
    group: "Devices",
    form: { kind: "flag" },
    help: "ports and memory of QEMU's pc-testdev, as kvm-unit-tests uses them, with --debug-exit 0xf4",
  },
];

const PROGRAM_OPTIONS: readonly OptionRow[] = [
  {
    name: "--dry-run",
    group: "This program",
    form: { kind: "flag" },
    help: "build the machine, print what it is made of, and do not start it",
  },
  {
    name: "--poll",
    group: "This program",
    form: { kind: "value", value: "MICROSECONDS|auto" },
    help: "how long the device thread polls before it sleeps; auto: as long as a host CPU is to spare",
  },
  {
    name: "--log-file",
    group: "This program",
    form: { kind: "value", value: "PATH" },
    help: "append the log to a file; default: as JSON lines",
  },
  {
    name: "--log-format",
    group: "This program",
    form: { kind: "value", value: "pretty|json" },
    help: "how the log looks; default: pretty on a terminal",
  },
  {
    name: "--summary",
    group: "This program",
    form: { kind: "value", value: "PATH" },
    help: "write what the machine was and did to a file at its end, as JSON: plan, exits, accesses, interrupts, times",
  },
  {
    name: "--verbose",
    short: "-v",
    group: "This program",
    form: { kind: "count" },
    help: "log more; -vv: still more; -vvv: every step of guest and devices, best with --log-file",
  },
  { name: "--quiet", short: "-q", group: "This program", form: { kind: "flag" }, help: "log errors only" },
  { name: "--help", short: "-h", group: "This program", form: { kind: "flag" }, help: "print this text" },
  { name: "--version", group: "This program", form: { kind: "flag" }, help: "print the version" },
];

/** All options of `run`, in the order of the help. */
export const runOptions = (): readonly OptionRow[] => [
  ...BOOT_OPTIONS,
  optionRow(CPUS),
  optionRow(MEMORY),
  optionRow(PLATFORM),
  ...MACHINE_OPTIONS,
  ...allKinds().map(optionRow),
  ...TEST_OPTIONS,
  ...PROGRAM_OPTIONS,
];
