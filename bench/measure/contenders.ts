import { execFileSync } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { join } from "node:path";
import { DEBUG_EXIT } from "../../guests/program.ts";
import { projectRoot } from "../../tools/cache.ts";
import { findProgram } from "../../tools/program.ts";

/** What a guest is given, under every VMM. */
export interface GuestOptions {
  readonly image: string;
  /** MiB; default: 128. */
  readonly memoryMib?: number;
  readonly cpus?: number;
  /** Raw image files. */
  readonly disks?: readonly string[];
  /** A virtio RNG, which tsvmm's machines always have. */
  readonly hasRng?: boolean;
}

/** A command line that runs a guest whose COM1 is standard output. */
export type Vmm = (options: GuestOptions) => readonly string[];

const QEMU = "qemu-system-x86_64";
const MEMORY_MIB = 128;

/** The program under test. */
export function tsvmm(entry: string, extra: readonly string[] = []): Vmm {
  return ({ image, memoryMib = MEMORY_MIB, cpus = 1, disks = [] }) => [
    ...[process.execPath, entry, "--kernel", image, "--memory", `${memoryMib}M`, "--cpus", String(cpus)],
    ...disks.flatMap((path) => ["--disk", `path=${path}`]),
    ...["--debug-exit", String(DEBUG_EXIT), "--no-reboot", ...extra],
  ];
}

/** QEMU on the same KVM; its RAM is a memfd, so that it can be told from its own memory, and its threads have names. */
export function qemu(machine: "microvm" | "q35"): Vmm {
  const type = machine === "microvm" ? "microvm,pcie=on" : "q35";
  return ({ image, memoryMib = MEMORY_MIB, cpus = 1, disks = [], hasRng = false }) => [
    ...[QEMU, "-accel", "kvm", "-cpu", "qemu64", "-machine", `${type},memory-backend=ram`],
    ...["-object", `memory-backend-memfd,id=ram,size=${memoryMib}M`, "-m", `${memoryMib}M`, "-smp", String(cpus)],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-name", "bench,debug-threads=on"],
    ...["-device", `isa-debug-exit,iobase=${DEBUG_EXIT},iosize=4`, "-no-reboot", "-kernel", image],
    ...(hasRng ? ["-device", "virtio-rng-pci-non-transitional"] : []),
    ...disks.flatMap((path, index) => [
      ...["-drive", `if=none,id=disk${index},format=raw,file=${path}`],
      ...["-device", `virtio-blk-pci-non-transitional,drive=disk${index}`],
    ]),
  ];
}

/** Keeps a command on the first processor. */
export const onOneCore =
  (vmm: Vmm): Vmm =>
  (options) => ["taskset", "-c", "0", ...vmm(options)];

/** Why no guest can run here. */
export function missingKvm(): string | undefined {
  if (!existsSync("/dev/kvm"))
    return "there is no /dev/kvm: load kvm_intel or kvm_amd, or enable nested virtualization";
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return undefined;
  } catch {
    return "/dev/kvm may not be opened: join the group kvm";
  }
}

export const hasQemu = (): boolean => findProgram(QEMU) !== undefined;

/** Which peers are missing and what would bring them; printed above the table. */
export function missingPeers(): readonly string[] {
  return [
    ...(hasQemu() ? [] : [`${QEMU} is not there: apt-get install qemu-system-x86`]),
    ...(findProgram("gcc") === undefined
      ? ["gcc is not there, so neither is the floor in C: apt-get install gcc libc6-dev"]
      : []),
  ];
}

/** Version of QEMU for the report. */
export function qemuVersion(): string | undefined {
  if (!hasQemu()) return undefined;
  return /version (\S+)/.exec(execFileSync(QEMU, ["--version"], { encoding: "utf8" }))?.[1];
}

/** Compiles the floor; answers the program, or `undefined` where there is no compiler. */
export function buildFloor(folder: string): string | undefined {
  const compiler = findProgram("gcc");
  if (compiler === undefined) return undefined;
  const program = join(folder, "floor");
  if (!existsSync(program)) {
    execFileSync(compiler, ["-O2", "-Wall", "-o", program, join(projectRoot(), "bench", "floor.c")], {
      stdio: "inherit",
    });
  }
  return program;
}
