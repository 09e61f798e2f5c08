import type { Width } from "../../../src/base/units.ts";
import type { Random } from "../engine/random.ts";
import type { Image, Operation, Segment } from "./operations.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const WIDTHS: readonly Width[] = [1, 2, 4];

/** Numbers that are the edge of something: of widths, of RAM, of what JavaScript counts. */
const EDGES: readonly number[] = [
  ...[0, 1, 0xff, 0x200, 0xfff, 0x1000, 0x6000, 0x7000, 0x9_ffff, 0xa_0000, 0xe_0000, 0xf_ffff, 0x10_0000],
  ...[0x100_0000, 0x7fff_ffff, 0x8000_0000, 0xc000_0000, 0xbfff_ffff, 0xffff_f000, 0xffff_ffff, 2 ** 32],
  ...[2 ** 32 + MIB, 2 ** 52, 2 ** 53 - 1, 2 ** 53, 2 ** 63],
];

export function generate(random: Random, count: number): readonly Operation[] {
  return Array.from({ length: count }, () => operation(random));
}

function operation(random: Random): Operation {
  const image = anyImage(random);
  const patches = Array.from({ length: random.pick([0, 0, 0, 0, 1, 2, 4]) }, () => patch(random, image));
  const cuts = random.chance(8) ? { fileBytes: fileBytes(random) } : {};
  const initramfs = random.chance(60)
    ? { initramfsBytes: random.pick([0, 1, 4096, 4097, 4097, MIB, MIB, 16 * MIB, 40 * MIB, 3 * GIB, 5 * GIB]) }
    : {};
  return {
    image,
    patches,
    ...cuts,
    cmdlineBytes: random.chance(80)
      ? random.below(254)
      : random.pick([254, 255, 256, 257, 2046, 2047, 2048, 65_500, 65_535, 65_536, 70_000]),
    ...initramfs,
    memoryBytes: (random.chance(2) ? 1_048_576 : random.pick([16, 64, 64, 512, 3072, 4096, 8192, 8192])) * MIB,
    addressBits: random.pick([36, 39, 40, 46, 48]),
  };
}

function fileBytes(random: Random): number {
  return random.pick([random.below(100), random.below(0x400), random.below(0x3000), 2 ** 31, 2 ** 40, 2 ** 53 - 1]);
}

function anyImage(random: Random): Image {
  switch (random.below(4)) {
    case 0:
      return linux(random);
    case 1:
      return flat(random);
    default:
      return elf(random);
  }
}

/** An address where a kernel would be, or an edge. */
function address(random: Random): number {
  if (random.chance(10)) return random.pick(EDGES);
  return random.pick([MIB, 2 * MIB, 16 * MIB, 0x20_0000 + 4096 * random.below(4096), 4 * GIB + MIB * random.below(64)]);
}

function size(random: Random): number {
  return random.pick([0, 1, 12, 64, 4096, random.below(8192)]);
}

function elf(random: Random): Image {
  const kind = random.pick(["elf32", "elf64"] as const);
  const limit = kind === "elf32" ? 2 ** 32 : 2 ** 64;
  const clip = (value: number): number => value % limit;
  const count = random.chance(4) ? 0 : random.pick([1, 1, 1, 2, 2, 3, random.below(12)]);
  const loads: Segment[] = Array.from({ length: count }, () => {
    const sizeBytes = size(random);
    const more = random.pick([0, 0, 0, 1, 4096, 4096, 65_536, MIB, random.pick(EDGES)]);
    return {
      ...{ type: random.chance(95) ? 1 : random.below(8), address: clip(address(random)), sizeBytes },
      memoryBytes: clip(random.chance(97) ? sizeBytes + more : more),
    };
  });
  const home = loads[0];
  const entry = home === undefined || random.chance(8) ? clip(address(random)) : home.address;
  const isPvh = random.chance(60);
  const note: Segment = {
    ...{ type: random.chance(95) ? 4 : 1, address: clip(address(random)), sizeBytes: 0, memoryBytes: 32 },
    ...{ align: random.pick([4, 4, 8, 1]) },
    pvh: { entry: entry % 2 ** 32, width: random.pick([4, 8]) },
  };
  return {
    ...{ kind, entry },
    segments: isPvh ? [...loads, note] : loads,
    ...(random.chance(isPvh ? 20 : 80)
      ? { multiboot: random.chance(92) ? random.below(8) : random.pick([8, 0x1_0000]) }
      : {}),
  };
}

function linux(random: Random): Image {
  return {
    kind: "bzImage",
    version: random.pick([0x020f, 0x020f, 0x020f, 0x0206, 0x0205, 0x0204, 0x0203, 0x020a, 0x0209, 0x0200]),
    setupSects: random.pick([0, 1, 3, 3, 27, 255]),
    codeBytes: random.pick([0, 1, 16, 4096, 4097, 4098, random.below(20_000)]),
    loadflags: random.chance(5) ? 0 : random.pick([1, 1, 0x81, 0xff]),
    code32Start: (random.chance(70) ? MIB * random.pick([1, 1, 1, 1 + random.below(48)]) : address(random)) % 2 ** 32,
    initrdAddrMax: random.pick([0x7fff_ffff, 0x7fff_ffff, 0x37ff_ffff, 0xffff_ffff, random.pick([0, MIB, 20 * MIB])]),
    cmdlineSize: random.pick([2047, 2047, 2047, 255, 0, 0xffff_ffff, 65_536]),
    prefAddress: random.chance(70) ? 16 * MIB : address(random),
    alignment: random.pick([0x20_0000, 0x100_0000, 0x1000, 0, 3]),
    relocatable: random.pick([0, 1, 1]),
    initSize: random.pick([MIB, MIB, 0, 40 * MIB, random.below(2 ** 28), 0xffff_ffff]),
  };
}

function flat(random: Random): Image {
  const sizeBytes = 64 + random.pick([4096, 4096, random.below(16_384)]);
  const headerAt = 4 * random.below(Math.min(2048, sizeBytes / 4 - 12));
  const load = address(random) % 2 ** 32;
  const near = (value: number): number => (random.chance(95) ? value : random.pick(EDGES)) % 2 ** 32;
  return {
    kind: "multiboot",
    flags: random.chance(92) ? random.pick([0x1_0000, 0x1_0003, 0x1_0004]) : random.pick([0, 0x1_0008, 0xffff_ffff]),
    addresses: [
      near(load + headerAt),
      near(load),
      near(random.pick([0, load + sizeBytes, load + 1])),
      near(random.pick([0, load + sizeBytes + MIB, load])),
      near(load),
    ],
    ...{ headerAt, sizeBytes },
  };
}

/** Damage where the format's fields are. */
function patch(random: Random, image: Image): readonly [at: number, width: Width, value: number] {
  const width = random.pick(WIDTHS);
  const value = (random.chance(70) ? random.pick(EDGES) : random.u32()) % 2 ** (8 * width);
  const headers = image.kind === "bzImage" ? 0x1f0 + random.below(0xa0) : random.below(64 + 56 * 4);
  return [random.chance(85) ? headers : random.below(0x2000), width, value];
}
