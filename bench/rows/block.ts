import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { buildFloor, hasQemu, missingKvm, qemu, tsvmm, type Vmm } from "../contenders.ts";
import { blockGuest, type Phase, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN } from "../guests/block.ts";
import { compare, interleave, type Measure, withAim } from "../interleave.ts";
import { type CpuTime, cpuTime, run } from "../process.ts";
import type { Context, Line, Row } from "../row.ts";
import { intervals } from "../tsc.ts";

const DISK_BYTES = 256 << 20;
const KIB = 1024;

const read = { type: VIRTIO_BLK_T_IN, isRandom: true, waits: false } as const;
/** A run before the others: code is compiled, the disk's pages are found. */
const WARM_UP: Phase = { ...read, sizeBytes: 4 * KIB, depth: 4, count: 4000 };

const BLOCK_PHASES: Readonly<Record<string, Phase>> = {
  "random read 4 KiB, QD 1": { ...read, sizeBytes: 4 * KIB, depth: 1, count: 4000 },
  "random read 4 KiB, QD 32": { ...read, sizeBytes: 4 * KIB, depth: 32, count: 20_000 },
  "sequential read 1 MiB, QD 1": { ...read, isRandom: false, sizeBytes: KIB * KIB, depth: 1, count: 300 },
  "flush, QD 1": { ...read, type: VIRTIO_BLK_T_FLUSH, sizeBytes: 0, depth: 1, count: 1000 },
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
        if (marks.length === names.length + 2) child.kill("SIGTERM"); // the warm-up's and the last one
      },
    });
    const took = intervals(done.lines).slice(1);
    if (took.length !== names.length) throw new Error(`The guest did not finish\n${done.errors}`);
    return Object.fromEntries(
      names.flatMap((name, index) => {
        const count = phases[name]?.count ?? 1;
        const cpu = (marks[index + 2]?.withoutVcpus ?? 0) - (marks[index + 1]?.withoutVcpus ?? 0);
        return [
          [name, (took[index] ?? 0) / count / 1000],
          [`CPU, ${name}`, (cpu * 1000) / count],
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
  writeFileSync(image, blockGuest([WARM_UP, ...Object.values(phases)], DISK_BYTES));
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
    "random read 4 KiB, QD 1": small,
    "random read 4 KiB, QD 32": small,
    "sequential read 1 MiB, QD 1": await microseconds(KIB * KIB, 300),
  };
}

const ratioTo = (line: Line, name: string): number | undefined =>
  line.beside.find((peer) => peer.name === name)?.ratio.median;

export const block: Row = {
  name: "block",
  meaning:
    "Microseconds a request of a virtio-blk driver takes, the guest looking at the used ring all the time, on an image file in the host's " +
    "page cache; and the VMM's processor time for it without the vCPU thread, which polls whoever runs it. Ratios below 1 are faster " +
    "than the peer. The C program reads the same file with nothing in between.",
  missing: missingKvm,
  async run(context) {
    const samples = await measure(context, BLOCK_PHASES);
    for (const name of Object.keys(BLOCK_PHASES)) {
      const line = compare(samples, "tsvmm", name, { what: name, unit: "us" });
      const ratio = ratioTo(line, "QEMU microvm");
      if (name.endsWith("QD 32"))
        context.add(withAim(line, "ahead of QEMU", ratio === undefined ? undefined : ratio < 1));
      else context.add(withAim(line, "0.9 of QEMU's rate", ratio === undefined ? undefined : ratio <= 1 / 0.9));
      context.add(compare(samples, "tsvmm", `CPU, ${name}`, { what: `CPU, ${name}`, unit: "us" }));
    }
  },
};

export const interrupt: Row = {
  name: "interrupt",
  meaning:
    "A request that needs no disk (the device's serial number), from doorbell to answer, in microseconds: seen by the guest on the ring, and " +
    "by an MSI-X interrupt that wakes the halted guest, whose handler reads a register of the device before it returns. The way is " +
    "ioeventfd, device thread, irqfd, handler, MMIO exit.",
  missing: missingKvm,
  async run(context) {
    const samples = await measure(context, INTERRUPT_PHASES);
    for (const name of Object.keys(INTERRUPT_PHASES)) {
      const line = compare(samples, "tsvmm", name, { what: `round trip ${name}`, unit: "us" });
      const ratio = ratioTo(line, "QEMU microvm");
      context.add(withAim(line, "at par with QEMU", ratio === undefined ? undefined : ratio <= 1.05));
      context.add(compare(samples, "tsvmm", `CPU, ${name}`, { what: `CPU, ${name}`, unit: "us" }));
    }
  },
};
