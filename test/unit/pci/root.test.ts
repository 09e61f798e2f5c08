import t from "tap";
import { Bus, type BusDevice } from "../../../src/base/bus.ts";
import type { BarRequest } from "../../../src/pci/function.ts";
import { PciRoot, type PciRootOptions } from "../../../src/pci/root.ts";
import { intxGsi } from "../../../src/vmm/shared/memory-map.ts";
import { FakePciFunction } from "../../support/fake-pci-function.ts";

const WINDOWS = {
  ports: [{ base: 0x1000, sizeBytes: 0xf000 }],
  memory32: [{ base: 0xc000_0000, sizeBytes: 0x1000_0000 }],
  memory64: [{ base: 0x10_0000_0000, sizeBytes: 0x10_0000_0000 }],
};

const mem32 = (index: 0 | 1 | 2, sizeBytes: number): BarRequest => ({
  kind: "mem32",
  index,
  sizeBytes,
  isPrefetchable: false,
});

function machine(options: Partial<PciRootOptions> = {}) {
  const ports = new Bus("port");
  const mmio = new Bus("mmio");
  const reports: string[] = [];
  const report = (level: string, text: string): number => reports.push(`${level}: ${text}`);
  const root = new PciRoot({ gsiOf: intxGsi, ports, mmio, windows: WINDOWS, report, ...options });
  const read = (slot: number, offset: number, width: 1 | 2 | 4): number => root.configRead(0, slot, 0, offset, width);
  const write = (slot: number, offset: number, width: 1 | 2 | 4, value: number): void =>
    root.configWrite(0, slot, 0, offset, width, value);
  return { ports, mmio, reports, root, read, write };
}

t.test("PciRoot.plug() takes free slots from 1 and refuses taken places", async (t) => {
  const { root } = machine();
  t.equal(root.plug(new FakePciFunction("a", [])).bdf.device, 1);
  t.equal(root.plug(new FakePciFunction("b", []), 3).bdf.device, 3);
  t.equal(root.plug(new FakePciFunction("c", [])).bdf.device, 2);
  t.equal(root.plug(new FakePciFunction("d", [])).bdf.device, 4);
  t.equal(root.plug(new FakePciFunction("bridge", []), 0).bdf.device, 0);
  t.throws(() => root.plug(new FakePciFunction("e", []), 3), /b is there/);
  t.throws(() => root.plug(new FakePciFunction("e", []), 32), RangeError);
  for (let slot = 5; slot < 32; slot++) root.plug(new FakePciFunction(`f${slot}`, []));
  t.throws(() => root.plug(new FakePciFunction("one too many", [])), /all 32 slots/);
  t.same(
    root.functions.slice(0, 4).map((plugged) => plugged.function.name),
    ["bridge", "a", "c", "b"],
  );
});

t.test("PciRoot.configRead() gives ones where nothing is", async (t) => {
  const { root } = machine();
  root.plug(new FakePciFunction("a", []), 1);
  t.equal(root.configRead(0, 1, 0, 0, 4), 0x5678_1234);
  t.equal(root.configRead(0, 1, 1, 0, 4), 0xffff_ffff);
  t.equal(root.configRead(0, 2, 0, 0, 2), 0xffff);
  t.equal(root.configRead(1, 1, 0, 0, 1), 0xff);
  root.configWrite(1, 1, 0, 0x3c, 1, 5);
  t.equal(root.configRead(0, 1, 0, 0x3c, 1), 17, "the interrupt line says where the pin goes, as firmware leaves it");
});

t.test("PciRoot answers a multifunction scan", async (t) => {
  const { root } = machine();
  root.plug(new FakePciFunction("audio", []), 2, 1);
  t.equal(root.functions[0]?.function.config.isMultifunction, false);
  root.plug(new FakePciFunction("gpu", []), 2, 0);
  root.plug(new FakePciFunction("nic", []), 3);
  const found: string[] = [];
  for (let slot = 0; slot < 32; slot++) {
    if (root.configRead(0, slot, 0, 0, 2) === 0xffff) continue;
    const count = (root.configRead(0, slot, 0, 0x0e, 1) & 0x80) === 0 ? 1 : 8;
    for (let fn = 0; fn < count; fn++) if (root.configRead(0, slot, fn, 0, 2) !== 0xffff) found.push(`${slot}.${fn}`);
  }
  t.same(found, ["2.0", "2.1", "3.0"]);
});

t.test("PciRoot.assignBars() reports functions that no guest will find", async (t) => {
  const { root, reports } = machine();
  root.plug(new FakePciFunction("audio", []), 2, 1);
  root.assignBars();
  t.same(reports, ["warn: audio stays invisible: its slot 2 has no function 0"]);
});

t.test("PciRoot.assignBars() gives aligned addresses of the right window, a page for each", async (t) => {
  const { root, read, mmio, ports } = machine();
  root.plug(
    new FakePciFunction("a", [
      mem32(0, 0x100),
      { kind: "mem64", index: 2, sizeBytes: 0x4000, isPrefetchable: false },
      { kind: "mem64", index: 4, sizeBytes: 0x4_0000_0000, isPrefetchable: true },
      { kind: "rom", index: 6, sizeBytes: 0x800 },
    ]),
  );
  root.plug(
    new FakePciFunction("b", [
      mem32(0, 0x100),
      { kind: "mem64", index: 2, sizeBytes: 0x200_0000, isPrefetchable: false },
      { kind: "io", index: 4, sizeBytes: 0x20 },
      { kind: "io", index: 5, sizeBytes: 0x40 },
    ]),
  );
  t.same(root.assignBars(), []);
  t.equal(read(1, 0x18, 4), 0xc000_0004);
  t.equal(read(1, 0x1c, 4), 0);
  t.equal(read(1, 0x30, 4), 0xc000_4000);
  t.equal(read(1, 0x10, 4), 0xc000_5000);
  t.equal(read(2, 0x10, 4), 0xc000_6000);
  t.equal(read(1, 0x20, 4), 0x0000_000c);
  t.equal(read(1, 0x24, 4), 0x10, "16 GiB, prefetchable: at the start of the 64-bit window");
  t.equal(read(2, 0x18, 4), 0x0000_0004);
  t.equal(read(2, 0x1c, 4), 0x14, "large, though not prefetchable: the 64-bit window too");
  t.equal(read(2, 0x24, 4), 0x1001);
  t.equal(read(2, 0x20, 4), 0x1041);
  t.equal(read(1, 0x04, 2), 0, "decode is for the guest to turn on");
  t.equal(mmio.ranges.length + ports.ranges.length, 0);
});

t.test("PciRoot.assignBars() goes around what is on the bus, and says what found no room", async (t) => {
  const { root, read, mmio } = machine({
    windows: { ...WINDOWS, memory32: [{ base: 0xc000_0000, sizeBytes: 0x4000 }], memory64: [] },
  });
  const other: BusDevice = { name: "other", read: () => 0, write: () => {} };
  mmio.attach(0xc000_0000, 0x800, other);
  const a = new FakePciFunction("a", [
    mem32(0, 0x1000),
    mem32(1, 0x4000),
    { kind: "mem64", index: 2, sizeBytes: 0x1000, isPrefetchable: true },
  ]);
  root.plug(a);
  const unplaced = root.assignBars();
  t.equal(read(1, 0x10, 4), 0xc000_1000);
  t.equal(read(1, 0x18, 4), 0xc000_200c, "a 64-bit BAR goes low where there is no 64-bit window");
  t.same(
    unplaced.map(({ function: fn, request }) => [fn.name, request.index]),
    [["a", 1]],
  );
});

t.test("PciRoot puts BARs on their bus when the guest enables decode", async (t) => {
  const { root, write, mmio, ports } = machine();
  const a = new FakePciFunction("a", [mem32(0, 0x1000), { kind: "io", index: 1, sizeBytes: 0x20 }]);
  root.plug(a);
  root.assignBars();
  write(1, 0x04, 2, 0x0002);
  t.same(a.log, ["bar 0 at 0xc0000000"]);
  mmio.write(0xc000_0004, 4, 0xdead_beef);
  t.equal(mmio.read(0xc000_0005, 2), 0xadbe);
  t.equal(ports.read(0x1000, 4), 0xffff_ffff);
  write(1, 0x04, 1, 0x03);
  t.same(a.log.splice(0), ["bar 0 at 0xc0000000", "bar 1 at 0x1000"]);
  ports.write(0x1002, 1, 0x5a);
  t.equal(ports.read(0x1002, 1), 0x5a);
  write(1, 0x04, 2, 0);
  t.same(a.log, ["bar 0 off", "bar 1 off"]);
  t.equal(mmio.read(0xc000_0004, 4), 0xffff_ffff);
});

t.test("PciRoot calls barPlaced() while the range is on the bus, at both ends", async (t) => {
  const { root, write, mmio } = machine();
  const a = new FakePciFunction("a", [mem32(0, 0x1000)]);
  const holders: (string | undefined)[] = [];
  a.onPlaced = () => holders.push(mmio.holder(0xc000_0000, 0x1000)?.device.name);
  root.plug(a);
  root.assignBars();
  write(1, 0x04, 2, 0x0002);
  write(1, 0x04, 2, 0x0000);
  t.same(holders, ["a BAR 0", "a BAR 0"]);
});

t.test("PciRoot takes BARs away before the function's observers see the write, and puts them back after", async (t) => {
  const { root, write } = machine();
  const a = new FakePciFunction("a", [mem32(0, 0x1000)]);
  a.config.onWrite(0x04, 2, () => a.log.push(`command ${a.config.get16(0x04)}`));
  root.plug(a);
  root.assignBars();
  write(1, 0x04, 2, 0x0002);
  write(1, 0x04, 2, 0x0000);
  t.same(a.log, ["command 2", "bar 0 at 0xc0000000", "bar 0 off", "command 0"]);
});

t.test("PciRoot follows a BAR that moves, with decode off and on", async (t) => {
  const { root, write, mmio } = machine();
  const a = new FakePciFunction("a", [{ kind: "mem64", index: 0, sizeBytes: 0x1000, isPrefetchable: false }]);
  root.plug(a);
  root.assignBars();
  write(1, 0x10, 4, 0xc100_0000);
  t.same(a.log, []);
  write(1, 0x04, 2, 0x0002);
  write(1, 0x10, 4, 0xc200_0000);
  t.same(a.log.splice(0), ["bar 0 at 0xc1000000", "bar 0 off", "bar 0 at 0xc2000000"]);
  write(1, 0x14, 4, 0x10);
  t.same(a.log.splice(0), ["bar 0 off", "bar 0 at 0x10c2000000"]);
  mmio.write(0x10_c200_0000, 1, 7);
  t.equal(a.readBar(0, 0, 1), 7);
  write(1, 0x14, 4, 0x10);
  write(1, 0x04, 2, 0x0006);
  t.same(a.log, [], "the same place again is no move");
});

t.test("PciRoot survives sizing with decode on, without a report", async (t) => {
  const { root, write, read, reports } = machine();
  const a = new FakePciFunction("a", [
    mem32(0, 0x1000),
    { kind: "mem64", index: 2, sizeBytes: 0x4000, isPrefetchable: true },
  ]);
  root.plug(a);
  root.assignBars();
  write(1, 0x04, 2, 0x0002);
  for (const offset of [0x10, 0x18, 0x1c]) {
    const old = read(1, offset, 4);
    write(1, offset, 4, 0xffff_ffff);
    write(1, offset, 4, old);
  }
  t.same(a.log.slice(-2), ["bar 2 off", "bar 2 at 0x1000000000"]);
  t.same(a.log.filter((line) => line.startsWith("bar 0")).at(-1), "bar 0 at 0xc0000000");
  t.same(reports, []);
});

t.test("PciRoot parks a BAR whose place is taken, and lets it in when the other leaves", async (t) => {
  const { root, write, mmio, reports } = machine();
  const a = new FakePciFunction("a", [mem32(0, 0x2000)]);
  const b = new FakePciFunction("b", [mem32(0, 0x1000)]);
  root.plug(a);
  root.plug(b);
  root.assignBars();
  write(1, 0x04, 2, 0x0002);
  write(2, 0x10, 4, 0xc000_1000);
  write(2, 0x04, 2, 0x0002);
  t.same(b.log, []);
  t.same(reports, ["warn: b: 0000:00:02.0 BAR 0 at 0xc0001000+0x1000 is not decoded: a BAR 0 is there"]);
  write(2, 0x04, 2, 0x0000);
  write(2, 0x04, 2, 0x0002);
  t.equal(reports.length, 1, "reported once");
  t.equal(mmio.find(0xc000_1000)?.device.name, "a BAR 0");
  write(1, 0x10, 4, 0xc100_0000);
  t.same(b.log, ["bar 0 at 0xc0001000"]);
  t.equal(mmio.find(0xc000_1000)?.device.name, "b BAR 0");
  write(1, 0x10, 4, 0xc000_0000);
  t.equal(a.log.at(-1), "bar 0 off", "now a has to wait");
  write(2, 0x04, 2, 0x0000);
  t.equal(a.log.at(-1), "bar 0 at 0xc0000000");
});

t.test("PciRoot lets the BAR that moves go before those that wait", async (t) => {
  const { root, write, mmio } = machine();
  const a = new FakePciFunction("a", [mem32(0, 0x2000)]);
  const b = new FakePciFunction("b", [mem32(0, 0x1000)]);
  root.plug(a);
  root.plug(b);
  write(2, 0x10, 4, 0xc000_0000);
  write(2, 0x04, 2, 0x0002);
  write(1, 0x10, 4, 0xc000_0000);
  write(1, 0x04, 2, 0x0002);
  write(2, 0x10, 4, 0xc000_1000);
  t.equal(mmio.find(0xc000_1000)?.device.name, "b BAR 0");
  t.same(a.log, []);
});

t.test("PciRoot decodes nothing outside its windows", async (t) => {
  const { root, write, mmio, ports, reports } = machine();
  const a = new FakePciFunction("a", [mem32(0, 0x1000), mem32(1, 0x1000), { kind: "io", index: 2, sizeBytes: 0x20 }]);
  root.plug(a);
  write(1, 0x10, 4, 0x0010_0000); // RAM
  write(1, 0x14, 4, 0xfee0_0000); // local APIC
  write(1, 0x18, 4, 0x0040); // timer ports
  write(1, 0x04, 2, 0x0003);
  t.equal(mmio.ranges.length + ports.ranges.length, 0);
  t.same(a.log, []);
  t.equal(reports.length, 3);
  t.match(reports[0], /BAR 0 at 0x100000\+0x1000 is not decoded: outside the windows of the PCI root/);
});

t.test("PciRoot settles a BAR again that the function itself put back", async (t) => {
  const { root, write } = machine();
  const a = new FakePciFunction("a", [mem32(0, 0x1000)]);
  a.config.onWrite(0x10, 4, () => a.config.set32(0x10, 0xc000_0000));
  root.plug(a);
  root.assignBars();
  write(1, 0x04, 2, 0x0002);
  write(1, 0x10, 4, 0xc500_0000);
  t.equal(a.log.at(-1), "bar 0 at 0xc0000000");
});

t.test("PciRoot.reset() takes BARs off first, resets, and assigns them again", async (t) => {
  const { root, read, write, mmio } = machine();
  const a = new FakePciFunction("a", [mem32(0, 0x1000)]);
  root.plug(a);
  root.assignBars();
  write(1, 0x10, 4, 0xc800_0000);
  write(1, 0x04, 2, 0x0006);
  write(1, 0x3c, 1, 5);
  a.log.length = 0;
  root.reset();
  t.same(a.log, ["bar 0 off", "reset"]);
  t.equal(mmio.ranges.length, 0);
  t.equal(read(1, 0x04, 2), 0);
  t.equal(read(1, 0x10, 4), 0xc000_0000);
  t.equal(read(1, 0x3c, 1), 17);
  write(1, 0x04, 2, 0x0002);
  t.equal(a.log.at(-1), "bar 0 at 0xc0000000");
});

t.test("PciRoot.close() takes BARs off and closes functions in reverse order", async (t) => {
  const { root, write, mmio } = machine();
  const order: string[] = [];
  const functions = ["a", "b"].map((name) => new FakePciFunction(name, [mem32(0, 0x1000)]));
  for (const fn of functions) {
    fn.close = () => order.push(`close ${fn.name}`);
    fn.onPlaced = (_index, address) => address === undefined && order.push(`off ${fn.name}`);
    root.plug(fn);
  }
  root.assignBars();
  write(1, 0x04, 2, 2);
  write(2, 0x04, 2, 2);
  root.close();
  t.same(order, ["off b", "close b", "off a", "close a"]);
  t.equal(mmio.ranges.length, 0);
});

t.test("PciRoot routes interrupt pins over GSI 16 to 23", async (t) => {
  const { root } = machine();
  t.equal(root.interruptGsi(1, 1), 17);
  t.equal(root.interruptGsi(1, 4), 20);
  t.equal(root.interruptGsi(7, 2), 16);
  t.equal(root.interruptGsi(31, 4), 18);
});

t.test(
  "PciRoot.unplug() takes a function off the buses and out of its slot, and lets waiting BARs have its room",
  async (t) => {
    const { mmio, root, read, write } = machine();
    const leaving = new FakePciFunction("leaving", [mem32(0, 0x1000)]);
    const staying = new FakePciFunction("staying", [mem32(0, 0x1000)]);
    root.plug(leaving, 1);
    root.plug(staying, 2);
    root.assignBars();
    write(1, 0x04, 2, 2);
    const address = read(1, 0x10, 4);
    write(2, 0x10, 4, address); // the guest wants it there: it waits
    write(2, 0x04, 2, 2);
    t.equal(mmio.ranges.length, 1);
    t.equal(root.unplug(1, 0), leaving);
    t.equal(read(1, 0, 4), 0xffff_ffff);
    t.equal(mmio.find(address)?.device.name, "staying BAR 0");
    t.same(
      root.functions.map((plugged) => plugged.function.name),
      ["staying"],
    );
    t.equal(root.unplug(1, 0), undefined, "nothing is there any more");
    root.plug(new FakePciFunction("next", []), 1);
    t.equal(read(1, 0, 4), 0x5678_1234, "the place is free");
  },
);
