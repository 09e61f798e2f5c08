import t from "tap";
import { withRom } from "../../../src/passthrough/rom.ts";
import { FakeDeviceBackend } from "../../support/fake-device-backend.ts";
import { E1000E, NVME } from "../../support/fake-devices.ts";
import { PassthroughBench } from "../../support/fake-passthrough-host.ts";

const ROM = 6;

t.test("withRom() leaves a device its own ROM without another", async (t) => {
  const device = new FakeDeviceBackend(E1000E);
  t.equal(withRom(device, undefined), device);
});

t.test("withRom() takes a device's ROM away, and nothing else", async (t) => {
  const device = new FakeDeviceBackend(E1000E);
  const without = withRom(device, "none");
  t.equal(device.region(ROM)?.sizeBytes, 0x4_0000);
  t.equal(without.region(ROM), undefined);
  t.equal(without.readRegion(ROM, 0, 4), undefined);
  t.same(without.region(0), device.region(0));
  t.equal(without.readRegion(7, 0, 4), 0x10d3_8086);
  without.close();
  t.ok(device.isClosed);
});

t.test("withRom() shows an image, grown to a power of two, to a device without a ROM too", async (t) => {
  const image = Buffer.concat([Buffer.from([0x55, 0xaa, 0x08]), Buffer.alloc(4096)]);
  const device = withRom(new FakeDeviceBackend(NVME), image);
  t.match(device.region(ROM), { index: ROM, sizeBytes: 8192, isReadable: true, isWritable: false, mappableAreas: [] });
  t.equal(device.readRegion(ROM, 0, 4), 0x0008_aa55);
  t.equal(device.readRegion(ROM, 1, 2), 0x08aa);
  t.equal(device.readRegion(ROM, 4099, 1), 0xff, "erased flash behind the image");
  t.equal(device.readRegion(ROM, 8190, 4), undefined, "not beyond the region");
  t.equal(device.writeRegion(ROM, 0, 1, 0), false);
  t.equal(device.readRegion(ROM, 0, 1), 0x55);
});

const ROM_ENABLE = 1;
const MEMORY = 2;

/** A card with a ROM of 256 KiB, decoded by the guest. */
function decoded(rom: "decoded" | "not yet" = "decoded", bars: "map" | "trap" = "map"): PassthroughBench {
  const bench = new PassthroughBench(E1000E, { bars });
  const bytes = bench.backend.memory.get(ROM);
  for (let at = 0; at < 0x4_0000; at += 4) bytes?.setUint32(at, 0x1_0000 + at, true);
  bench.host.takeLog();
  bench.write(0x04, 2, MEMORY);
  if (rom === "decoded") bench.write(0x30, 4, bench.read(0x30, 4) | ROM_ENABLE);
  return bench;
}
const romReads = (bench: PassthroughBench): readonly string[] =>
  bench.host.log.filter((line) => line.startsWith("read region 6"));

t.test("PassthroughFunction reads a ROM of 256 KiB in one call, at the guest's first decode", async (t) => {
  const bench = decoded("not yet");
  t.same(romReads(bench), []);
  const register = bench.read(0x30, 4);
  bench.write(0x30, 4, register | ROM_ENABLE);
  t.same(romReads(bench), ["read region 6 262144 bytes"]);
  const slot = `read-only slot expansion ROM of 0000:06:00.0 at 0x${register.toString(16)}+0x40000`;
  t.ok(bench.host.log.includes(slot), slot);
  t.equal(bench.host.mmio.read(register + 0x3fffc, 4), 0x4_fffc, "a trapped read has the same");
  bench.write(0x30, 4, register);
  bench.write(0x30, 4, register | ROM_ENABLE);
  t.equal(romReads(bench).length, 1, "a second decode reads nothing");
  bench.root.reset();
  bench.root.close();
  t.same([...bench.host.memories], [], "the copy is given back");
});

t.test("PassthroughFunction answers every read of a trapped ROM from its copy", async (t) => {
  const bench = decoded("decoded", "trap");
  const base = (bench.read(0x30, 4) & 0xffff_f800) >>> 0;
  t.notOk(bench.host.log.some((line) => line.includes("slot")));
  for (let at = 0; at < 0x4_0000; at += 0x1000) t.equal(bench.host.mmio.read(base + at, 4), 0x1_0000 + at);
  t.same(bench.host.mmio.readWide(base), { low: 0x1_0000, high: 0x1_0004 });
  bench.host.mmio.write(base, 4, 0);
  t.equal(bench.host.mmio.read(base, 4), 0x1_0000);
  t.equal(romReads(bench).length, 1);
});

t.test(
  "PassthroughFunction says once what a device does not give of its ROM, and asks a silent one again",
  async (t) => {
    const short = new PassthroughBench({
      ...E1000E,
      regions: E1000E.regions.map((region) => (region.index === ROM ? { ...region, sizeBytes: 0x1000 } : region)),
    });
    const bytes = { given: 0 };
    short.backend.readBytes = () => bytes.given;
    short.write(0x04, 2, MEMORY);
    const register = short.read(0x30, 4);
    short.write(0x30, 4, register | ROM_ENABLE);
    t.match(short.host.reports, [/Cannot read the expansion ROM of 0000:06:00.0: it gives 0 of 4096 bytes/]);
    t.equal(short.host.mmio.read(register, 4), 0xffff_ffff);
    bytes.given = 0x1000;
    short.write(0x30, 4, register);
    short.write(0x30, 4, register | ROM_ENABLE);
    t.equal(short.function.summary().bars.find(({ kind }) => kind === "rom")?.slotBytes, 0x1000);
  },
);
