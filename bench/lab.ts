import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Machine, type MachineInput, type MachineStatistics } from "../src/index.ts";
import { cpuTime } from "./process.ts";

/*
 * Counts that need a Linux guest, and so a KVM that runs one: the nested lab, or a real host. Speed is not looked at: the lab is emulated.
 */

const USAGE = `node dist/bench/lab.js boot|path|idle --kernel FILE [--disk FILE] [--initramfs FILE] [--cpus N] [--cmdline TEXT]
  boot  exits until the serial console shows the guest's first userspace line: [--until REGEX]
  path  exits, and turns of the device thread, while the guest's shell runs a command that makes N requests:
        --device BDF --command CMD --requests N [--warm-up CMD] [--prompt REGEX]
  idle  share of a processor that all threads take while the booted guest does nothing: [--seconds N] [--prompt REGEX]
Each prints JSON.
`;

/** Exits and accesses, or how many came in a while. */
export interface Counts {
  readonly exits: Readonly<Record<string, number>>;
  readonly accesses: Readonly<Record<string, number>>;
}

const countsOf = ({ exits, accesses }: MachineStatistics): Counts => ({ exits, accesses });

const sumOf = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((a, b) => a + b, 0);

/** What came between two readings; what stayed the same is left out. */
function difference(
  before: Readonly<Record<string, number>>,
  after: Readonly<Record<string, number>>,
): Record<string, number> {
  const changed = Object.entries(after).map(([name, count]) => [name, count - (before[name] ?? 0)] as const);
  return Object.fromEntries(changed.filter(([, count]) => count !== 0));
}

/**
 * Boots a Linux guest and counts userspace exits until the serial console shows a line.
 *
 * @param until The guest's first userspace line.
 */
export async function bootExits(input: MachineInput, until: RegExp): Promise<Counts & { readonly total: number }> {
  await using machine = await Machine.start(input);
  await machine.serial.waitFor(until, { timeoutMs: 600_000 });
  const counts = countsOf(await machine.statistics());
  const accesses = Object.fromEntries(Object.entries(counts.accesses).sort(([, a], [, b]) => b - a));
  return { total: sumOf(counts.exits) - (counts.exits["interrupted"] ?? 0), exits: counts.exits, accesses };
}

/** How often each thread of this process was put on a processor, by its name; a thread that was not has made no system call. */
function turns(): Map<string, number> {
  const found = new Map<string, number>();
  for (const tid of readdirSync("/proc/self/task")) {
    const name = readFileSync(`/proc/self/task/${tid}/comm`, "latin1").trim();
    const count = Number(readFileSync(`/proc/self/task/${tid}/schedstat`, "latin1").trim().split(" ")[2]);
    found.set(`${name} ${tid}`, count);
  }
  return found;
}

export interface DataPath extends Counts {
  readonly requests: number;
  /** Exits in all, for each request. Every one is a KVM_RUN system call of a vCPU thread. */
  readonly exitsPerRequest: number;
  /** Turns of the device thread: 0 when no system call was made on behalf of the guest outside the vCPUs. */
  readonly deviceThreadTurns: number;
}

/**
 * Has a guest do I/O and counts what of it this program noticed.
 *
 * The command is typed at the shell, so the characters and the prompt, a handful of exits, are in the counts: ask for many requests.
 *
 * @param prompt What the guest's shell shows when it is ready.
 * @param warmUp Run before, not counted.
 */
export async function dataPath(
  input: MachineInput,
  work: { readonly prompt: RegExp; readonly warmUp: string; readonly command: string; readonly requests: number },
): Promise<DataPath> {
  await using machine = await Machine.start(input);
  const type = async (line: string): Promise<void> => {
    machine.serial.write(`${line}\n`);
    await machine.serial.waitFor(work.prompt, { timeoutMs: 600_000 });
  };
  await machine.serial.waitFor(work.prompt, { timeoutMs: 600_000 });
  await type(work.warmUp);
  const before = countsOf(await machine.statistics());
  const turnsBefore = turns();
  await type(work.command);
  const turnsAfter = turns();
  const after = countsOf(await machine.statistics());
  const exits = difference(before.exits, after.exits);
  const deviceThreadTurns = [...turnsAfter]
    .filter(([name]) => name.startsWith("devices "))
    .reduce((sum, [name, count]) => sum + count - (turnsBefore.get(name) ?? 0), 0);
  return {
    requests: work.requests,
    exitsPerRequest: sumOf(exits) / work.requests,
    deviceThreadTurns,
    exits,
    accesses: difference(before.accesses, after.accesses),
  };
}

export interface Idle {
  readonly seconds: number;
  /** Of one processor, of all threads of this process. */
  readonly percent: number;
  readonly exits: Readonly<Record<string, number>>;
}

/** What follows a guest's start, its timers and daemons, is over after so long. */
const SETTLE_MS = 20_000;

/** Boots a guest to its shell's prompt, lets it settle and looks on. */
export async function idle(input: MachineInput, prompt: RegExp, seconds: number): Promise<Idle> {
  await using machine = await Machine.start(input);
  await machine.serial.waitFor(prompt, { timeoutMs: 600_000 });
  await sleep(SETTLE_MS);
  const before = countsOf(await machine.statistics());
  const cpuBefore = cpuTime(process.pid).all;
  await sleep(seconds * 1000);
  const percent = (cpuTime(process.pid).all - cpuBefore) / (seconds * 10);
  return { seconds, percent, exits: difference(before.exits, countsOf(await machine.statistics()).exits) };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      kernel: { type: "string" },
      initramfs: { type: "string" },
      disk: { type: "string" },
      device: { type: "string", multiple: true, default: [] },
      cpus: { type: "string", default: "4" },
      cmdline: { type: "string", default: "console=ttyS0 root=/dev/vda1 rw quiet" },
      until: { type: "string", default: "Run /init|init:|The guest" },
      prompt: { type: "string", default: "guest:.*# " },
      "warm-up": { type: "string", default: "true" },
      command: { type: "string", default: "true" },
      requests: { type: "string", default: "1" },
      seconds: { type: "string", default: "60" },
    },
  });
  const [what] = positionals;
  if (what === undefined || !["boot", "path", "idle"].includes(what)) throw new Error("which: boot, path or idle?");
  if (values.kernel === undefined) throw new Error("--kernel is needed");
  const prompt = new RegExp(values.prompt);
  const input: MachineInput = {
    kernel: values.kernel,
    cmdline: values.cmdline,
    cpus: { count: Number(values.cpus) },
    disks: values.disk === undefined ? [] : [{ path: values.disk }],
    devices: values.device.map((path) => ({ path })),
    ...(values.initramfs === undefined ? {} : { initramfs: values.initramfs }),
  };
  const work = {
    prompt,
    warmUp: values["warm-up"],
    command: values.command,
    requests: Number(values.requests),
  };
  const result =
    what === "path"
      ? await dataPath(input, work)
      : what === "idle"
        ? await idle(input, prompt, Number(values.seconds))
        : await bootExits(input, new RegExp(values.until));
  process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
}

if (process.argv[1] === import.meta.filename) {
  try {
    await main();
  } catch (error) {
    process.stderr.write(`lab: ${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    process.exitCode = 2;
  }
}
