import t from "tap";
import { MemoryFaults, type SlottedFunction } from "../../../src/passthrough/memory-faults.ts";
import { EDU, KIOXIA, NVME } from "../../support/fake-devices.ts";
import { FakePassthroughHost, PassthroughBench } from "../../support/fake-passthrough-host.ts";

class FakeFunction implements SlottedFunction {
  readonly name: string;
  hasSlots = true;
  isThere: boolean;

  constructor(name: string, isThere: boolean) {
    this.name = name;
    this.isThere = isThere;
  }

  isReachable(): boolean {
    return this.isThere;
  }

  withdrawSlots(): void {
    this.hasSlots = false;
  }
}

t.test(
  "MemoryFaults.handle() withdraws the slots of functions that are gone and leaves the others alone",
  async (t) => {
    const gone = new FakeFunction("gone", false);
    const well = new FakeFunction("well", true);
    const reports: string[] = [];
    const faults = new MemoryFaults([well, gone], (level, text) => reports.push(`${level}: ${text}`));
    t.equal(faults.handle(), 1);
    t.equal(gone.hasSlots, false);
    t.equal(well.hasSlots, true);
    t.match(reports, [/^warn: gone: its memory does not answer any more/]);
  },
);

t.test("MemoryFaults.handle() withdraws all slots when every function answers", async (t) => {
  const functions = [new FakeFunction("a", true), new FakeFunction("b", true)];
  const faults = new MemoryFaults(functions, () => undefined);
  t.equal(faults.handle(), 1);
  t.same(
    functions.map((one) => one.hasSlots),
    [false, false],
  );
});

t.test(
  "MemoryFaults.handle() answers the same figure when nothing is left to withdraw: a vCPU then gives up",
  async (t) => {
    const gone = new FakeFunction("gone", false);
    const well = new FakeFunction("well", true);
    const faults = new MemoryFaults([well, gone], () => undefined);
    const answers = [faults.handle(), faults.handle(), faults.handle(), faults.handle()];
    t.same(answers, [1, 2, 2, 2], "the one that is gone, then the other, then it was neither");
    well.hasSlots = true; // the guest placed its BARs anew
    t.equal(faults.handle(), 3);
    t.equal(new MemoryFaults([], () => undefined).handle(), 0, "without functions nothing can be mended");
  },
);

t.test(
  "PassthroughFunction answers through the bus after its slots were withdrawn, all ones once it is gone",
  async (t) => {
    const bench = new PassthroughBench(EDU);
    bench.write(0x04, 2, 2);
    const base = bench.barAddress(0);
    bench.host.mmio.write(base + 8, 4, 0x1234);
    const faults = new MemoryFaults([bench.function], bench.host.report);
    t.ok(bench.function.hasSlots);
    t.equal(faults.handle(), 1);
    t.notOk(bench.function.hasSlots);
    t.equal(bench.host.mmio.read(base + 8, 4), 0x1234, "it is there: slower, not gone");
    bench.backend.isGone = true;
    t.notOk(bench.function.isPresent());
    for (const width of [1, 2, 4] as const) t.equal(bench.host.mmio.read(base, width), 2 ** (8 * width) - 1);
    bench.host.mmio.write(base, 4, 1); // dropped
    t.equal(bench.read(0x06, 2), 0xffff, "nor does what is the device's of configuration space");
    t.equal(bench.read(0x44, 4) >>> 16, 0, "what is ours of configuration space still answers");
  },
);

t.test("MemoryFaults.handle() finds a pulled device by what vfio-pci does not answer itself", async (t) => {
  const host = new FakePassthroughHost();
  const pulled = new PassthroughBench(NVME, {}, undefined, host);
  const well = new PassthroughBench(EDU);
  for (const bench of [pulled, well]) bench.write(0x04, 2, 2);
  const faults = new MemoryFaults([well.function, pulled.function], host.report);
  pulled.backend.isGone = true;
  t.equal(pulled.backend.readRegion(7, 0, 4), 0x0010_1b36, "vendor and device id are the kernel's copy");
  t.equal(faults.handle(), 1);
  t.notOk(pulled.function.hasSlots);
  t.ok(well.function.hasSlots, "the one that answers keeps its slots");
  t.match(host.reports, [/^warn: 0000:01:00.0: its memory does not answer any more/]);
});

t.test(
  "MemoryFaults.handle() finds a device that was reset without the guest, and leaves the others alone",
  async (t) => {
    const host = new FakePassthroughHost();
    const reset = new PassthroughBench(NVME, {}, undefined, host);
    const well = new PassthroughBench(EDU);
    for (const bench of [reset, well]) bench.write(0x04, 2, 2);
    reset.backend.config.setUint16(0x04, 0, true); // it decodes nothing now
    t.equal(new MemoryFaults([well.function, reset.function], host.report).handle(), 1);
    t.notOk(reset.function.hasSlots);
    t.ok(well.function.hasSlots);
  },
);

t.test("PassthroughFunction gives the guest its slots back when it places the BAR anew", async (t) => {
  const bench = new PassthroughBench(EDU);
  bench.write(0x04, 2, 2);
  bench.function.withdrawSlots();
  t.notOk(bench.function.hasSlots);
  bench.write(0x04, 2, 0);
  bench.write(0x04, 2, 2);
  t.ok(bench.function.hasSlots);
});

t.test(
  "PassthroughFunction of a device that is gone can be switched off and closed without an exception",
  async (t) => {
    const bench = new PassthroughBench(KIOXIA);
    bench.write(0x04, 2, 6);
    bench.write(0x42, 2, 0x8000);
    bench.host.mmio.write(bench.barAddress(0) + 0x520c, 4, 0);
    bench.backend.isGone = true;
    bench.write(0x42, 2, 0);
    bench.write(0x04, 2, 0);
    bench.function.close();
    t.ok(bench.backend.isClosed);
    t.same(bench.backend.mappedAreas, []);
  },
);

t.test(
  "PassthroughFunction answers all ones while the guest has memory decode off behind the bus, and in D3",
  async (t) => {
    const bench = new PassthroughBench({ ...EDU, name: "0000:08:00.0" }, { bars: "trap" });
    bench.write(0x04, 2, 2);
    const base = bench.barAddress(0);
    bench.backend.memory.get(0)?.setUint32(0, 0x5555_aaaa, true);
    t.equal(bench.host.mmio.read(base, 4), 0x5555_aaaa);
    bench.backend.config.setUint16(4, 0, true); // the host switched decode off
    t.equal(bench.host.mmio.read(base, 4), 0xffff_ffff);
    bench.host.mmio.write(base, 4, 0);
    bench.backend.config.setUint16(4, 2, true);
    t.equal(bench.host.mmio.read(base, 4), 0x5555_aaaa, "the write went nowhere");
  },
);

t.test(
  "PassthroughFunction answers all ones while the guest has the device in D3, without a slot over its memory",
  async (t) => {
    const bench = new PassthroughBench(NVME);
    bench.write(0x04, 2, 2);
    const base = bench.barAddress(0);
    bench.backend.memory.get(0)?.setUint32(0, 0x5555_aaaa, true);
    t.equal(bench.host.mmio.read(base, 4), 0x5555_aaaa);
    bench.write(0x64, 2, 3);
    t.notOk(bench.function.hasSlots);
    t.equal(bench.host.mmio.read(base, 4), 0xffff_ffff);
    t.same(bench.host.reports, []);
  },
);
