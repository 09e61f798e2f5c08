import t from "tap";
import { layoutMemory } from "../../../../src/vmm/control/memory-layout.ts";
import { intxGsi } from "../../../../src/vmm/shared/memory-map.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

t.test("layoutMemory() keeps RAM up to 3 GiB in one piece and puts the 64-bit window at 4 GiB", async (t) => {
  const layout = layoutMemory(512 * MIB, 46);
  t.same(layout.ram, [{ gpa: 0, sizeBytes: 512 * MIB, fileOffset: 0 }]);
  t.same(layout.pciWindow32, { base: 0xc000_0000, sizeBytes: 0x2800_0000 });
  t.equal(layout.pciWindow64?.base, 4 * GIB);
});

t.test("layoutMemory() splits larger RAM at 3 GiB and goes on at 4 GiB", async (t) => {
  const layout = layoutMemory(16 * GIB, 46);
  t.same(layout.ram, [
    { gpa: 0, sizeBytes: 3 * GIB, fileOffset: 0 },
    { gpa: 4 * GIB, sizeBytes: 13 * GIB, fileOffset: 3 * GIB },
  ]);
  t.equal(layout.pciWindow64?.base, 20 * GIB);
});

t.test("layoutMemory() ends the 64-bit window where a 39-bit IOMMU ends, or where the CPU does", async (t) => {
  const end = (window: { base: number; sizeBytes: number } | undefined): number =>
    (window?.base ?? 0) + (window?.sizeBytes ?? 0);
  t.equal(end(layoutMemory(GIB, 46).pciWindow64), 2 ** 39);
  t.equal(end(layoutMemory(GIB, 36).pciWindow64), 2 ** 36);
  t.equal(end(layoutMemory(600 * GIB, 46).pciWindow64), 0xfd_0000_0000, "RAM beyond 39 bits leaves no choice");
});

/** VT-d with 39 bits, as vfio_iommu_type1 reports it: everything but the MSI doorbell. */
const INTEL_39 = [
  { start: 0, end: 0xfedf_ffff },
  { start: 0xfef0_0000, end: 0x7f_ffff_ffff },
];

const endOf = (region: { gpa: number; sizeBytes: number } | undefined): number =>
  (region?.gpa ?? 0) + (region?.sizeBytes ?? 0);

t.test("layoutMemory() places RAM and the 64-bit window inside what the IOMMU translates", async (t) => {
  const layout = layoutMemory(16 * GIB, 46, INTEL_39);
  t.same(layout.ram, layoutMemory(16 * GIB, 46).ram, "nothing is in the way of RAM here");
  t.same(layout.pciWindow64, { base: 20 * GIB, sizeBytes: 2 ** 39 - 20 * GIB });
  const wide = layoutMemory(16 * GIB, 46, [{ start: 0, end: Number.MAX_SAFE_INTEGER }]);
  t.same(wide.pciWindow64, { base: 20 * GIB, sizeBytes: 0xfd_0000_0000 - 20 * GIB }, "no guess of 39 bits is needed");
});

t.test("layoutMemory() leaves a hole in low RAM where firmware reserved a region, and goes on above it", async (t) => {
  const reserved = [
    { start: 0, end: 0x7b7f_ffff }, // a graphics region at 0x7b80_0000 to 0x7fff_ffff, as RMRRs are
    { start: 0x8000_0000, end: 0xfedf_ffff },
    { start: 0xfef0_0000, end: 0x7f_ffff_ffff },
  ];
  const { ram, map } = layoutMemory(4 * GIB, 46, reserved);
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
  const { ram } = layoutMemory(GIB, 46, reserved);
  t.same(
    ram.map((region) => [region.gpa, endOf(region)]),
    [
      [0, 0x1220_0000],
      [0x1240_0000, GIB + 0x20_0000],
    ],
  );
});

t.test("layoutMemory() skips AMD's HyperTransport addresses with RAM and window", async (t) => {
  const terabyte = 1024 * GIB;
  for (const iova of [undefined, [{ start: 0, end: 2 ** 48 - 1 }]]) {
    const { ram, pciWindow64 } = layoutMemory(terabyte, 48, iova);
    t.same(
      ram.map((region) => [region.gpa, endOf(region)]),
      [
        [0, 3 * GIB],
        [4 * GIB, 0xfd_0000_0000],
        [0x100_0000_0000, 0x100_0000_0000 + 13 * GIB],
      ],
    );
    t.same(pciWindow64, { base: 0x104_0000_0000, sizeBytes: 2 ** 48 - 0x104_0000_0000 });
    const below = layoutMemory(1000 * GIB, 48, iova);
    t.same(
      below.pciWindow64?.base,
      0x100_0000_0000,
      "8 GiB are left below the hole: the window goes above it, not through it",
    );
  }
});

t.test("layoutMemory() says what the IOMMU translates when the RAM does not fit that", async (t) => {
  t.throws(
    () => layoutMemory(600 * GIB, 46, INTEL_39),
    /memory.sizeBytes: 614400 MiB do not fit: .*IOMMU translates 0x0-0xfedfffff, 0xfef00000-0x7fffffffff/,
  );
  t.throws(
    () => layoutMemory(GIB, 46, [{ start: 0x100_0000, end: 0x7f_ffff_ffff }]),
    /Cannot give the guest RAM at address 0: the IOMMU translates 0x1000000-0x7fffffffff only/,
  );
});

t.test("layoutMemory() keeps a 64-bit window outside the IOMMU's reach rather than none", async (t) => {
  const layout = layoutMemory(GIB, 46, [{ start: 0, end: 0xffff_ffff }]);
  t.same(layout.pciWindow64, { base: 4 * GIB, sizeBytes: 2 ** 39 - 4 * GIB });
});

t.test("layoutMemory() refuses RAM that the CPU cannot address", async (t) => {
  t.throws(() => layoutMemory(80 * GIB, 36), /36 physical address bits/);
});

t.test("layoutMemory() reports RAM without the legacy hole, and no entry overlaps another", async (t) => {
  const { map } = layoutMemory(4 * GIB, 40);
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
