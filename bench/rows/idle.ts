import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { haltGuest } from "../../guests/halt.ts";
import { hasQemu, missingKvm, qemu, tsvmm, type Vmm } from "../measure/contenders.ts";
import { compare, interleave, type Measure, withAim } from "../measure/interleave.ts";
import { cpuTime, memoryOf, run } from "../measure/process.ts";
import type { Context, Row } from "../measure/row.ts";

/** What follows a start (collections, compilations of what ran) is over after so long. */
const SETTLE_MS = 1000;

/** Starts a guest that halts, looks at the process for a while and ends it. */
async function watch<T>(command: readonly string[], look: (pid: number) => Promise<T>): Promise<T> {
  let looking: Promise<T> | undefined;
  const done = await run(command, {
    isEndedByUs: true,
    onLine(_line, child) {
      looking ??= sleep(SETTLE_MS)
        .then(() => look(child.pid ?? 0))
        .finally(() => child.kill("SIGTERM"));
    },
  });
  if (looking === undefined) throw new Error(`The guest did not start\n${done.errors}`);
  return await looking;
}

function haltImage(context: Context): string {
  const image = join(context.folder, "halt.elf");
  writeFileSync(image, haltGuest());
  return image;
}

export const memory: Row = {
  name: "memory",
  meaning:
    "What the process has in memory while its guest halts, without guest RAM (pages outside the RAM's memfd). " +
    "Private is what no other process " +
    "has mapped: this benchmark is a Node program too, so Node's own code, some 35 MiB, is shared with it and " +
    "counts as resident only; " +
    "QEMU's is private where no other QEMU runs.",
  missing: missingKvm,
  async run(context) {
    const image = haltImage(context);
    for (const cpus of [1, 8]) {
      const of =
        (vmm: Vmm): Measure<"own" | "resident"> =>
        () =>
          watch(vmm({ image, cpus }), async (pid) => memoryOf(pid));
      const samples = await interleave(context, {
        tsvmm: of(tsvmm(context.entry)),
        ...(hasQemu() ? { "QEMU microvm": of(qemu("microvm")) } : {}),
      });
      const count = cpus === 1 ? "1 vCPU" : `${cpus} vCPUs`;
      const line = compare(samples, "tsvmm", "own", { what: `private memory, ${count}`, unit: "MiB" });
      const budget = 55 + 9 * cpus;
      context.add(withAim(line, `≤ 55 + 9 × ${cpus} MiB`, line.value.median <= budget));
      context.add(compare(samples, "tsvmm", "resident", { what: `resident memory, ${count}`, unit: "MiB" }));
    }
  },
};

export const idle: Row = {
  name: "idle",
  meaning: "Share of one processor that all threads together take while the guest's vCPUs halt.",
  missing: missingKvm,
  async run(context) {
    const image = haltImage(context);
    const seconds = context.isLong ? 60 : 5;
    for (const cpus of [1, 4]) {
      const of =
        (vmm: Vmm): Measure<"share"> =>
        async () => {
          const share = await watch(vmm({ image, cpus }), async (pid) => {
            const before = cpuTime(pid).all;
            await sleep(seconds * 1000);
            return (cpuTime(pid).all - before) / (seconds * 10);
          });
          return { share };
        };
      const samples = await interleave(
        { ...context, rounds: Math.min(context.rounds, 3) },
        { tsvmm: of(tsvmm(context.entry)), ...(hasQemu() ? { "QEMU microvm": of(qemu("microvm")) } : {}) },
      );
      const line = compare(samples, "tsvmm", "share", {
        what: `idle for ${seconds} s, ${cpus === 1 ? "1 vCPU" : `${cpus} vCPUs`}`,
        unit: "%",
      });
      context.add(withAim(line, "< 0.5 %", line.value.median < 0.5));
    }
  },
};
