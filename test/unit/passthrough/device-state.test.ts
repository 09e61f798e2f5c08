import t from "tap";
import { PassthroughBench } from "../../support/fake-passthrough-host.ts";
import { recordedDevice } from "../../support/recorded-devices.ts";
import { ReplayBackend } from "../../support/replay-backend.ts";

/*
 * What a guest's own resets and power states do to what it sees. The recording kioxia-cd8p resets by its PCI Express
 * capability and keeps its state over D3. The recording shared-page-32bit resets by the advanced features capability
 * and loses its state in D3.
 */

const MEMORY_AND_MASTER = 6;

interface Scene {
  readonly bench: PassthroughBench;
  readonly backend: ReplayBackend;
  readonly table: number;
  readonly msixControl: number;
}

/** A function at work: decode and DMA on, vector 0 unmasked, vector 1 pending behind its mask. */
function working(name: "kioxia-cd8p" | "shared-page-32bit"): Scene {
  const backend = new ReplayBackend(recordedDevice(name));
  const bench = new PassthroughBench(backend);
  bench.write(0x04, 2, MEMORY_AND_MASTER);
  bench.write(0x0c, 1, 0x10);
  const msixControl = (bench.capability(0x11) ?? 0) + 2;
  const table = name === "kioxia-cd8p" ? bench.barAddress(0) + 0x5200 : bench.barAddress(1) + 0xc00;
  bench.write(msixControl, 2, 0x8000);
  bench.host.mmio.write(table, 4, 0xfee0_0000);
  bench.host.mmio.write(table + 8, 4, 0x4041);
  bench.host.mmio.write(table + 12, 4, 0);
  bench.host.takeLog();
  return { bench, backend, table, msixControl };
}

const slotCount = (bench: PassthroughBench): number =>
  bench.function.summary().bars.filter((bar) => bar.slotBytes > 0).length;

const RESETS = [
  {
    name: "PCI Express FLR",
    device: "kioxia-cd8p",
    write: ({ bench }: Scene) => bench.write((bench.capability(0x10) ?? 0) + 8, 2, 0xa810),
  },
  {
    name: "PCI Express FLR by a byte",
    device: "kioxia-cd8p",
    write: ({ bench }: Scene) => bench.write((bench.capability(0x10) ?? 0) + 9, 1, 0x80),
  },
  {
    name: "PCI Express FLR by a dword",
    device: "kioxia-cd8p",
    write: ({ bench }: Scene) => bench.write((bench.capability(0x10) ?? 0) + 8, 4, 0x0000_a810),
  },
  {
    name: "advanced features FLR",
    device: "shared-page-32bit",
    write: ({ bench }: Scene) => bench.write((bench.capability(0x13) ?? 0) + 4, 1, 1),
  },
  {
    name: "a wake-up from D3 without No_Soft_Reset",
    device: "shared-page-32bit",
    write: ({ bench }: Scene) => {
      const control = (bench.capability(0x01) ?? 0) + 4;
      bench.write(control, 2, 3);
      bench.write(control, 2, 0);
    },
  },
] as const;

for (const { name, device, write } of RESETS) {
  t.test(`PassthroughFunction after ${name} is as after power-on for the guest`, async (t) => {
    const scene = working(device);
    const { bench, backend, table, msixControl } = scene;
    write(scene);
    t.equal(bench.read(0x04, 2), 0, "command");
    t.equal(bench.read(0x0c, 1), 0, "cache line size");
    for (let bar = 0x10; bar < 0x28; bar += 4) t.equal(bench.read(bar, 4) & 0xffff_fff0, 0, `BAR at ${bar}`);
    t.equal(bench.read(msixControl, 2) & 0xc000, 0, "MSI-X is off");
    t.equal(slotCount(bench), 0);
    t.same(bench.host.mmio.ranges, [], "nothing is decoded");
    t.equal(bench.function.summary().interrupts.kind, "intx");
    t.ok(bench.host.routes.every((route) => route.isReleased));
    t.equal(backend.config.getUint16(0x04, true), 0, "the device's own command register too");
    t.same(backend.strays, []);
    bench.write(0x10, 4, 0xc100_0000);
    bench.write(0x14, 4, device === "kioxia-cd8p" ? 0 : 0xc101_0000);
    bench.write(0x04, 2, MEMORY_AND_MASTER);
    const at = device === "kioxia-cd8p" ? 0xc100_5200 : 0xc101_0c00;
    t.not(at, table, "the BAR is elsewhere now");
    t.equal(bench.host.mmio.read(at + 8, 4), 0, "entries are empty");
    t.equal(bench.host.mmio.read(at + 12, 4), 1, "and masked");
    bench.write(msixControl, 2, 0x8000);
    bench.host.mmio.write(at + 12, 4, 0);
    t.equal(bench.function.summary().interrupts.kind, "msix", "it works again");
    t.ok(slotCount(bench) > 0);
  });
}

t.test("PassthroughFunction takes interrupts, slots and DMA away before the device is reset", async (t) => {
  const backend = new ReplayBackend(recordedDevice("kioxia-cd8p"));
  const bench = new PassthroughBench(backend);
  bench.write(0x04, 2, MEMORY_AND_MASTER);
  bench.write(0x42, 2, 0x8000);
  const seen: string[] = [];
  bench.function.config.onWrite(0x88, 2, () => seen.push("guest's write is done"));
  const before = backend.log.length;
  bench.host.takeLog();
  bench.write(0x88, 2, 0x8000);
  const ofDevice = backend.log.slice(before);
  const step = (line: string): number => {
    const at = ofDevice.indexOf(line);
    t.not(at, -1, line);
    return at;
  };
  t.ok(step("disarm msix") < step("write config 0x88/2 = 0x0"), "the bit itself does not stick");
  t.ok(step("write config 0x4/2 = 0x0") < step("write config 0x88/2 = 0x0"));
  t.equal(backend.functionResets, 1);
  t.same(seen, ["guest's write is done"]);
  t.equal(bench.host.takeLog().filter((line) => line.startsWith("no slot")).length, 3);
});

t.test("PassthroughFunction leaves a function alone whose capability does not offer the reset", async (t) => {
  const recording = recordedDevice("shared-page-32bit");
  const configSpace = recording.configSpace.map((line) => line.replace(/^70: 13 00 06 03/, "70: 13 00 06 01"));
  const backend = new ReplayBackend({ ...recording, configSpace });
  const bench = new PassthroughBench(backend);
  bench.write(0x04, 2, MEMORY_AND_MASTER);
  bench.write(0x74, 1, 1);
  t.equal(bench.read(0x04, 2), MEMORY_AND_MASTER);
  t.equal(backend.functionResets, 0);
});

t.test("PassthroughFunction keeps what a function with No_Soft_Reset had over D3", async (t) => {
  const { bench, msixControl, table } = working("kioxia-cd8p");
  const control = (bench.capability(0x01) ?? 0) + 4;
  const address = bench.barAddress(0);
  bench.write(control, 2, 3);
  t.equal(slotCount(bench), 0);
  bench.write(control, 2, 0);
  t.equal(slotCount(bench), 1);
  t.equal(bench.barAddress(0), address);
  t.equal(bench.read(0x04, 2), MEMORY_AND_MASTER);
  t.equal(bench.read(msixControl, 2) & 0x8000, 0x8000);
  t.equal(bench.host.mmio.read(table + 8, 4), 0x4041);
});

t.test("PassthroughFunction keeps the state of a function that only went to D1 or stayed awake", async (t) => {
  const { bench } = working("shared-page-32bit");
  const control = (bench.capability(0x01) ?? 0) + 4;
  bench.write(control, 2, 1);
  bench.write(control, 2, 0);
  t.equal(bench.read(0x04, 2), MEMORY_AND_MASTER);
  bench.write(control, 2, 0);
  t.equal(bench.read(0x04, 2), MEMORY_AND_MASTER);
  t.equal(slotCount(bench), 1);
});

t.test("PassthroughFunction wakes by a function-level reset while it sleeps", async (t) => {
  const { bench } = working("shared-page-32bit");
  bench.write((bench.capability(0x01) ?? 0) + 4, 2, 3);
  bench.write((bench.capability(0x13) ?? 0) + 4, 1, 1);
  t.equal(bench.read((bench.capability(0x01) ?? 0) + 4, 2) & 3, 0);
  bench.write(0x14, 4, 0xc000_0000);
  bench.write(0x04, 2, 2);
  t.equal(slotCount(bench), 1, "its memory is there again");
});

t.test(
  "PassthroughFunction answers nothing of a sleeping device's BARs, the emulated MSI-X table neither",
  async (t) => {
    const { bench, table } = working("kioxia-cd8p");
    const control = (bench.capability(0x01) ?? 0) + 4;
    bench.write(control, 2, 3);
    t.equal(bench.host.mmio.read(table + 8, 4), 0xffff_ffff);
    bench.host.mmio.write(table + 8, 4, 0x9999);
    t.equal(bench.host.mmio.read(table - 0x200, 2), 0xffff);
    bench.write(control, 2, 0);
    t.equal(bench.host.mmio.read(table + 8, 4), 0x4041, "as it was");
  },
);
