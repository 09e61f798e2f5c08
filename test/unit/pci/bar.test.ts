import t from "tap";
import { BarSet } from "../../../src/pci/bar.ts";
import { ConfigSpace } from "../../../src/pci/config-space.ts";
import type { BarRequest } from "../../../src/pci/function.ts";

function barSet(requests: readonly BarRequest[]): { config: ConfigSpace; bars: BarSet } {
  const config = new ConfigSpace("dev", 256);
  return { config, bars: new BarSet(config, requests) };
}

/** What an operating system does to learn a size: ones in, what sticks out, the old value back. */
function size(config: ConfigSpace, offset: number): number {
  const old = config.read(offset, 4);
  config.write(offset, 4, 0xffff_ffff);
  const mask = config.read(offset, 4);
  config.write(offset, 4, old);
  return mask;
}

t.test("BarSet answers sizing writes with the size and the kind", async (t) => {
  const { config } = barSet([
    { kind: "io", index: 0, sizeBytes: 0x20 },
    { kind: "mem32", index: 1, sizeBytes: 0x1000, isPrefetchable: false },
    { kind: "mem64", index: 2, sizeBytes: 0x10_0000, isPrefetchable: true },
    { kind: "mem32", index: 5, sizeBytes: 16, isPrefetchable: true },
    { kind: "rom", index: 6, sizeBytes: 0x1_0000 },
  ]);
  t.equal(size(config, 0x10), 0xffff_ffe1);
  t.equal(size(config, 0x14), 0xffff_f000);
  t.equal(size(config, 0x18), 0xfff0_000c);
  t.equal(size(config, 0x1c), 0xffff_ffff);
  t.equal(size(config, 0x20), 0, "no BAR there");
  t.equal(size(config, 0x24), 0xffff_fff8);
  t.equal(size(config, 0x30), 0xffff_0001);
});

t.test("BarSet sizes 64-bit BARs of 4 GiB and more in the upper half", async (t) => {
  for (const [sizeBytes, high] of [
    [0x1_0000_0000, 0xffff_ffff],
    [0x8_0000_0000, 0xffff_fff8],
  ] as const) {
    const { config } = barSet([{ kind: "mem64", index: 0, sizeBytes, isPrefetchable: true }]);
    t.equal(size(config, 0x10), 0x0000_000c);
    t.equal(size(config, 0x14), high);
  }
});

t.test("BarSet sizes through bytes and words too", async (t) => {
  const { config } = barSet([{ kind: "mem32", index: 0, sizeBytes: 0x2000, isPrefetchable: false }]);
  for (let byte = 0; byte < 4; byte++) config.write(0x10 + byte, 1, 0xff);
  t.equal(config.read(0x10, 4), 0xffff_e000);
  config.write(0x10, 2, 0);
  config.write(0x12, 2, 0xc123);
  t.equal(config.read(0x10, 4), 0xc123_0000);
});

t.test("BarSet.moves() says where a BAR went once decode is on", async (t) => {
  const { config, bars } = barSet([
    { kind: "io", index: 0, sizeBytes: 0x20 },
    { kind: "mem64", index: 2, sizeBytes: 0x1000, isPrefetchable: false },
  ]);
  config.write(0x10, 4, 0xc041);
  config.write(0x18, 4, 0xd000_1000);
  config.write(0x1c, 4, 0x0000_0012);
  t.same(bars.moves(), [], "nothing is decoded yet");
  config.write(0x04, 2, 0x0002);
  const [memory, ...rest] = bars.moves();
  t.same(rest, [], "I/O decode is still off");
  t.same(memory?.from, { kind: "off" });
  t.same(memory?.to, { kind: "memory", base: 0x12_d000_1000 });
  if (memory !== undefined) bars.accept(memory);
  t.same(bars.moves(), []);
  t.same(bars.place(2), { kind: "memory", base: 0x12_d000_1000 });
  config.write(0x04, 2, 0x0001);
  t.same(
    bars.moves().map(({ request, from, to }) => [request.index, from.kind, to]),
    [
      [0, "off", { kind: "ports", base: 0xc040 }],
      [2, "memory", { kind: "off" }],
    ],
  );
});

t.test("BarSet decodes the expansion ROM only with its own enable bit", async (t) => {
  const { config, bars } = barSet([{ kind: "rom", index: 6, sizeBytes: 0x800 }]);
  config.write(0x04, 2, 0x0002);
  config.write(0x30, 4, 0xc000_0800);
  t.same(bars.moves(), []);
  config.write(0x30, 4, 0xc000_0801);
  t.same(bars.moves()[0]?.to, { kind: "memory", base: 0xc000_0800 });
});

t.test("BarSet knows an address no guest reaches", async (t) => {
  const { config, bars } = barSet([{ kind: "mem64", index: 0, sizeBytes: 0x1000, isPrefetchable: false }]);
  config.write(0x10, 4, 0xffff_ffff);
  config.write(0x14, 4, 0xffff_ffff);
  config.write(0x04, 2, 0x0002);
  t.same(bars.moves()[0]?.to, { kind: "beyond" });
});

t.test("BarSet.assign() writes the registers as firmware does", async (t) => {
  const high: BarRequest = { kind: "mem64", index: 0, sizeBytes: 0x4000, isPrefetchable: true };
  const rom: BarRequest = { kind: "rom", index: 6, sizeBytes: 0x1000 };
  const { config, bars } = barSet([high, rom]);
  bars.assign(high, 0x80_0000_4000);
  bars.assign(rom, 0xc000_1000);
  t.equal(config.read(0x10, 4), 0x0000_400c);
  t.equal(config.read(0x14, 4), 0x0000_0080);
  t.equal(config.read(0x30, 4), 0xc000_1000);
  t.equal(bars.address(high), 0x80_0000_4000);
});

t.test("BarSet refuses requests that no register can hold", async (t) => {
  const wrong: readonly (readonly BarRequest[])[] = [
    [{ kind: "mem32", index: 0, sizeBytes: 0x1800, isPrefetchable: false }],
    [{ kind: "mem32", index: 0, sizeBytes: 8, isPrefetchable: false }],
    [{ kind: "mem32", index: 0, sizeBytes: 0x1_0000_0000, isPrefetchable: false }],
    [{ kind: "mem64", index: 5, sizeBytes: 0x1000, isPrefetchable: false }],
    [{ kind: "mem32", index: 6, sizeBytes: 0x1000, isPrefetchable: false }],
    [{ kind: "rom", index: 6, sizeBytes: 1024 }],
    [
      { kind: "mem64", index: 0, sizeBytes: 0x1000, isPrefetchable: false },
      { kind: "io", index: 1, sizeBytes: 4 },
    ],
  ];
  for (const requests of wrong) t.throws(() => barSet(requests), RangeError);
});
