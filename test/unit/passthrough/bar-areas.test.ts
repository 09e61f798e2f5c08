import t from "tap";
import type { RegionArea, RegionInfo } from "../../../src/passthrough/backend.ts";
import { type BarHole, planBar } from "../../../src/passthrough/bar-areas.ts";

const MAP = { bars: "map", isExcluded: false } as const;

function region(sizeBytes: number, mappableAreas: readonly RegionArea[] = [{ offset: 0, sizeBytes }]): RegionInfo {
  return { index: 0, sizeBytes, isReadable: true, isWritable: true, mappableAreas, isMsixMappable: true };
}

const table = (offset: number, vectors: number): BarHole => ({
  offset,
  sizeBytes: 16 * vectors,
  reason: "MSI-X table",
});
const pending = (offset: number, vectors: number): BarHole => ({
  offset,
  sizeBytes: 8 * Math.ceil(vectors / 64),
  reason: "MSI-X pending bits",
});

t.test("planBar() maps a BAR without MSI-X structures whole", async (t) => {
  t.same(planBar(region(0x10_0000), [], MAP), { mapped: [{ offset: 0, sizeBytes: 0x10_0000 }], trapped: [] });
});

t.test("planBar() leaves the pages of an aligned table and of the pending bits out", async (t) => {
  t.same(planBar(region(0x4000), [table(0x2000, 65), pending(0x3000, 65)], MAP), {
    mapped: [{ offset: 0, sizeBytes: 0x2000 }],
    trapped: [
      { offset: 0x2000, sizeBytes: 0x1000, reason: "MSI-X table" },
      { offset: 0x3000, sizeBytes: 0x1000, reason: "MSI-X pending bits" },
    ],
  });
});

t.test("planBar() rounds holes outwards to pages when table and pending bits are not aligned", async (t) => {
  // KIOXIA CD8P: 129 entries at 0x5200 end at 0x5a10, 24 bytes at 0xd600.
  t.same(planBar(region(0x1_0000), [table(0x5200, 129), pending(0xd600, 129)], MAP), {
    mapped: [
      { offset: 0, sizeBytes: 0x5000 },
      { offset: 0x6000, sizeBytes: 0x7000 },
      { offset: 0xe000, sizeBytes: 0x2000 },
    ],
    trapped: [
      { offset: 0x5000, sizeBytes: 0x1000, reason: "MSI-X table" },
      { offset: 0xd000, sizeBytes: 0x1000, reason: "MSI-X pending bits" },
    ],
  });
});

t.test("planBar() maps every sparse area and still leaves the pending bits out of one", async (t) => {
  const sparse = [
    { offset: 0, sizeBytes: 0x4000 },
    { offset: 0x7000, sizeBytes: 0x1000 },
  ];
  t.same(planBar(region(0x8000, sparse), [table(0x4000, 513), pending(0x3000, 513)], MAP), {
    mapped: [
      { offset: 0, sizeBytes: 0x3000 },
      { offset: 0x7000, sizeBytes: 0x1000 },
    ],
    trapped: [
      { offset: 0x3000, sizeBytes: 0x1000, reason: "MSI-X pending bits" },
      { offset: 0x4000, sizeBytes: 0x3000, reason: "MSI-X table" },
    ],
  });
});

t.test("planBar() maps whole pages of an unaligned sparse area only", async (t) => {
  t.same(planBar(region(0x4000, [{ offset: 0x800, sizeBytes: 0x2000 }]), [], MAP), {
    mapped: [{ offset: 0x1000, sizeBytes: 0x1000 }],
    trapped: [
      { offset: 0, sizeBytes: 0x800, reason: "the host does not map it" },
      { offset: 0x800, sizeBytes: 0x800, reason: "not a whole page" },
      { offset: 0x2000, sizeBytes: 0x800, reason: "not a whole page" },
      { offset: 0x2800, sizeBytes: 0x1800, reason: "the host does not map it" },
    ],
  });
});

t.test("planBar() maps a BAR shorter than a page, unless MSI-X structures are in it", async (t) => {
  t.same(planBar(region(0x100), [], MAP), { mapped: [{ offset: 0, sizeBytes: 0x100 }], trapped: [] });
  t.same(planBar(region(0x100), [table(0x80, 2)], MAP), {
    mapped: [],
    trapped: [{ offset: 0, sizeBytes: 0x100, reason: "MSI-X table" }],
  });
});

t.test("planBar() traps a BAR whole when the user or the host wants it so", async (t) => {
  const reasonOf = (plan: ReturnType<typeof planBar>): unknown => [
    plan.mapped,
    plan.trapped.map((area) => area.reason),
  ];
  t.same(reasonOf(planBar(region(0x4000), [], { bars: "trap", isExcluded: false })), [[], ["bars=trap"]]);
  t.same(reasonOf(planBar(region(0x4000), [], { bars: "map", isExcluded: true })), [[], ["excluded by the user"]]);
  t.same(reasonOf(planBar(region(0x4000, []), [], MAP)), [[], ["the host does not map it"]]);
  t.same(planBar(region(0), [], MAP), { mapped: [], trapped: [] });
});
