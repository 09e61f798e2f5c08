import t, { type Test } from "tap";
import { EventFd } from "../../../src/host/eventfd.ts";
import { IrqRouting } from "../../../src/kvm/irq-routing.ts";
import { FakeKvmInterrupts } from "../../support/fake-kvm-interrupts.ts";
import { FakePassthroughHost, PassthroughBench } from "../../support/fake-passthrough-host.ts";
import { recordedDevice } from "../../support/recorded-devices.ts";
import { ReplayBackend } from "../../support/replay-backend.ts";

/*
 * Where real devices put their MSI-X table and pending bits. The device is replayed from a recording. KVM's interrupt
 * side is a fake behind real routes and eventfds. The guest is this test on the MMIO bus.
 */

const TABLE = "MSI-X table";
const PBA = "MSI-X pending bits";

interface Place {
  readonly bar: number;
  readonly offset: number;
}

interface Geometry {
  readonly recording: string;
  readonly about: string;
  readonly vectors: number;
  readonly table: Place;
  readonly pba: Place;
  /** By BAR, "offset+size" of what the guest reaches without an exit. */
  readonly mapped: Readonly<Record<number, readonly string[]>>;
  /** By BAR, "offset+size reason". */
  readonly trapped: Readonly<Record<number, readonly string[]>>;
  /** Registers that lie in trapped pages and are the device's own. */
  readonly beside: readonly Place[];
}

const GEOMETRIES: readonly Geometry[] = [
  {
    recording: "kioxia-cd8p",
    about: "neither table nor pending bits page-aligned",
    vectors: 129,
    table: { bar: 0, offset: 0x5200 },
    pba: { bar: 0, offset: 0xd600 },
    mapped: { 0: ["0x0+0x5000", "0x6000+0x7000", "0xe000+0x2000"] },
    trapped: { 0: [`0x5000+0x1000 ${TABLE}`, `0xd000+0x1000 ${PBA}`] },
    // 129 entries end at 0x5a10, 129 bits in three quadwords at 0xd618.
    beside: [
      { bar: 0, offset: 0x5000 },
      { bar: 0, offset: 0x51fc },
      { bar: 0, offset: 0x5a10 },
      { bar: 0, offset: 0x5ffc },
      { bar: 0, offset: 0xd5fc },
      { bar: 0, offset: 0xd618 },
    ],
  },
  {
    recording: "samsung-nvme",
    about: "two sparse areas, no MSIX_MAPPABLE, pending bits in the first area",
    vectors: 513,
    table: { bar: 0, offset: 0x4000 },
    pba: { bar: 0, offset: 0x3000 },
    mapped: { 0: ["0x0+0x3000", "0x7000+0x1000"] },
    trapped: { 0: [`0x3000+0x1000 ${PBA}`, `0x4000+0x3000 ${TABLE}`] },
    // 513 entries end at 0x6010, nine quadwords of bits at 0x3048.
    beside: [
      { bar: 0, offset: 0x3048 },
      { bar: 0, offset: 0x3ffc },
      { bar: 0, offset: 0x6010 },
      { bar: 0, offset: 0x6ffc },
    ],
  },
  {
    recording: "intel-dc-nvme",
    about: "table and pending bits a page each, at the end of 16 KiB",
    vectors: 136,
    table: { bar: 0, offset: 0x2000 },
    pba: { bar: 0, offset: 0x3000 },
    mapped: { 0: ["0x0+0x2000"] },
    trapped: { 0: [`0x2000+0x1000 ${TABLE}`, `0x3000+0x1000 ${PBA}`] },
    beside: [
      { bar: 0, offset: 0x2880 },
      { bar: 0, offset: 0x3018 },
    ],
  },
  {
    recording: "shared-page-32bit",
    about: "32-bit BARs, the table in a page of registers, pending bits in another BAR",
    vectors: 16,
    table: { bar: 1, offset: 0xc00 },
    pba: { bar: 2, offset: 0x800 },
    mapped: { 1: ["0x1000+0x1000"], 2: [] },
    trapped: { 1: [`0x0+0x1000 ${TABLE}`], 2: [`0x0+0x1000 ${PBA}`] },
    beside: [
      { bar: 1, offset: 0 },
      { bar: 1, offset: 0xbfc },
      { bar: 1, offset: 0xd00 },
      { bar: 2, offset: 0x7fc },
      { bar: 2, offset: 0x808 },
    ],
  },
  {
    recording: "sub-page-bars",
    about: "a BAR of 1 KiB that has both, one of 256 bytes that has neither",
    vectors: 8,
    table: { bar: 2, offset: 0x200 },
    pba: { bar: 2, offset: 0x300 },
    mapped: { 0: ["0x0+0x1000"], 2: [] },
    trapped: { 0: [], 2: [`0x0+0x400 ${TABLE}`] },
    beside: [
      { bar: 2, offset: 0 },
      { bar: 2, offset: 0x1fc },
      { bar: 2, offset: 0x280 },
      { bar: 2, offset: 0x308 },
      { bar: 2, offset: 0x3fc },
    ],
  },
  {
    recording: "no-msix-mappable",
    about: "a host that maps all but the table, a 64-bit prefetchable BAR",
    vectors: 11,
    table: { bar: 0, offset: 0x2000 },
    pba: { bar: 0, offset: 0x3000 },
    mapped: { 0: ["0x0+0x2000", "0x4000+0xfc000"] },
    trapped: { 0: [`0x2000+0x1000 ${TABLE}`, `0x3000+0x1000 ${PBA}`] },
    beside: [
      { bar: 0, offset: 0x20b0 },
      { bar: 0, offset: 0x3008 },
    ],
  },
];

interface Wired {
  readonly bench: PassthroughBench;
  readonly backend: ReplayBackend;
  readonly kvm: FakeKvmInterrupts;
  address(place: Place): number;
}

function wire(t: Test, name: string, choice = {}): Wired {
  const kvm = new FakeKvmInterrupts();
  const host = new FakePassthroughHost(new IrqRouting(kvm, 4096, () => undefined));
  const backend = new ReplayBackend(recordedDevice(name));
  const bench = new PassthroughBench(backend, choice, undefined, host);
  t.teardown(() => bench.function.close());
  bench.write(0x04, 2, 2);
  const address = ({ bar, offset }: Place): number => {
    const low = bench.read(0x10 + 4 * bar, 4);
    const high = (low & 6) === 4 ? bench.read(0x14 + 4 * bar, 4) : 0;
    return high * 2 ** 32 + ((low & 0xffff_fff0) >>> 0) + offset;
  };
  return { bench, backend, kvm, address };
}

const hex = (value: number): string => `0x${value.toString(16)}`;

for (const geometry of GEOMETRIES) {
  const { recording, about, vectors, table, pba } = geometry;

  t.test(`planBar() maps all of ${recording} but the pages of MSI-X: ${about}`, async (t) => {
    const { bench, address } = wire(t, recording);
    const bars = new Map(bench.function.summary().bars.map((bar) => [bar.index, bar]));
    for (const [bar, expected] of Object.entries(geometry.trapped)) {
      const trapped = bars.get(Number(bar) as 0)?.trapped ?? []; // Cast: a BAR's index, which keys are as text
      t.same(
        trapped.map(({ offset, sizeBytes, reason }) => `${hex(offset)}+${hex(sizeBytes)} ${reason}`),
        expected,
      );
    }
    for (const [bar, expected] of Object.entries(geometry.mapped)) {
      const slots = bench.host.log.filter((line) => line.startsWith(`slot BAR ${bar} `));
      const areas = expected.map((area) => area.split("+").map(Number));
      t.same(
        slots.map((line) => line.replace(/.* at /, "")),
        areas.map(([offset = 0, size = 0]) => `${hex(address({ bar: Number(bar), offset }))}+${hex(size)}`),
        `slots of BAR ${bar}`,
      );
    }
  });

  t.test(`PassthroughFunction reaches ${recording}'s registers beside the table at their own offsets`, async (t) => {
    const { bench, backend, address } = wire(t, recording);
    for (const [index, place] of geometry.beside.entries()) {
      const value = 0xa500_0000 + index;
      bench.host.mmio.write(address(place), 4, value);
      const memory = backend.memory.get(place.bar);
      t.equal(memory?.getUint32(place.offset, true), value, `BAR ${place.bar} ${hex(place.offset)} written`);
      memory?.setUint32(place.offset, value + 0x100, true);
      t.equal(bench.host.mmio.read(address(place), 4), value + 0x100, `BAR ${place.bar} ${hex(place.offset)} read`);
    }
    t.same(backend.strays, []);
  });

  t.test(`PassthroughFunction emulates ${recording}'s table and pending bits to their last byte`, async (t) => {
    const { bench, backend, address } = wire(t, recording);
    const pbaBytes = 8 * Math.ceil(vectors / 64);
    const own = backend.memory.get(pba.bar);
    for (let at = 0; at < pbaBytes; at++) own?.setUint8(pba.offset + at, 0xff);
    backend.takeCalls();
    const last = address(table) + 16 * (vectors - 1);
    bench.host.mmio.write(last, 4, 0xfee1_1000);
    bench.host.mmio.write(last + 8, 4, 0x1234);
    t.equal(bench.host.mmio.read(last, 4), 0xfee1_1000);
    t.equal(bench.host.mmio.read(last + 8, 4), 0x1234);
    t.equal(bench.host.mmio.read(last + 12, 4), 1, "an entry starts masked");
    for (let at = 0; at < pbaBytes; at += 4)
      t.equal(bench.host.mmio.read(address(pba) + at, 4), 0, "nothing is pending");
    bench.host.mmio.write(address(pba), 4, 0xffff_ffff);
    t.equal(bench.host.mmio.read(address(pba), 4), 0, "pending bits are read-only");
    const { regionReads, regionWrites } = backend.takeCalls();
    t.same([regionReads, regionWrites], [0, 0], "the device hears nothing of it");
    t.same(backend.strays, []);
  });

  t.test(`PassthroughFunction delivers the first and the last vector of ${recording}`, async (t) => {
    const { bench, backend, kvm, address } = wire(t, recording);
    bench.write((bench.capability(0x11) ?? 0) + 2, 2, 0x8000);
    const signal = (vector: number): void => {
      const eventFd = backend.triggers.get("msix")?.[vector];
      if (eventFd === undefined || eventFd < 0) throw new Error(`vector ${vector} is not armed`);
      EventFd.attach(eventFd).signal();
    };
    for (const vector of [0, vectors - 1]) {
      const entry = address(table) + 16 * vector;
      bench.host.mmio.write(entry, 4, 0xfee0_0000);
      bench.host.mmio.write(entry + 8, 4, 0x4000 + vector);
      bench.host.mmio.write(entry + 12, 4, 0);
    }
    kvm.deliver();
    signal(vectors - 1);
    t.same(kvm.deliver(), [0x4000 + vectors - 1]);
    bench.host.mmio.write(address(table) + 12, 4, 1);
    signal(0);
    t.same(kvm.deliver(), [], "masked");
    t.equal(bench.host.mmio.read(address(pba), 1), 1, "and pending");
    bench.host.mmio.write(address(table) + 12, 4, 0);
    t.same(kvm.deliver(), [0x4000]);
    t.equal(bench.host.mmio.read(address(pba), 1), 0);
  });

  t.test(`PassthroughFunction with bars=trap passes on all of ${recording} but MSI-X`, async (t) => {
    const { bench, backend, address } = wire(t, recording, { bars: "trap" });
    t.same(backend.mappedAreas, []);
    const [first] = geometry.beside;
    const far = first ?? { bar: table.bar, offset: 0 };
    bench.host.mmio.write(address(far), 4, 0x600d_f00d);
    t.equal(backend.memory.get(far.bar)?.getUint32(far.offset, true), 0x600d_f00d);
    bench.host.mmio.write(address(table) + 8, 4, 0xbad);
    t.equal(backend.memory.get(table.bar)?.getUint32(table.offset + 8, true), 0);
    t.same(backend.strays, []);
  });
}
