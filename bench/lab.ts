import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { MachineStatistics } from "../src/index.ts";
import { type LinuxGuest, type LinuxGuestSpec, startQemu, startTsvmm } from "./linux-guest.ts";
import { type CpuTime, cpuTime } from "./process.ts";
import { byThreadName, TraceCounter } from "./trace-counter.ts";

/*
 * Counts that need a Linux guest, and so a KVM that runs one: the nested lab, or a real host. Speed is not looked at: the lab is emulated.
 */

const USAGE = `node dist/bench/lab.js boot|path|idle --kernel FILE [--vmm tsvmm|qemu] [--disk FILE] [--initramfs FILE] [--cpus N]
      [--cmdline TEXT] [--device BDF] [--prompt REGEX] [--show]
  boot  exits until the serial console shows the guest's first userspace line: [--until REGEX]
  path  exits and system calls while the guest's shell runs a command that makes N requests: --command CMD --requests N
        ({N} in it is the number)
  idle  share of a processor that all threads take while the booted guest does nothing, and exits and system calls meanwhile: [--seconds N]
Each prints JSON; --show the guest's console on standard error. Root only: the kernel counts, by tracefs.
`;

/** What the kernel counted, by thread. */
type Counts = Readonly<Record<string, number>>;

interface Reading {
  readonly exits: Counts;
  readonly systemCalls: Counts;
  readonly own: MachineStatistics | undefined;
}

const NOTHING: Reading = { exits: {}, systemCalls: {}, own: undefined };

interface Difference {
  /** Returns of KVM_RUN to userspace. */
  readonly exits: Counts;
  readonly systemCalls: Counts;
  /** What the VMM itself counted: exits by kind, accesses by device. */
  readonly exitsByKind?: Counts;
  readonly accesses?: Counts;
}

const sumOf = (counts: Counts): number => Object.values(counts).reduce((a, b) => a + b, 0);

/** What came between two readings; what stayed the same is left out, and the rest sorted, the most first. */
function difference(before: Counts, after: Counts): Record<string, number> {
  const changed = Object.entries(after).map(([name, count]) => [name, count - (before[name] ?? 0)] as const);
  return Object.fromEntries(changed.filter(([, count]) => count !== 0).sort(([, a], [, b]) => b - a));
}

/** Looks at a guest's counters before and after something. */
class Counters {
  readonly #exits = new TraceCounter("kvm/kvm_userspace_exit");
  readonly #systemCalls = new TraceCounter("raw_syscalls/sys_enter");

  /** Since the guest's threads were made. */
  async sinceStart(guest: LinuxGuest): Promise<Difference> {
    return this.#between(NOTHING, await this.#read(guest));
  }

  async during(guest: LinuxGuest, work: () => Promise<unknown>): Promise<Difference> {
    const before = await this.#read(guest);
    await work();
    return this.#between(before, await this.#read(guest));
  }

  #between(before: Reading, after: Reading): Difference {
    return {
      exits: difference(before.exits, after.exits),
      systemCalls: difference(before.systemCalls, after.systemCalls),
      ...(after.own !== undefined && {
        exitsByKind: difference(before.own?.exits ?? {}, after.own.exits),
        accesses: difference(before.own?.accesses ?? {}, after.own.accesses),
      }),
    };
  }

  async #read(guest: LinuxGuest): Promise<Reading> {
    const own = await guest.statistics();
    return {
      exits: byThreadName(guest.pid, this.#exits.counts()),
      systemCalls: byThreadName(guest.pid, this.#systemCalls.counts()),
      own,
    };
  }

  close(): void {
    this.#exits.close();
    this.#systemCalls.close();
  }
}

interface Work {
  readonly start: (spec: LinuxGuestSpec) => Promise<LinuxGuest>;
  readonly spec: LinuxGuestSpec;
  readonly prompt: RegExp;
  readonly counters: Counters;
}

async function withGuest<T>({ start, spec }: Work, use: (guest: LinuxGuest) => Promise<T>): Promise<T> {
  const guest = await start(spec);
  try {
    return await use(guest);
  } finally {
    await guest.end();
  }
}

/** From the start until the serial console shows a line. */
async function boot(work: Work, until: RegExp): Promise<object> {
  return await withGuest(work, async (guest) => {
    await guest.waitFor(until);
    const counts = await work.counters.sinceStart(guest);
    return { totalExits: sumOf(counts.exits), ...counts };
  });
}

/**
 * Has a guest do I/O and counts what of it reached userspace. The command is typed at the shell, which takes some hundred exits: so it
 * runs with one request first, and the difference counts.
 *
 * @param command The guest's shell command; `{N}` in it stands for the number of requests.
 */
async function dataPath(work: Work, command: string, requests: number): Promise<object> {
  return await withGuest(work, async (guest) => {
    await guest.waitFor(work.prompt);
    const run = async (count: number): Promise<void> => {
      guest.write(`${command.replaceAll("{N}", String(count))}\n`);
      await guest.waitFor(work.prompt);
    };
    await run(requests); // until then drivers and caches are new to it
    const [one, many] = [
      await work.counters.during(guest, () => run(1)),
      await work.counters.during(guest, () => run(requests)),
    ];
    const perRequest = (kind: "exits" | "systemCalls"): number =>
      Math.round((1000 * (sumOf(many[kind]) - sumOf(one[kind]))) / (requests - 1)) / 1000;
    return {
      requests,
      exitsPerRequest: perRequest("exits"),
      systemCallsPerRequest: perRequest("systemCalls"),
      one,
      many,
    };
  });
}

/** What follows a guest's start, its timers and daemons, is over after so long. */
const SETTLE_MS = 20_000;

/** Boots a guest to its shell's prompt, lets it settle and looks on. */
async function idle(work: Work, seconds: number): Promise<object> {
  return await withGuest(work, async (guest) => {
    await guest.waitFor(work.prompt);
    await sleep(SETTLE_MS);
    const before = cpuTime(guest.pid);
    const counts = await work.counters.during(guest, () => sleep(seconds * 1000));
    const after = cpuTime(guest.pid);
    const percent = (kind: keyof CpuTime): number => Math.round((after[kind] - before[kind]) / (seconds / 10)) / 100;
    return { seconds, percent: percent("all"), percentWithoutVcpus: percent("withoutVcpus"), ...counts };
  });
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      vmm: { type: "string", default: "tsvmm" },
      show: { type: "boolean", default: false },
      kernel: { type: "string" },
      initramfs: { type: "string" },
      disk: { type: "string" },
      device: { type: "string", multiple: true, default: [] },
      cpus: { type: "string", default: "4" },
      cmdline: { type: "string", default: "console=ttyS0 root=/dev/vda1 rw quiet" },
      until: { type: "string", default: "Run /init|init:|The guest" },
      prompt: { type: "string", default: "guest:.*# " },
      command: { type: "string", default: "true" },
      requests: { type: "string", default: "1" },
      seconds: { type: "string", default: "60" },
    },
  });
  const [what] = positionals;
  if (what === undefined || !["boot", "path", "idle"].includes(what)) throw new Error("which: boot, path or idle?");
  if (values.kernel === undefined) throw new Error("--kernel is needed");
  if (values.vmm !== "tsvmm" && values.vmm !== "qemu") throw new Error("--vmm is tsvmm or qemu");
  const spec: LinuxGuestSpec = {
    kernel: values.kernel,
    initramfs: values.initramfs,
    disk: values.disk,
    cmdline: values.cmdline,
    cpus: Number(values.cpus),
    devices: values.device,
    onConsole: (text) => void (values.show && process.stderr.write(text)),
  };
  const counters = new Counters();
  try {
    const start = values.vmm === "qemu" ? startQemu : startTsvmm;
    const work: Work = { start, spec, prompt: new RegExp(values.prompt), counters };
    const result =
      what === "path"
        ? await dataPath(work, values.command, Number(values.requests))
        : what === "idle"
          ? await idle(work, Number(values.seconds))
          : await boot(work, new RegExp(values.until));
    process.stdout.write(`${JSON.stringify({ vmm: values.vmm, cpus: spec.cpus, ...result }, undefined, 2)}\n`);
  } finally {
    counters.close();
  }
}

if (process.argv[1] === import.meta.filename) {
  try {
    await main();
  } catch (error) {
    process.stderr.write(`lab: ${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    process.exitCode = 2;
  }
}
