import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import {
  blockGuest,
  type Phase,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
} from "../../guests/block.ts";
import { buildFloor, hasQemu, missingKvm, qemu, tsvmm, type Vmm } from "../measure/contenders.ts";
import { compare, interleave, type Measure, ratioTo, type Samples, withAim } from "../measure/interleave.ts";
import { type CpuTime, cpuTime, run } from "../measure/process.ts";
import type { Context, Row } from "../measure/row.ts";
import { intervals } from "../measure/tsc.ts";

const DISK_BYTES = 256 << 20;
const KIB = 1024;

const read = { type: VIRTIO_BLK_T_IN, isRandom: true, waits: false } as const;
/** Before the others: code is compiled, the disk's pages are found, the threads that flush are started. */
const WARM_UPS: readonly Phase[] = [
  { ...read, sizeBytes: 4 * KIB, depth: 4, count: 4000 },
  { ...read, type: VIRTIO_BLK_T_FLUSH, sizeBytes: 0, depth: 1, count: 4 },
];

const RANDOM_1 = "random read 4 KiB, QD 1";
const RANDOM_32 = "random read 4 KiB, QD 32";
const SEQUENTIAL = "sequential read 1 MiB, QD 1";

const BLOCK_PHASES: Readonly<Record<string, Phase>> = {
  [RANDOM_1]: { ...read, sizeBytes: 4 * KIB, depth: 1, count: 4000 },
  [RANDOM_32]: { ...read, sizeBytes: 4 * KIB, depth: 32, count: 20_000 },
  [SEQUENTIAL]: { ...read, isRandom: false, sizeBytes: KIB * KIB, depth: 1, count: 300 },
  "flush of nothing, QD 1": { ...read, type: VIRTIO_BLK_T_FLUSH, sizeBytes: 0, depth: 1, count: 1000 },
  "write 4 KiB or flush in turn, QD 1": {
    ...read,
    type: VIRTIO_BLK_T_OUT,
    flushes: true,
    sizeBytes: 4 * KIB,
    depth: 1,
    count: 100,
  },
};

const INTERRUPT_PHASES: Readonly<Record<string, Phase>> = {
  "by looking at the ring": { ...read, type: VIRTIO_BLK_T_GET_ID, sizeBytes: 20, depth: 1, count: 4000 },
  "by MSI-X, halted meanwhile": {
    ...read,
    type: VIRTIO_BLK_T_GET_ID,
    sizeBytes: 20,
    depth: 1,
    count: 4000,
    waits: true,
  },
};

/** Fills a file with bytes that are neither hole nor zeroes; they stay in the page cache. */
function makeDisk(context: Context): string {
  const path = join(context.folder, "disk.raw");
  const block = Buffer.alloc(1 << 20, "a pattern that is neither hole nor zeroes ");
  const file = openSync(path, "w");
  for (let done = 0; done < DISK_BYTES; done += block.length) writeSync(file, block);
  closeSync(file);
  return path;
}

const CPU = "CPU a request, ";

/** Microseconds a request takes, and of the VMM's processor time without its vCPUs, for each phase. */
function measureOf(vmm: Vmm, image: string, disk: string, phases: Readonly<Record<string, Phase>>): Measure<string> {
  const names = Object.keys(phases);
  return async () => {
    const marks: CpuTime[] = [];
    const done = await run(vmm({ image, disks: [disk] }), {
      isEndedByUs: true,
      onLine({ text }, child) {
        if (text !== "-") return;
        marks.push(cpuTime(child.pid ?? 0));
        if (marks.length === WARM_UPS.length + names.length + 1) child.kill("SIGTERM");
      },
    });
    const took = intervals(done.lines).slice(WARM_UPS.length);
    if (took.length !== names.length) throw new Error(`The guest did not finish\n${done.errors}`);
    return Object.fromEntries(
      names.flatMap((name, index) => {
        const count = phases[name]?.count ?? 1;
        const before = marks[WARM_UPS.length + index]?.withoutVcpus ?? 0;
        const cpu = (marks[WARM_UPS.length + index + 1]?.withoutVcpus ?? 0) - before;
        return [
          [name, (took[index] ?? 0) / count / 1000],
          [CPU + name, (cpu * 1000) / count],
        ];
      }),
    );
  };
}

async function measure(
  context: Context,
  phases: Readonly<Record<string, Phase>>,
): Promise<ReturnType<typeof interleave<string>>> {
  const image = join(context.folder, "block.elf");
  writeFileSync(image, blockGuest([...WARM_UPS, ...Object.values(phases)], DISK_BYTES));
  const disk = makeDisk(context);
  const floor = phases === BLOCK_PHASES ? buildFloor(context.folder) : undefined;
  return await interleave<string>(context, {
    tsvmm: measureOf(tsvmm(context.entry), image, disk, phases),
    ...(hasQemu() ? { "QEMU microvm": measureOf(qemu("microvm"), image, disk, phases) } : {}),
    ...(floor === undefined ? {} : { "pread in C": () => preads(floor, disk) }),
  });
}

/** The same reads by a program that does nothing else; no queue, so its depth is always 1. */
async function preads(floor: string, disk: string): Promise<Record<string, number>> {
  const microseconds = async (sizeBytes: number, count: number): Promise<number> =>
    Number((await run([floor, "pread", disk, String(sizeBytes), String(count)])).lines[0]?.text) / 1000;
  const small = await microseconds(4 * KIB, 50_000);
  return {
    [RANDOM_1]: small,
    [RANDOM_32]: small,
    [SEQUENTIAL]: await microseconds(KIB * KIB, 300),
  };
}

/** Times of requests as rates: more is better. */
const asRates = (samples: Samples<string>): Samples<string> =>
  Object.fromEntries(
    Object.entries(samples).map(([name, values]) => [
      name,
      Object.fromEntries(Object.entries(values).map(([what, times]) => [what, times.map((time) => 1e6 / time)])),
    ]),
  );

export const block: Row = {
  name: "block",
  meaning:
    "Requests a second of a virtio-blk driver that looks at the used ring all the time, on an image file in the " +
    "host's page cache: ratios above " +
    "1 are faster than the peer. And the VMM's processor time for a request, without the vCPU thread, which polls " +
    "under every VMM: ratios " +
    "below 1 are cheaper. The C program reads the same file with nothing in between. Flushes are answered at once " +
    "where nothing was " +
    "written since the last; in the last pair half the requests are 4 KiB writes and half flushes, which the " +
    "host's disk decides.",
  missing: missingKvm,
  async run(context) {
    const samples = await measure(context, BLOCK_PHASES);
    const rates = asRates(samples);
    for (const name of Object.keys(BLOCK_PHASES)) {
      const line = compare(rates, "tsvmm", name, { what: name, unit: "requests/s" });
      const ratio = ratioTo(line, "QEMU microvm");
      if (name === RANDOM_32) context.add(withAim(line, "ahead of QEMU", ratio === undefined ? undefined : ratio > 1));
      else context.add(withAim(line, "≥ 0.9 of QEMU", ratio === undefined ? undefined : ratio >= 0.9));
      context.add(compare(samples, "tsvmm", CPU + name, { what: CPU + name, unit: "µs" }));
    }
  },
};

export const interrupt: Row = {
  name: "interrupt",
  meaning:
    "A request that needs no disk (the device's serial number), from doorbell to answer, in microseconds: seen by " +
    "the guest on the ring, and " +
    "by an MSI-X interrupt that wakes the halted guest, whose handler reads a register of the device before it " +
    "returns. The way is " +
    "ioeventfd, device thread, irqfd, handler, MMIO exit.",
  missing: missingKvm,
  async run(context) {
    const samples = await measure(context, INTERRUPT_PHASES);
    for (const name of Object.keys(INTERRUPT_PHASES)) {
      const line = compare(samples, "tsvmm", name, { what: `round trip ${name}`, unit: "µs" });
      const ratio = ratioTo(line, "QEMU microvm");
      context.add(withAim(line, "at par with QEMU", ratio === undefined ? undefined : ratio <= 1.05));
      context.add(compare(samples, "tsvmm", CPU + name, { what: CPU + name, unit: "µs" }));
    }
  },
};
