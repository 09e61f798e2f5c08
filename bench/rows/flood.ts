import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { floodGuest } from "../../guests/flood.ts";
import { Machine } from "../../src/index.ts";
import { missingKvm } from "../measure/contenders.ts";
import { compare, interleave, withAim } from "../measure/interleave.ts";
import type { Context, Row } from "../measure/row.ts";
import { median } from "../measure/samples.ts";

const SHORT_S = 10;
const LONG_S = 3600;
const AIM_LAG_MS = 50;
const NEVER = /a pattern that no line of the guest has/;

type Measured = "lag" | "memory" | "growth";

/** The longest time that the loop kept a timer waiting, and the memory of this process meanwhile. */
async function observe(seconds: number, signal: AbortSignal): Promise<Record<Measured, number>> {
  const loop = monitorEventLoopDelay({ resolution: 1 });
  const memory: number[] = [];
  loop.enable();
  for (let second = 0; second < seconds && !signal.aborted; second++) {
    await delay(1000);
    memory.push(process.memoryUsage.rss());
  }
  loop.disable();
  const quarter = Math.max(1, Math.floor(memory.length / 4));
  const early = median(memory.slice(quarter, 2 * quarter));
  const late = median(memory.slice(-quarter));
  return { lag: loop.max / 1e6, memory: late / 2 ** 20, growth: (late - early) / 2 ** 20 };
}

/** Two channels, a waiter on each, and nothing that reads besides. */
async function flooded(kernel: string, { isLong, signal }: Context): Promise<Record<Measured, number>> {
  const machine = await Machine.start({
    ...{ kernel, memory: { sizeBytes: 64 << 20 }, serial: { kind: "api" }, console: { kind: "api" } },
  });
  const waiters = [machine.serial, machine.console].map((channel) =>
    channel.waitFor(NEVER, { timeoutMs: 2 * LONG_S * 1000 }).catch(() => undefined),
  );
  try {
    return await observe(isLong ? LONG_S : SHORT_S, signal);
  } finally {
    await machine.stop();
    await Promise.all(waiters); // the machine's end rejects both
  }
}

async function quiet(isLong: boolean, signal: AbortSignal): Promise<Record<Measured, number>> {
  return observe(isLong ? SHORT_S * 6 : SHORT_S, signal);
}

export const flood: Row = {
  name: "flood",
  meaning:
    "The longest wait of a timer in a program whose guest writes to its console and to COM1 without pause, with " +
    "a waiter on each; laid beside the same process without a guest. Memory is that of the whole process: its " +
    "growth is the last quarter beside the second. --long takes an hour a round.",
  missing: missingKvm,
  async run(context) {
    const kernel = join(context.folder, "flood.elf");
    writeFileSync(kernel, floodGuest({ serial: true, console: true }));
    const samples = await interleave<Measured>(context, {
      tsvmm: () => flooded(kernel, context),
      "no guest": () => quiet(context.isLong, context.signal),
    });
    const lag = compare(samples, "tsvmm", "lag", { what: "longest wait of the loop", unit: "ms" });
    context.add(withAim(lag, `under ${AIM_LAG_MS} ms`, lag.value.median < AIM_LAG_MS));
    context.add(compare(samples, "tsvmm", "memory", { what: "memory of the process", unit: "MiB" }));
    context.add(compare(samples, "tsvmm", "growth", { what: "growth of memory", unit: "MiB" }));
  },
};
