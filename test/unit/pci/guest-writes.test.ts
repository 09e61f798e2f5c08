import t from "tap";
import { Bus, type BusRange } from "../../../src/base/bus.ts";
import type { Gpa, Width } from "../../../src/base/units.ts";
import type { BarIndex } from "../../../src/pci/function.ts";
import { MsiCapability } from "../../../src/pci/msi.ts";
import { MsixCapability } from "../../../src/pci/msix.ts";
import { PciRoot } from "../../../src/pci/root.ts";
import { intxGsi } from "../../../src/vmm/shared/memory-map.ts";
import { FakeMsiRouter } from "../../support/fake-msi-router.ts";
import { FakePciFunction } from "../../support/fake-pci-function.ts";

const WINDOWS = {
  ports: [{ base: 0x1000, sizeBytes: 0x1000 }],
  memory32: [{ base: 0xc000_0000, sizeBytes: 0x10_0000 }],
  memory64: [{ base: 0x10_0000_0000, sizeBytes: 0x100_0000 }],
};

/** Numerical Recipes' generator: the same guest each time. */
function randomNumbers(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** Remembers what the root said last of each BAR. */
class PlacedFunction extends FakePciFunction {
  readonly places: Map<BarIndex, number> = new Map();
  override barPlaced(index: BarIndex, address: Gpa | undefined): void {
    if (address === undefined) this.places.delete(index);
    else this.places.set(index, address);
  }
}

const barName = (fn: FakePciFunction, index: BarIndex): string =>
  index === 6 ? `${fn.name} expansion ROM` : `${fn.name} BAR ${index}`;

function isInWindow(range: BusRange, windows: readonly { base: number; sizeBytes: number }[]): boolean {
  return windows.some(({ base, sizeBytes }) => range.base >= base && range.base + range.sizeBytes <= base + sizeBytes);
}

t.test("PciRoot stays consistent whatever a guest writes into configuration space and tables", async (t) => {
  const random = randomNumbers(20_260_101);
  const ports = new Bus("port");
  const mmio = new Bus("mmio");
  const root = new PciRoot({ gsiOf: intxGsi, ports, mmio, windows: WINDOWS });
  const router = new FakeMsiRouter();
  const functions = ["a", "b", "c"].map((name) => {
    const fn = new PlacedFunction(name, [
      { kind: "mem32", index: 0, sizeBytes: 0x1000, isPrefetchable: false },
      { kind: "mem64", index: 2, sizeBytes: 0x4000, isPrefetchable: true },
      { kind: "io", index: 4, sizeBytes: 0x40 },
      { kind: "rom", index: 6, sizeBytes: 0x800 },
    ]);
    const msi = new MsiCapability({ config: fn.config, router, vectorCount: 8 });
    const place = { bar: 0, offset: 0 } as const;
    const msix = new MsixCapability({
      config: fn.config,
      router,
      vectorCount: 5,
      table: place,
      pba: { bar: 0, offset: 0x800 },
    });
    fn.reset = () => {
      msi.reset();
      msix.reset();
    };
    root.plug(fn);
    return { fn, msi, msix };
  });
  root.assignBars();

  const values = [
    0, 0xffff_ffff, 0x7, 0xc000_0001, 0xc000_1000, 0xc000_3000, 0x10, 0x1001, 0x1041, 0x8000_0000, 0x000f,
  ];
  const offsets = [0x04, 0x10, 0x18, 0x1c, 0x20, 0x30, 0x40, 0x42, 0x44, 0x4c, 0x50, 0x58, 0x5a];
  const pick = (list: readonly number[]): number => list[random(list.length)] ?? 0;
  const widths: readonly Width[] = [1, 2, 4];
  let attachedCount = 0;
  for (let step = 0; step < 20_000; step++) {
    const width = widths[random(3)] ?? 1;
    const value = random(4) === 0 ? random(2 ** 32) : pick(values);
    const owner = functions[random(functions.length)];
    if (owner === undefined) continue;
    const action = random(20);
    if (action < 12) {
      const offset = random(4) === 0 ? random(4200) : pick(offsets) + random(2);
      root.configWrite(0, 1 + functions.indexOf(owner), 0, offset, width, value);
    } else if (action < 17) owner.msix.writeTable(random(0x60), width, value);
    else if (action < 18) owner.msix.signal(random(8));
    else if (action < 19) owner.msi.signal(random(10));
    else if (random(50) === 0) root.reset();
    root.configRead(0, 1 + random(4), random(2), random(4200), width);
    owner.msix.readPba(random(16), width);
    const strays = [
      ...mmio.ranges.filter((range) => !isInWindow(range, [...WINDOWS.memory32, ...WINDOWS.memory64])),
      ...ports.ranges.filter((range) => !isInWindow(range, WINDOWS.ports)),
    ];
    const told = functions.flatMap(({ fn }) => [...fn.places].map(([index, base]) => `${barName(fn, index)}@${base}`));
    const attached = [...mmio.ranges, ...ports.ranges].map((range) => `${range.device.name}@${range.base}`);
    attachedCount += attached.length;
    if (strays.length > 0 || told.sort().join() !== attached.sort().join()) {
      t.same([strays, told], [[], attached], `after write ${step}`);
      break;
    }
  }
  t.ok(attachedCount > 1000, "the run did have BARs on the buses");

  t.ok(router.deliveries.length > 0, "the run did deliver interrupts");
  for (const { fn, msi, msix } of functions) {
    fn.config.write(msi.offset + 2, 2, 0);
    fn.config.write(msix.offset + 2, 2, 0);
    fn.config.write(0x04, 2, 0);
  }
  t.equal(router.live.length, 0, "no route is leaked");
  t.equal(mmio.ranges.length + ports.ranges.length, 0);
});
