import t from "tap";
import { HostError } from "../../../src/base/errors.ts";
import { type FakeDevice, FakeDeviceBackend } from "../../support/fake-device-backend.ts";
import { E1000E, EDU, KIOXIA, NVME, SAMSUNG, SD_HOST } from "../../support/fake-devices.ts";
import { PassthroughBench } from "../../support/fake-passthrough-host.ts";
import { msixCapability, pciImage } from "../../support/pci-image.ts";

const MEMORY = 2;
const slotsOf = (log: readonly string[]): readonly string[] => log.filter((line) => line.startsWith("slot "));

t.test("PassthroughFunction asks for BARs of the device's kinds and sizes", async (t) => {
  t.same(new PassthroughBench(E1000E).function.barRequests, [
    { kind: "mem32", index: 0, sizeBytes: 0x2_0000, isPrefetchable: false },
    { kind: "mem32", index: 1, sizeBytes: 0x2_0000, isPrefetchable: false },
    { kind: "io", index: 2, sizeBytes: 0x20 },
    { kind: "mem32", index: 3, sizeBytes: 0x4000, isPrefetchable: false },
    { kind: "rom", index: 6, sizeBytes: 0x4_0000 },
  ]);
  t.same(new PassthroughBench(NVME).function.barRequests, [
    { kind: "mem64", index: 0, sizeBytes: 0x4000, isPrefetchable: false },
  ]);
});

t.test("PassthroughFunction refuses sizes that no BAR has, in one line, and closes the device", async (t) => {
  const refused: readonly (readonly [flags: number, index: number, sizeBytes: number, message: RegExp])[] = [
    [0x4, 0, 2 ** 53, /^Cannot use 0000:0a:00\.0: its BAR 0 \(mem64\) has an impossible size: 0x20000000000000 bytes/],
    [0x0, 0, 2 ** 31 + 1, /its BAR 0 \(mem32\) has an impossible size: 0x100000000 bytes, and 0x80000000 are the most/],
    [0x1, 0, 2 ** 20, /its BAR 0 \(io\) has an impossible size: 0x100000 bytes, and 0x10000 are the most/],
    [0x0, 6, 2 ** 40, /its expansion ROM has an impossible size: 0x10000000000 bytes, and 0x1000000 are the most/],
  ];
  for (const [flags, index, sizeBytes, message] of refused) {
    const device: FakeDevice = {
      name: "0000:0a:00.0",
      image: pciImage({ vendorId: 0x1234, deviceId: 1, classCode: 0x05_8000, barFlags: [flags], capabilities: [] }),
      regions: [{ index, sizeBytes }],
      interrupts: {},
    };
    const backend = new FakeDeviceBackend(device);
    t.throws(() => new PassthroughBench(backend), { name: "HostError", message });
    t.equal(backend.isClosed, true);
  }
});

t.test("PassthroughFunction lets the device decode before slots go in and until they are out", async (t) => {
  const bench = new PassthroughBench(EDU);
  const address = `0x${bench.barAddress(0).toString(16)}`;
  bench.host.takeLog();
  bench.write(0x04, 2, MEMORY);
  t.same(bench.host.takeLog(), [
    "write config 0x4/2 = 0x2",
    `slot BAR 0 of 0000:05:00.0 at ${address}+0x100000`,
    `dma BAR 0 of 0000:05:00.0 at ${address}+0x100000`,
  ]);
  bench.write(0x04, 2, 0);
  t.same(bench.host.takeLog(), [
    `no dma BAR 0 of 0000:05:00.0 at ${address}+0x100000`,
    `no slot BAR 0 of 0000:05:00.0 at ${address}+0x100000`,
    "write config 0x4/2 = 0x0",
  ]);
});

t.test("PassthroughFunction moves the slots of a BAR that the guest moves", async (t) => {
  const bench = new PassthroughBench(EDU);
  bench.write(0x04, 2, MEMORY);
  bench.host.takeLog();
  bench.write(0x10, 4, 0xc800_0000);
  const log = bench.host.takeLog();
  t.match(log[0], /^no dma/);
  t.match(log[1], /^no slot/);
  t.equal(log[2], "slot BAR 0 of 0000:05:00.0 at 0xc8000000+0x100000");
  t.equal(bench.function.summary().bars[0]?.slotBytes, 0x10_0000);
});

t.test("PassthroughFunction leaves the MSI-X pages out of the slots, aligned or not", async (t) => {
  const nvme = new PassthroughBench(NVME);
  nvme.write(0x04, 2, MEMORY);
  const base = nvme.barAddress(0);
  t.same(slotsOf(nvme.host.log), [`slot BAR 0 of 0000:01:00.0 at 0x${base.toString(16)}+0x2000`]);
  const kioxia = new PassthroughBench(KIOXIA);
  kioxia.write(0x04, 2, MEMORY);
  const at = (offset: number): string => `0x${(kioxia.barAddress(0) + offset).toString(16)}`;
  t.same(slotsOf(kioxia.host.log), [
    `slot BAR 0 of 0000:02:00.0 at ${at(0)}+0x5000`,
    `slot BAR 0 of 0000:02:00.0 at ${at(0x6000)}+0x7000`,
    `slot BAR 0 of 0000:02:00.0 at ${at(0xe000)}+0x2000`,
  ]);
  t.same(new PassthroughBench(SAMSUNG).backend.mappedAreas, ["0 0x0+0x3000", "0 0x7000+0x1000"]);
});

t.test(
  "PassthroughFunction reaches registers beside the MSI-X table, the table itself never reaches the device",
  async (t) => {
    const bench = new PassthroughBench(KIOXIA);
    bench.write(0x04, 2, MEMORY);
    const memory = bench.backend.memory.get(0);
    const base = bench.barAddress(0);
    bench.host.mmio.write(base + 0x5000, 4, 0xcafe_f00d);
    t.equal(memory?.getUint32(0x5000, true), 0xcafe_f00d);
    t.equal(bench.host.mmio.read(base + 0x5000, 4), 0xcafe_f00d);
    bench.host.mmio.write(base + 0x5208, 4, 0x1234);
    t.equal(memory?.getUint32(0x5208, true), 0);
    t.equal(bench.host.mmio.read(base + 0x5208, 4), 0x1234);
    t.equal(bench.host.mmio.read(base + 0x520c, 4), 1, "an entry starts masked");
    // Two bytes of the last register before the table and two of its first entry.
    bench.host.mmio.write(base + 0x51fe, 4, 0x5604_bbaa);
    t.equal(memory?.getUint16(0x51fe, true), 0xbbaa);
    t.equal(memory?.getUint16(0x5200, true), 0);
    t.equal(bench.host.mmio.read(base + 0x51fe, 4), 0x5604_bbaa);
    memory?.setUint32(0xd600, 0xffff_ffff, true);
    t.equal(bench.host.mmio.read(base + 0xd600, 4), 0, "pending bits are ours");
    bench.host.mmio.write(base + 0xd600, 4, 0xffff_ffff);
    t.equal(bench.host.mmio.read(base + 0xd600, 4), 0);
  },
);

t.test("PassthroughFunction with bars=trap passes every access on and counts it", async (t) => {
  const bench = new PassthroughBench(EDU, { bars: "trap" });
  bench.write(0x04, 2, MEMORY);
  t.same(slotsOf(bench.host.log), []);
  t.same(bench.backend.mappedAreas, []);
  const base = bench.barAddress(0);
  bench.host.mmio.write(base + 0x10, 2, 0x55aa);
  bench.host.mmio.write(base + 0x13, 1, 0x77);
  t.equal(bench.host.mmio.read(base + 0x10, 4), 0x7700_55aa);
  const [bar] = bench.function.summary().bars;
  t.match(bar, { reads: 1, writes: 2, slotBytes: 0, trapped: [{ reason: "bars=trap" }] });
});

t.test("PassthroughFunction leaves an excluded BAR trapped and maps the others", async (t) => {
  const bench = new PassthroughBench(E1000E, { excludedMmapBars: [0] });
  t.same(bench.backend.mappedAreas, ["1 0x0+0x20000", "3 0x1000+0x1000", "3 0x3000+0x1000"]);
});

t.test("PassthroughFunction passes I/O BAR accesses on, and reads the ROM but does not write it", async (t) => {
  const bench = new PassthroughBench(E1000E);
  bench.backend.memory.get(2)?.setUint32(4, 0x0bad_cafe, true);
  bench.write(0x04, 2, 3);
  const port = bench.read(0x18, 4) & 0xfffc;
  t.equal(bench.host.ports.read(port + 4, 4), 0x0bad_cafe);
  bench.host.ports.write(port, 4, 0x1111_2222);
  t.equal(bench.backend.memory.get(2)?.getUint32(0, true), 0x1111_2222);
  bench.backend.memory.get(6)?.setUint16(0, 0xaa55, true);
  const rom = (bench.read(0x30, 4) & 0xffff_f800) >>> 0;
  bench.write(0x30, 4, rom + 1);
  t.equal(bench.host.mmio.read(rom, 2), 0xaa55);
  bench.host.mmio.write(rom, 2, 0);
  t.equal(bench.host.mmio.read(rom, 2), 0xaa55);
});

t.test("PassthroughFunction maps a BAR shorter than a page while it has the page to itself", async (t) => {
  const bench = new PassthroughBench(SD_HOST);
  t.equal(bench.function.barRequests[0]?.sizeBytes, 0x100, "the guest sees its real size");
  bench.write(0x04, 2, MEMORY);
  t.match(slotsOf(bench.host.log), [/\+0x1000$/]);
  bench.host.takeLog();
  bench.write(0x10, 4, 0xc800_0100);
  t.same(slotsOf(bench.host.takeLog()), [], "not at the start of a page");
  const neighbour = { name: "neighbour", read: () => 0, write: () => undefined };
  bench.host.mmio.attach(0xc900_0800, 0x100, neighbour);
  bench.write(0x10, 4, 0xc900_0000);
  t.same(slotsOf(bench.host.takeLog()), [], "the neighbour would vanish behind the slot");
  t.equal(bench.host.reports.length, 1);
  bench.write(0x10, 4, 0xca00_0000);
  t.same(slotsOf(bench.host.takeLog()), ["slot BAR 0 of 0000:04:00.0 at 0xca000000+0x1000"]);
});

t.test("PassthroughFunction keeps a BAR trapped that cannot be mapped, and says so once", async (t) => {
  const noMmap = new PassthroughBench(EDU, {}, (backend) =>
    backend.failures.set("mapRegion", new HostError("TSVMM_HOST_CALL", "no mmap")),
  );
  noMmap.write(0x04, 2, MEMORY);
  t.same(slotsOf(noMmap.host.log), []);
  t.same(noMmap.host.reports, ["warn: no mmap: it stays trapped"]);
  t.match(noMmap.function.summary().bars[0]?.trapped, [{ offset: 0, reason: "mapping it failed" }]);
  noMmap.host.mmio.write(noMmap.barAddress(0), 4, 7);
  t.equal(noMmap.backend.memory.get(0)?.getUint32(0, true), 7);
});

t.test("PassthroughFunction calls a BAR dead that the host can neither map nor read", async (t) => {
  const bench = new PassthroughBench(EDU, {}, (backend) => {
    backend.heldBar = 0;
  });
  t.match(bench.host.reports, [
    /^error: Cannot map BAR 0 of 0000:05:00\.0: mmap failed with EBUSY: it is dead: the host cannot read it either, .*iomem/,
  ]);
  t.match(bench.function.summary().bars[0]?.trapped, [
    { offset: 0, sizeBytes: 0x10_0000, reason: "dead: it can neither be mapped nor read" },
  ]);
  t.equal(bench.backend.config.getUint16(0x04, true), 0, "decode is the guest's to switch on");
  bench.write(0x04, 2, MEMORY);
  t.equal(bench.host.mmio.read(bench.barAddress(0), 4), 0xffff_ffff);
  t.equal(bench.host.reports.length, 1);
});

t.test("PassthroughFunction warns once, with the BAR's name, when other devices cannot reach it by DMA", async (t) => {
  const noPeers = new PassthroughBench(KIOXIA);
  noPeers.host.failures.set("mapDma", new HostError("TSVMM_HOST_CALL", "Cannot map BAR 0 of 0000:02:00.0 for DMA"));
  noPeers.write(0x04, 2, MEMORY);
  noPeers.write(0x04, 2, 0);
  noPeers.write(0x04, 2, MEMORY);
  t.equal(slotsOf(noPeers.host.log).length, 6, "slots are made all the same");
  t.match(noPeers.host.reports, [/^warn: Cannot map BAR 0 of 0000:02:00.0 for DMA: other devices cannot reach it/]);
});

t.test(
  "PassthroughFunction takes slots out before the device sleeps and puts them back when it is awake",
  async (t) => {
    const bench = new PassthroughBench(E1000E);
    bench.write(0x04, 2, MEMORY | 4);
    const pm = bench.capability(0x01) ?? 0;
    const base = bench.barAddress(0);
    bench.host.takeLog();
    bench.write(pm + 4, 2, 3);
    const asleep = bench.host.takeLog();
    t.ok(asleep.length > 2 && asleep.slice(0, -1).every((line) => line.startsWith("no ")));
    t.equal(asleep.at(-1), "write config 0xcc/2 = 0x3");
    t.equal(bench.host.mmio.read(base, 4), 0xffff_ffff, "a sleeping device does not answer");
    t.equal(bench.read(pm + 4, 2) & 3, 3);
    bench.write(pm + 4, 2, 0);
    const awake = bench.host.takeLog();
    t.same(awake.slice(0, 2), ["write config 0xcc/2 = 0x0", "write config 0x4/2 = 0x6"]);
    t.match(awake[2], /^slot BAR 0/);
    t.equal(bench.host.mmio.read(base, 4), 0);
  },
);

t.test("PassthroughFunction keeps slots out while a sleeping device's BAR is moved", async (t) => {
  const bench = new PassthroughBench(E1000E);
  bench.write(0x04, 2, MEMORY);
  const pm = bench.capability(0x01) ?? 0;
  bench.write(pm + 4, 2, 3);
  bench.host.takeLog();
  bench.write(0x10, 4, 0xc900_0000);
  t.same(slotsOf(bench.host.takeLog()), []);
  bench.write(pm + 4, 2, 0);
  t.ok(slotsOf(bench.host.takeLog()).includes("slot BAR 0 of 0000:06:00.0 at 0xc9000000+0x20000"));
});

t.test(
  "PassthroughFunction hands eight bytes to its device as one access, and halves to the MSI-X table",
  async (t) => {
    const bench = new PassthroughBench(NVME, { bars: "trap" });
    bench.write(0x04, 2, 0x0002);
    const bar = bench.barAddress(0);
    bench.host.takeLog();
    bench.host.mmio.writeWide(bar + 0x1008, { low: 0x1122_3344, high: 0x5566_7788 });
    t.same(bench.host.takeLog(), ["write region 0 0x1008/8 = 0x55667788:0x11223344"]);
    t.same(bench.host.mmio.readWide(bar + 0x1008), { low: 0x1122_3344, high: 0x5566_7788 });
    bench.host.mmio.writeWide(bar + 0x2000, { low: 0xfee0_0000, high: 0x1 });
    t.same(bench.host.takeLog(), [], "an entry's address");
    t.same(bench.host.mmio.readWide(bar + 0x2000), { low: 0xfee0_0000, high: 0x1 });
    bench.write((bench.capability(0x01) ?? 0) + 4, 2, 3);
    t.same(bench.host.mmio.readWide(bar + 0x1008), { low: 0xffff_ffff, high: 0xffff_ffff }, "it sleeps");
  },
);

t.test(
  "PassthroughFunction shows MSI-X whose pending bits lie outside their BAR, and traps them where they fit",
  async (t) => {
    const vf = (
      device: Partial<FakeDevice>,
      vendorId: number,
      deviceId: number,
      table: number,
      pba: number,
    ): FakeDevice => ({
      name: "0000:0c:01.0",
      image: pciImage({
        ...{ vendorId, deviceId, classCode: 0x02_0000, barFlags: [4, 0] },
        capabilities: [msixCapability(0x40, 33, table, pba)],
      }),
      regions: [{ index: 0, sizeBytes: 0x2000, isMsixMappable: true }],
      interrupts: { msix: { count: 33 } },
      ...device,
    });
    const pendingBits = (device: FakeDevice): readonly [number, string | undefined] => {
      const bench = new PassthroughBench(device);
      const at = bench.read(0x48, 4);
      bench.write(0x04, 2, 2);
      bench.write(0x42, 2, 0x8000);
      const trapped = bench.function.summary().bars[0]?.trapped.find(({ reason }) => reason === "MSI-X pending bits");
      t.equal(bench.host.mmio.read(bench.barAddress(0) + at, 4), 0, "nothing is pending");
      return [
        at,
        trapped === undefined ? undefined : `0x${trapped.offset.toString(16)}+0x${trapped.sizeBytes.toString(16)}`,
      ];
    };
    t.same(pendingBits(vf({}, 0x1425, 0x5803, 0, 0x8000)), [0x1000, "0x1000+0x1000"], "Chelsio T5");
    const kunlun = { regions: [{ index: 0, sizeBytes: 0x1_0000, isMsixMappable: true }] };
    t.same(pendingBits(vf(kunlun, 0x1d22, 0x3685, 0x8000, 0x46_0000)), [0xb400, "0xb000+0x1000"], "Kunlun");
    t.same(pendingBits(vf({}, 0x1234, 0x0001, 0, 0x8000)), [0x1000, "0x1000+0x1000"], "any other: the last page");
    t.same(pendingBits(vf({}, 0x1234, 0x0001, 0x1000, 0x8005)), [0x1ff8, undefined], "behind a table in the last page");
    const small = { regions: [{ index: 0, sizeBytes: 0x400, isMsixMappable: true }] };
    t.equal(pendingBits(vf(small, 0x1234, 0x0001, 0, 0x8000))[0], 0x3f8);
  },
);
