import t from "tap";
import { Bus } from "../../../src/base/bus.ts";
import { type AddressRange, isInside, placeBars } from "../../../src/pci/bar-placement.ts";
import type { BarRequest } from "../../../src/pci/function.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

const mem64 = (sizeBytes: number, isPrefetchable = true): BarRequest => ({
  kind: "mem64",
  index: 0,
  sizeBytes,
  isPrefetchable,
});
const mem32 = (sizeBytes: number): BarRequest => ({ kind: "mem32", index: 0, sizeBytes, isPrefetchable: false });
const range = (from: number, to: number): AddressRange => ({ base: from, sizeBytes: to - from });

/** The addresses of the requests, in their order. */
function place(
  requests: readonly BarRequest[],
  windows: { readonly memory32?: readonly AddressRange[]; readonly memory64?: readonly AddressRange[] },
): readonly (number | undefined)[] {
  const wishes = requests.map((request) => ({ request }));
  const buses = { ports: new Bus("port"), mmio: new Bus("MMIO") };
  const placed = placeBars(wishes, { ports: [], memory32: [], memory64: [], ...windows }, buses);
  return wishes.map((wish) => placed.find((one) => one.wish === wish)?.address);
}

t.test("placeBars() uses what a large BAR's alignment leaves free", async (t) => {
  const sizes = [8, 16, 32, 64, 128, 256].map((size) => size * GIB);
  const requests = sizes.map((sizeBytes) => mem64(sizeBytes));
  t.same(place(requests, { memory64: [range(4 * GIB, 512 * GIB)] }), sizes, "only the 4 GiB at the start are left");
  t.same(place([mem64(4 * GIB), ...requests], { memory64: [range(4 * GIB, 512 * GIB)] }), [4 * GIB, ...sizes]);
  t.same(place([...requests, mem64(8 * GIB)], { memory64: [range(4 * GIB, 512 * GIB)] }), [...sizes, undefined]);
});

t.test("placeBars() takes the windows in their order, and goes on in the next when one is full", async (t) => {
  const memory64 = [range(4 * GIB, 32 * GIB), range(64 * GIB, 128 * GIB)];
  const requests = [mem64(16 * GIB), mem64(16 * GIB), mem64(32 * GIB)];
  t.same(place(requests, { memory64 }), [16 * GIB, 96 * GIB, 64 * GIB]);
  t.same(place(requests, { memory64: [...memory64].reverse() }), [96 * GIB, 112 * GIB, 64 * GIB]);
});

t.test("placeBars() leaves the 32-bit window to 32-bit BARs where it is too small for all", async (t) => {
  const windows = { memory32: [range(0xc000_0000, 0xc100_0000)], memory64: [range(64 * GIB, 128 * GIB)] };
  const low = mem64(8 * MIB, false);
  t.same(place([low, mem32(4 * MIB)], windows), [0xc000_0000, 0xc080_0000], "small 64-bit BARs go there as well");
  t.same(place([low, low, mem32(4 * MIB)], windows), [0xc080_0000, 64 * GIB, 0xc000_0000]);
});

t.test("isInside() takes what touching ranges cover, in any order, and nothing with a gap", async (t) => {
  const ranges = [range(68, 128), range(66, 68), range(32, 65)];
  t.equal(isInside(ranges, 66, 62), true);
  t.equal(isInside(ranges, 67, 2), true);
  t.equal(isInside(ranges, 64, 4), false);
  t.equal(isInside(ranges, 100, 29), false);
  t.equal(isInside(ranges, 30, 4), false);
});
