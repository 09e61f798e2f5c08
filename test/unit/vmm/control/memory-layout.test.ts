import t from "tap";
import { Bus } from "../../../../src/base/bus.ts";
import { placeBars } from "../../../../src/pci/bar-placement.ts";
import type { BarRequest } from "../../../../src/pci/function.ts";
import { type CpuAddresses, layoutMemory } from "../../../../src/vmm/control/memory-layout.ts";
import { intxGsi } from "../../../../src/vmm/shared/memory-map.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

const intel = (bits: number): CpuAddresses => ({ bits, isAmd: false });
const amd = (bits: number): CpuAddresses => ({ bits, isAmd: true });

t.test("layoutMemory() keeps RAM up to 3 GiB in one piece and puts the 64-bit window at 4 GiB", async (t) => {
  const layout = layoutMemory(512 * MIB, intel(46));
  t.same(layout.ram, [{ gpa: 0, sizeBytes: 512 * MIB, fileOffset: 0 }]);
  t.same(layout.pciWindow32, { base: 0xc000_0000, sizeBytes: 0x2800_0000 });
  t.equal(layout.pciWindows64[0]?.base, 4 * GIB);
});

t.test("layoutMemory() splits larger RAM at 3 GiB and goes on at 4 GiB", async (t) => {
  const layout = layoutMemory(16 * GIB, intel(46));
  t.same(layout.ram, [
    { gpa: 0, sizeBytes: 3 * GIB, fileOffset: 0 },
    { gpa: 4 * GIB, sizeBytes: 13 * GIB, fileOffset: 3 * GIB },
  ]);
  t.equal(layout.pciWindows64[0]?.base, 20 * GIB);
});

t.test("layoutMemory() gives all that is free above RAM to 64-bit BARs, up to where the CPU ends", async (t) => {
  t.same(layoutMemory(GIB, intel(46)).pciWindows64, [{ base: 4 * GIB, sizeBytes: 2 ** 46 - 4 * GIB }]);
  t.same(layoutMemory(GIB, intel(36)).pciWindows64, [{ base: 4 * GIB, sizeBytes: 2 ** 36 - 4 * GIB }]);
  t.same(layoutMemory(600 * GIB, intel(46)).pciWindows64, [{ base: 604 * GIB, sizeBytes: 2 ** 46 - 604 * GIB }]);
  t.same(layoutMemory(63 * GIB, intel(36)).pciWindows64, [], "nothing is left");
});

/** VT-d with 39 bits, as vfio_iommu_type1 reports it: everything but the MSI doorbell. */
const INTEL_39 = [
  { start: 0, end: 0xfedf_ffff },
  { start: 0xfef0_0000, end: 0x7f_ffff_ffff },
];

const endOf = (region: { gpa: number; sizeBytes: number } | undefined): number =>
  (region?.gpa ?? 0) + (region?.sizeBytes ?? 0);

t.test("layoutMemory() places RAM and the 64-bit window inside what the IOMMU translates", async (t) => {
  const layout = layoutMemory(16 * GIB, intel(46), INTEL_39);
  t.same(layout.ram, layoutMemory(16 * GIB, intel(46)).ram, "nothing is in the way of RAM here");
  t.same(
    layout.pciWindows64,
    [
      { base: 20 * GIB, sizeBytes: 2 ** 39 - 20 * GIB },
      { base: 2 ** 39, sizeBytes: 2 ** 46 - 2 ** 39 },
    ],
    "addresses outside the IOMMU's reach come last",
  );
  const wide = layoutMemory(16 * GIB, intel(46), [{ start: 0, end: Number.MAX_SAFE_INTEGER }]);
  t.same(wide.pciWindows64, [{ base: 20 * GIB, sizeBytes: 2 ** 46 - 20 * GIB }]);
});

t.test("layoutMemory() leaves a hole in low RAM where firmware reserved a region, and goes on above it", async (t) => {
  const reserved = [
    { start: 0, end: 0x7b7f_ffff }, // a graphics region at 0x7b80_0000 to 0x7fff_ffff, as RMRRs are
    { start: 0x8000_0000, end: 0xfedf_ffff },
    { start: 0xfef0_0000, end: 0x7f_ffff_ffff },
  ];
  const { ram, map } = layoutMemory(4 * GIB, intel(46), reserved);
  t.same(ram, [
    { gpa: 0, sizeBytes: 0x7b80_0000, fileOffset: 0 },
    { gpa: 0x8000_0000, sizeBytes: 0x4000_0000, fileOffset: 0x7b80_0000 },
    { gpa: 4 * GIB, sizeBytes: 0x4480_0000, fileOffset: 0xbb80_0000 },
  ]);
  t.equal(
    ram.reduce((sum, region) => sum + region.sizeBytes, 0),
    4 * GIB,
  );
  const told = map.filter((entry) => entry.kind === "ram");
  t.notOk(
    told.some((entry) => entry.address < 0x8000_0000 && entry.address + entry.sizeBytes > 0x7b80_0000),
    "the guest is not told of RAM in the hole",
  );
});

t.test("layoutMemory() cuts RAM at multiples of 2 MiB around a small reserved region", async (t) => {
  const reserved = [
    { start: 0, end: 0x1234_5fff },
    { start: 0x1234_7000, end: 0xff_ffff_ffff },
  ];
  const { ram } = layoutMemory(GIB, intel(46), reserved);
  t.same(
    ram.map((region) => [region.gpa, endOf(region)]),
    [
      [0, 0x1220_0000],
      [0x1240_0000, GIB + 0x20_0000],
    ],
  );
});

t.test("layoutMemory() cuts RAM of huge pages at multiples of one", async (t) => {
  const reserved = [
    { start: 0, end: 0x7b7f_ffff },
    { start: 0x8000_0000, end: 0xfedf_ffff },
    { start: 0xfef0_0000, end: 0x7f_ffff_ffff },
  ];
  const { ram } = layoutMemory(4 * GIB, intel(46), reserved, GIB);
  t.same(
    ram.map((region) => [region.gpa, endOf(region), region.fileOffset]),
    [
      [0, GIB, 0],
      [2 * GIB, 3 * GIB, GIB],
      [4 * GIB, 6 * GIB, 2 * GIB],
    ],
  );
});

const TERABYTE = 1024 * GIB;

t.test("layoutMemory() skips AMD's HyperTransport addresses with RAM and windows", async (t) => {
  for (const iova of [undefined, [{ start: 0, end: 2 ** 48 - 1 }]]) {
    const { ram, pciWindows64 } = layoutMemory(TERABYTE, amd(48), iova);
    t.same(
      ram.map((region) => [region.gpa, endOf(region)]),
      [
        [0, 3 * GIB],
        [4 * GIB, 0xfd_0000_0000],
        [0x100_0000_0000, 0x100_0000_0000 + 13 * GIB],
      ],
    );
    t.same(pciWindows64, [{ base: 0x104_0000_0000, sizeBytes: 2 ** 48 - 0x104_0000_0000 }]);
    t.same(
      layoutMemory(1000 * GIB, amd(48), iova).pciWindows64,
      [
        { base: 0xfb_0000_0000, sizeBytes: 8 * GIB },
        { base: 0x100_0000_0000, sizeBytes: 2 ** 48 - 2 ** 40 },
      ],
      "what is left below the hole, and all above it",
    );
    t.same(layoutMemory(1010 * GIB, amd(48), iova).pciWindows64, [{ base: 2 ** 40, sizeBytes: 2 ** 48 - 2 ** 40 }]);
  }
});

t.test("layoutMemory() knows no HyperTransport on Intel: RAM and windows go through", async (t) => {
  const { ram, pciWindows64 } = layoutMemory(TERABYTE, intel(46));
  t.same(
    ram.map((region) => [region.gpa, endOf(region)]),
    [
      [0, 3 * GIB],
      [4 * GIB, TERABYTE + GIB],
    ],
  );
  t.same(pciWindows64, [{ base: TERABYTE + 4 * GIB, sizeBytes: 2 ** 46 - TERABYTE - 4 * GIB }]);
});

t.test("layoutMemory() leaves room for the BARs of accelerators, whatever RAM they are with", async (t) => {
  const cases = [
    { ramGib: 8, count: 8, barGib: 128 },
    { ramGib: 512, count: 8, barGib: 128 },
    { ramGib: 512, count: 8, barGib: 64 },
    { ramGib: 512, count: 1, barGib: 256 },
    { ramGib: 64, count: 4, barGib: 256 },
    { ramGib: 600, count: 1, barGib: 256 },
    { ramGib: 700, count: 1, barGib: 256 },
    { ramGib: 2048, count: 8, barGib: 256 },
  ];
  for (const { ramGib, count, barGib } of cases) {
    for (const cpu of [46, 48, 52].flatMap((bits) => [intel(bits), amd(bits)])) {
      const iova = [
        { start: 0, end: 0xfedf_ffff },
        { start: 0xfef0_0000, end: 2 ** cpu.bits - 1 },
      ];
      const { ram, pciWindows64 } = layoutMemory(ramGib * GIB, cpu, iova);
      const request: BarRequest = { kind: "mem64", index: 0, sizeBytes: barGib * GIB, isPrefetchable: true };
      const wishes = Array.from({ length: count }, () => ({ request }));
      const windows = { ports: [], memory32: [], memory64: pciWindows64 };
      const placed = placeBars(wishes, windows, { ports: new Bus("port"), mmio: new Bus("MMIO") });
      const host = `${cpu.isAmd ? "AMD" : "Intel"}, ${cpu.bits} bits`;
      const name = `${count} × ${barGib} GiB with ${ramGib} GiB of RAM: ${host}`;
      const taken = [
        ...ram.map((region) => ({ start: region.gpa, end: endOf(region) })),
        ...(cpu.isAmd ? [{ start: 0xfd_0000_0000, end: 0x100_0000_0000 }] : []),
      ];
      for (const { address = Number.NaN } of placed) {
        const end = address + barGib * GIB;
        const isFree = taken.every((other) => end <= other.start || other.end <= address);
        if (!(address % (barGib * GIB) === 0 && end <= 2 ** cpu.bits && isFree)) t.fail(`${name}: ${address}`);
        taken.push({ start: address, end });
      }
      t.equal(placed.length, count, name);
    }
  }
});

t.test("layoutMemory() says what the IOMMU translates when the RAM does not fit that", async (t) => {
  t.throws(
    () => layoutMemory(600 * GIB, intel(46), INTEL_39),
    /memory.sizeBytes: 614400 MiB do not fit: .*IOMMU translates 0x0-0xfedfffff, 0xfef00000-0x7fffffffff/,
  );
  t.throws(
    () => layoutMemory(GIB, intel(46), [{ start: 0x100_0000, end: 0x7f_ffff_ffff }]),
    /Cannot give the guest RAM at address 0: the IOMMU translates 0x1000000-0x7fffffffff only/,
  );
});

t.test("layoutMemory() keeps 64-bit windows outside the IOMMU's reach rather than none", async (t) => {
  const layout = layoutMemory(GIB, intel(46), [{ start: 0, end: 0xffff_ffff }]);
  t.same(layout.pciWindows64, [{ base: 4 * GIB, sizeBytes: 2 ** 46 - 4 * GIB }]);
});

t.test("layoutMemory() refuses RAM that the CPU cannot address", async (t) => {
  t.throws(() => layoutMemory(80 * GIB, intel(36)), /36 physical address bits/);
});

t.test("layoutMemory() reports RAM without the legacy hole, and no entry overlaps another", async (t) => {
  const { map } = layoutMemory(4 * GIB, intel(40));
  const sorted = [...map].sort((a, b) => a.address - b.address);
  for (const [index, entry] of sorted.entries()) {
    const next = sorted[index + 1];
    if (next !== undefined)
      t.ok(entry.address + entry.sizeBytes <= next.address, `${entry.address} ends before ${next.address}`);
  }
  const ram = map.filter((entry) => entry.kind === "ram").reduce((sum, entry) => sum + entry.sizeBytes, 0);
  t.equal(ram, 4 * GIB - (0x10_0000 - 0xa_0000));
  t.ok(
    map.some((entry) => entry.kind === "reserved" && entry.address === 0xe800_0000),
    "ECAM is reserved",
  );
});

t.test("intxGsi() spreads slots and pins over I/O APIC pins 16 to 23", async (t) => {
  t.equal(intxGsi(0, 1), 16);
  t.equal(intxGsi(3, 1), 19);
  t.equal(intxGsi(3, 4), 22);
  t.equal(intxGsi(31, 4), 18);
});
