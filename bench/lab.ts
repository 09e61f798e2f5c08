import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { hostInterrupts } from "../src/host-pci/interrupt-counts.ts";
import type { MachineStatistics } from "../src/index.ts";
import { type LinuxGuest, type LinuxGuestSpec, startQemu, startTsvmm } from "./linux-guest.ts";
import { type CpuTime, cpuTime } from "./measure/process.ts";
import { byThreadName, TraceCounter } from "./trace-counter.ts";

/*
 * Counts that need a Linux guest, and so a KVM that runs one: the nested lab, or a real host. Speed is not looked at:
 * the lab is emulated.
 */

const USAGE = `node dist/bench/lab.js boot|path|idle --kernel FILE [--vmm tsvmm|qemu]
      [--disk FILE] [--initramfs FILE] [--cpus N] [--cmdline TEXT] [--device BDF] [--prompt REGEX] [--show]
  boot  exits until the serial console shows the guest's first userspace line: [--until REGEX]
  path  exits and system calls while the guest's shell does I/O on the devices: --command CMD, which is repeated without
        an end, and the host's interrupts meanwhile: [--seconds N]
  idle  share of a processor that all threads take while the booted guest does nothing, and exits and system calls
        meanwhile: [--seconds N]
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

/** An answer's afterwork, polling for more, is over after so long. */
const ANSWER_MS = 2000;

/** Looks at a guest's counters before and after something. */
class Counters {
  readonly #exits = new TraceCounter("kvm/kvm_userspace_exit");
  readonly #systemCalls = new TraceCounter("raw_syscalls/sys_enter");

  /** Since the guest's threads were made. */
  async sinceStart(guest: LinuxGuest): Promise<Difference> {
    const counts = this.#read(guest.pid);
    return this.#between(NOTHING, { ...counts, own: await guest.statistics() });
  }

  /**
   * What the VMM itself has counted is asked for some time before and right after, so that answering is not counted.
   */
  async during(guest: LinuxGuest, work: () => Promise<unknown>): Promise<Difference> {
    const ownBefore = await guest.statistics();
    await sleep(ANSWER_MS);
    const before = this.#read(guest.pid);
    await work();
    const after = this.#read(guest.pid);
    return this.#between({ ...before, own: ownBefore }, { ...after, own: await guest.statistics() });
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

  #read(pid: number): Omit<Reading, "own"> {
    return {
      exits: byThreadName(pid, this.#exits.counts()),
      systemCalls: byThreadName(pid, this.#systemCalls.counts()),
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

/** The host's interrupts of all passed-through functions so far: one for each request, where one is made at a time. */
function interruptsOf(devices: readonly string[]): number {
  const table = readFileSync("/proc/interrupts", "latin1");
  return devices.reduce((sum, bdf) => [...hostInterrupts(table, bdf).values()].reduce((a, b) => a + b, sum), 0);
}

/**
 * Has a guest do I/O in the background, where it says nothing at its serial console, and counts what of it reaches
 * userspace.
 */
async function dataPath(work: Work, command: string, seconds: number): Promise<object> {
  const { devices } = work.spec;
  return await withGuest(work, async (guest) => {
    await guest.waitFor(work.prompt);
    guest.write(`while :; do ${command}; done >/dev/null 2>&1 &\n`);
    await guest.waitFor(work.prompt);
    await sleep(SETTLE_MS);
    const before = interruptsOf(devices);
    const counts = await work.counters.during(guest, () => sleep(seconds * 1000));
    return { seconds, interrupts: interruptsOf(devices) - before, ...counts };
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
        ? await dataPath(work, values.command, Number(values.seconds))
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
