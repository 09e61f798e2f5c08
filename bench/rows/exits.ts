import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXITS, type ExitName, exitsGuest } from "../../guests/exits.ts";
import { buildFloor, hasQemu, missingKvm, onOneCore, qemu, tsvmm, type Vmm } from "../measure/contenders.ts";
import { compare, interleave, type Measure, ratioTo, type Samples, withAim } from "../measure/interleave.ts";
import { run } from "../measure/process.ts";
import type { Context, Line, Row } from "../measure/row.ts";
import { median } from "../measure/samples.ts";
import { intervals } from "../measure/tsc.ts";

const SHAPE = { count: 2000, blocks: 9 };
/**
 * Blocks at the start of each kind that do not count: the code is still being compiled, by threads that take the
 * processors meanwhile.
 */
const WARM_UP = 4;
/** Where the floor's guest, which has no devices, reads and writes memory. */
const NOWHERE = 0xd000_0000;

const FLOOR = "C loop";

/** Median nanoseconds of an access, by kind. */
function perExit(found: readonly number[]): Record<ExitName, number> {
  const of = (kind: number): number =>
    median(found.slice(kind * SHAPE.blocks + WARM_UP, (kind + 1) * SHAPE.blocks)) / SHAPE.count;
  return { "PIO write": of(0), "PIO read": of(1), "MMIO write": of(2), "MMIO read": of(3) };
}

function measures(context: Context, vmms: Readonly<Record<string, Vmm>>): Record<string, Measure<ExitName>> {
  const image = join(context.folder, "exits.elf");
  writeFileSync(image, exitsGuest(SHAPE, "virtio"));
  return Object.fromEntries(
    Object.entries(vmms).map(([name, vmm]) => [
      name,
      async () => perExit(intervals((await run(vmm({ image, hasRng: true }))).lines)),
    ]),
  );
}

/** Aims of the whole round trip: half of QEMU's, a quarter above the floor. */
function judged(line: Line): Line {
  const [peer, floor] = [ratioTo(line, "QEMU microvm"), ratioTo(line, FLOOR)];
  const isReached = peer === undefined || floor === undefined ? undefined : peer <= 0.5 && floor <= 1.25;
  return withAim(line, "≤ 0.5 of QEMU and ≤ 1.25 of the C loop", isReached);
}

/** What everybody takes longer than the floor in the same round: the VMM's own share. */
function aboveFloor(samples: Samples<ExitName>): Samples<ExitName> {
  const floor = samples[FLOOR];
  const rest = (values: readonly number[], kind: ExitName): number[] =>
    values.map((value, round) => value - (floor?.[kind][round] ?? Number.NaN));
  return Object.fromEntries(
    Object.entries(samples)
      .filter(([name]) => name !== FLOOR)
      .map(([name, values]) => [
        name,
        // Cast: fromEntries forgets the keys, which are those of EXITS.
        Object.fromEntries(EXITS.map((kind) => [kind, rest(values[kind], kind)])) as Record<ExitName, number[]>,
      ]),
  );
}

export const exits: Row = {
  name: "exits",
  meaning:
    "A guest's access to an emulated register, there and back, in nanoseconds by the guest's own clock. The C " +
    "loop does nothing with the " +
    "exit: what is above it is the VMM's share, and where it alone takes more than half of QEMU's time, the first " +
    "aim cannot be reached. " +
    "QEMU's and tsvmm's guests use the same devices: the UART's scratch register and the first register of a " +
    "virtio RNG. tsvmm needs a " +
    "second processor for its device thread while the guest runs: on a busy host this row says how busy.",
  missing: missingKvm,
  async run(context) {
    const vmms = { tsvmm: tsvmm(context.entry), ...(hasQemu() ? { "QEMU microvm": qemu("microvm") } : {}) };
    const floor = buildFloor(context.folder);
    const bare = join(context.folder, "exits-bare.elf");
    writeFileSync(bare, exitsGuest(SHAPE, NOWHERE));
    const contenders: Record<string, Measure<ExitName>> = {
      ...measures(context, vmms),
      ...(floor === undefined
        ? {}
        : { [FLOOR]: async () => perExit(intervals((await run([floor, "guest", bare])).lines)) }),
    };
    const samples = await interleave(context, contenders);
    for (const kind of EXITS) {
      context.add(judged(compare(samples, "tsvmm", kind, { what: `exit, ${kind}`, unit: "ns" })));
    }
    if (floor === undefined) return;
    const shares = aboveFloor(samples);
    for (const kind of EXITS) {
      context.add(compare(shares, "tsvmm", kind, { what: `above the C loop, ${kind}`, unit: "ns" }));
    }
  },
};

export const exitsOneCore: Row = {
  name: "exits-one-core",
  meaning:
    "The same with the whole VMM on one processor: every access needs two switches of threads, since the vCPU " +
    "thread and the device " +
    "thread share it. QEMU answers in the vCPU's thread and so loses nothing.",
  missing: () => missingKvm(),
  async run(context) {
    const samples = await interleave(
      context,
      measures(context, {
        tsvmm: onOneCore(tsvmm(context.entry)),
        ...(hasQemu() ? { "QEMU microvm": onOneCore(qemu("microvm")) } : {}),
      }),
    );
    for (const kind of EXITS) {
      context.add(compare(samples, "tsvmm", kind, { what: `exit on one core, ${kind}`, unit: "ns" }));
    }
  },
};
