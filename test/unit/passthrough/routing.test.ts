import t, { type Test } from "tap";
import { EventFd } from "../../../src/host/eventfd.ts";
import { IrqRouting } from "../../../src/kvm/irq-routing.ts";
import type { FakeDevice } from "../../support/fake-device-backend.ts";
import { EDU, KIOXIA } from "../../support/fake-devices.ts";
import { FakeKvmInterrupts } from "../../support/fake-kvm-interrupts.ts";
import { FakePassthroughHost, PassthroughBench } from "../../support/fake-passthrough-host.ts";
import { pciImage, u16 } from "../../support/pci-image.ts";

/*
 * Device and KVM are fakes, everything between them is the program's own: configuration space, MSI and MSI-X registers,
 * routes with real eventfds, the routing table. The test is the guest on one side and the device, by the eventfds it
 * was given, on the other.
 */

const MSIX_AT = 0x40;
const MSI_AT = 0x40;
const ENABLE = 0x8000;
const FUNCTION_MASK = 0x4000;

interface Wired {
  readonly bench: PassthroughBench;
  readonly kvm: FakeKvmInterrupts;
  /** The device signals its vector, which the host must have connected. */
  signal(vector: number): void;
}

function wire(t: Test, device: FakeDevice): Wired {
  const kvm = new FakeKvmInterrupts();
  const host = new FakePassthroughHost(new IrqRouting(kvm, 4096, () => undefined));
  const bench = new PassthroughBench(device, {}, undefined, host);
  t.teardown(() => bench.function.close());
  bench.write(0x04, 2, 2);
  kvm.pushes = 0;
  return {
    bench,
    kvm,
    signal: (vector) => {
      const kind = bench.backend.triggers.has("msix") ? "msix" : "msi";
      const eventFd = bench.backend.triggers.get(kind)?.[vector];
      if (eventFd === undefined || eventFd < 0) throw new Error(`${kind} vector ${vector} is not armed`);
      EventFd.attach(eventFd).signal();
    },
  };
}

/** Fills an entry of KIOXIA's table, whose first byte is at 0x5200 of BAR 0. */
function writeEntry({ bench }: Wired, vector: number, isMasked: boolean): void {
  const entry = bench.barAddress(0) + 0x5200 + 16 * vector;
  bench.host.mmio.write(entry, 4, 0xfee0_0000);
  bench.host.mmio.write(entry + 4, 4, 0);
  bench.host.mmio.write(entry + 8, 4, 0x4030 + vector);
  bench.host.mmio.write(entry + 12, 4, isMasked ? 1 : 0);
}

const maskEntry = ({ bench }: Wired, vector: number, isMasked: boolean): void =>
  bench.host.mmio.write(bench.barAddress(0) + 0x5200 + 16 * vector + 12, 4, isMasked ? 1 : 0);

const pendingBits = ({ bench }: Wired): number => bench.host.mmio.read(bench.barAddress(0) + 0xd600, 4);

const armed = ({ bench }: Wired, kind: "msi" | "msix"): readonly number[] =>
  (bench.backend.triggers.get(kind) ?? []).flatMap((eventFd, vector) => (eventFd >= 0 ? [vector] : []));

t.test("Passthrough requests only the vectors that the guest unmasks from a host that can grow", async (t) => {
  const wired = wire(t, KIOXIA);
  const { bench } = wired;
  for (let vector = 0; vector < 5; vector++) writeEntry(wired, vector, true);
  bench.write(MSIX_AT + 2, 2, ENABLE);
  t.same(armed(wired, "msix"), [], "129 vectors, five of them filled, none unmasked");
  maskEntry(wired, 0, false);
  maskEntry(wired, 3, false);
  t.same(armed(wired, "msix"), [0, 3]);
  t.equal(bench.backend.triggers.get("msix")?.length, 4, "no place beyond the last vector in use");
  const log = bench.host.takeLog();
  t.equal(log.filter((line) => line === "disarm msix").length, 0, "grown, not armed anew");
});

t.test("Passthrough arms all vectors anew where the host cannot grow, and loses no interrupt of the gap", async (t) => {
  const wired = wire(t, { ...KIOXIA, interrupts: { ...KIOXIA.interrupts, msix: { count: 129, canGrow: false } } });
  const { bench, kvm } = wired;
  bench.write(MSIX_AT + 2, 2, ENABLE);
  writeEntry(wired, 0, false);
  bench.host.takeLog();
  writeEntry(wired, 1, false);
  const log = bench.host.takeLog().filter((line) => /^(disarm|arm) msix/.test(line));
  t.equal(log[0], "disarm msix");
  t.match(log[1], /^arm msix 0: \d+ \d+$/);
  t.equal(log.length, 2);
  t.same(armed(wired, "msix"), [0, 1]);
  t.same(kvm.deliver(), [0x4030], "what came to vector 0 meanwhile is made up for");
});

t.test(
  "Passthrough updates KVM's routing table once for a control write, however many vectors it unmasks",
  async (t) => {
    const wired = wire(t, KIOXIA);
    const { bench, kvm } = wired;
    for (let vector = 0; vector < 100; vector++) writeEntry(wired, vector, false);
    t.equal(kvm.pushes, 0, "nothing is routed before MSI-X is enabled");
    bench.write(MSIX_AT + 2, 2, ENABLE | FUNCTION_MASK);
    t.equal(kvm.pushes, 0, "nor while the function is masked");
    bench.write(MSIX_AT + 2, 2, ENABLE);
    t.equal(kvm.pushes, 1);
    t.equal(kvm.irqfds.size, 100);
    bench.write(MSIX_AT + 2, 2, ENABLE | FUNCTION_MASK);
    t.equal(kvm.irqfds.size, 0);
    bench.write(MSIX_AT + 2, 2, ENABLE);
    t.equal(kvm.irqfds.size, 100);
    t.equal(kvm.pushes, 1, "the entries are as they were");
    bench.write(MSIX_AT + 2, 2, 0);
    t.equal(kvm.irqfds.size, 0);
  },
);

t.test("Passthrough updates KVM's routing table once when the guest enables several MSI messages", async (t) => {
  const { bench, kvm } = wire(t, EDU);
  bench.write(MSI_AT + 4, 4, 0xfee0_0000);
  bench.write(MSI_AT + 12, 2, 0x4050);
  bench.write(MSI_AT + 2, 2, 0x0021);
  t.equal(kvm.irqfds.size, 4);
  t.equal(kvm.pushes, 1);
});

t.test("Passthrough keeps back a masked MSI-X entry's interrupt and shows its pending bit", async (t) => {
  const wired = wire(t, KIOXIA);
  const { bench, kvm, signal } = wired;
  bench.write(MSIX_AT + 2, 2, ENABLE);
  for (const vector of [0, 1, 2]) writeEntry(wired, vector, false);
  signal(1);
  t.same(kvm.deliver(), [0x4031]);
  maskEntry(wired, 1, true);
  t.equal(pendingBits(wired), 0, "nothing came yet");
  signal(1);
  signal(1);
  signal(2);
  t.same(kvm.deliver(), [0x4032], "the others go on");
  t.equal(pendingBits(wired), 0b010);
  t.equal(pendingBits(wired), 0b010, "reading does not clear it");
});

t.test("Passthrough delivers what came to a masked MSI-X entry once when the guest unmasks it", async (t) => {
  const wired = wire(t, KIOXIA);
  const { bench, kvm, signal } = wired;
  bench.write(MSIX_AT + 2, 2, ENABLE);
  writeEntry(wired, 1, false);
  maskEntry(wired, 1, true);
  for (let count = 0; count < 3; count++) signal(1);
  t.equal(pendingBits(wired), 0b010);
  maskEntry(wired, 1, false);
  t.same(kvm.deliver(), [0x4031], "one interrupt for three signals");
  t.equal(pendingBits(wired), 0);
  t.same(kvm.deliver(), [], "and no second one");
  signal(1);
  t.same(kvm.deliver(), [0x4031], "the vector works on");
});

t.test("Passthrough delivers by the message that the guest wrote while the entry was masked", async (t) => {
  const wired = wire(t, KIOXIA);
  const { bench, kvm, signal } = wired;
  bench.write(MSIX_AT + 2, 2, ENABLE);
  writeEntry(wired, 0, false);
  maskEntry(wired, 0, true);
  signal(0);
  bench.host.mmio.write(bench.barAddress(0) + 0x5208, 4, 0x4999);
  maskEntry(wired, 0, false);
  t.same(kvm.deliver(), [0x4999]);
});

t.test("Passthrough sends message n of several MSI messages as data | n", async (t) => {
  const { bench, kvm, signal } = wire(t, EDU);
  bench.write(MSI_AT + 4, 4, 0xfee0_0000);
  bench.write(MSI_AT + 12, 2, 0x4050);
  bench.write(MSI_AT + 2, 2, 0x0021); // four messages, enabled
  for (const vector of [0, 1, 2, 3]) {
    signal(vector);
    t.same(kvm.deliver(), [0x4050 | vector]);
  }
});

/** Eight MSI messages with mask bits, 64-bit addresses: mask bits at 0x10, pending bits at 0x14 of the capability. */
const MASKABLE_MSI: FakeDevice = {
  name: "0000:07:00.0",
  image: pciImage({
    vendorId: 0x1234,
    deviceId: 0x5678,
    classCode: 0x00_ff00,
    interruptPin: 1,
    capabilities: [{ id: 0x05, at: MSI_AT, body: [...u16(0x0186), ...new Array(20).fill(0)] }],
  }),
  regions: [],
  interrupts: { intx: { count: 1 }, msi: { count: 8 } },
};

t.test("Passthrough masks single MSI messages by their mask bits, with pending bits, and delivers once", async (t) => {
  const { bench, kvm, signal } = wire(t, MASKABLE_MSI);
  bench.write(MSI_AT + 4, 4, 0xfee0_0000);
  bench.write(MSI_AT + 12, 2, 0x4060);
  bench.write(MSI_AT + 2, 2, 0x0031);
  bench.write(MSI_AT + 0x10, 4, 0b0010_0000);
  signal(5);
  signal(6);
  t.same(kvm.deliver(), [0x4066]);
  t.equal(bench.read(MSI_AT + 0x14, 4), 0b0010_0000);
  bench.write(MSI_AT + 0x10, 4, 0);
  t.same(kvm.deliver(), [0x4065]);
  t.equal(bench.read(MSI_AT + 0x14, 4), 0);
  t.same(kvm.deliver(), []);
});

/** Each way of writing 1, 2 or 4 bytes that touches the byte at `target` without leaving the capability. */
function waysToTouch(target: number, start: number, end: number): readonly { width: 1 | 2 | 4; offset: number }[] {
  const ways: { width: 1 | 2 | 4; offset: number }[] = [];
  for (const width of [1, 2, 4] as const) {
    for (let offset = Math.max(start, target - width + 1); offset <= target && offset + width <= end; offset++) {
      ways.push({ width, offset });
    }
  }
  return ways;
}

/** Writes so that the byte at `target` becomes `value` and all others written keep what the guest reads there. */
function touch(
  bench: PassthroughBench,
  way: { width: 1 | 2 | 4; offset: number },
  target: number,
  value: number,
): void {
  let word = 0;
  for (let byte = 0; byte < way.width; byte++) {
    const at = way.offset + byte;
    word += (at === target ? value : bench.read(at, 1)) * 2 ** (8 * byte);
  }
  bench.write(way.offset, way.width, word);
}

t.test(
  "MSI-X enable and function mask are taken from writes of any width at any offset of the capability",
  async (t) => {
    const control = MSIX_AT + 3; // the byte of both bits
    const ways = waysToTouch(control, MSIX_AT, MSIX_AT + 12);
    t.equal(ways.length, 7, "1 + 2 + 4");
    for (const way of ways) {
      const wired = wire(t, KIOXIA);
      const { bench, kvm } = wired;
      writeEntry(wired, 0, false);
      const text = `${way.width} bytes at ${way.offset - MSIX_AT}`;
      touch(bench, way, control, 0xc0);
      t.equal(bench.function.summary().interrupts.kind, "msix", text);
      t.equal(kvm.irqfds.size, 0, `${text}: function masked`);
      touch(bench, way, control, 0x80);
      t.equal(kvm.irqfds.size, 1, `${text}: function unmasked`);
      touch(bench, way, control, 0);
      t.equal(bench.function.summary().interrupts.kind, "intx", `${text}: disabled`);
      t.equal(bench.read(MSIX_AT, 4) & 0xffff_00ff, 0x0080_0011, `${text}: nothing else changed`);
    }
  },
);

t.test("MSI enable and message count are taken from writes of any width at any offset of the capability", async (t) => {
  for (const way of waysToTouch(MSI_AT + 2, MSI_AT, MSI_AT + 24)) {
    const { bench, kvm } = wire(t, MASKABLE_MSI);
    const text = `${way.width} bytes at ${way.offset - MSI_AT}`;
    bench.write(MSI_AT + 4, 4, 0xfee0_0000);
    touch(bench, way, MSI_AT + 2, 0x21);
    t.equal(kvm.irqfds.size, 4, text);
    touch(bench, way, MSI_AT + 2, 0x31);
    t.equal(kvm.irqfds.size, 8, text);
    touch(bench, way, MSI_AT + 2, 0x30);
    t.equal(kvm.irqfds.size, 0, text);
  }
});

t.test("MSI mask bits are taken from writes of any width at any offset of the capability", async (t) => {
  for (const way of waysToTouch(MSI_AT + 0x10, MSI_AT, MSI_AT + 24)) {
    const { bench, kvm } = wire(t, MASKABLE_MSI);
    const text = `${way.width} bytes at ${way.offset - MSI_AT}`;
    bench.write(MSI_AT + 4, 4, 0xfee0_0000);
    bench.write(MSI_AT + 2, 2, 0x0031);
    touch(bench, way, MSI_AT + 0x10, 0b0111_1110);
    t.equal(kvm.irqfds.size, 2, text);
    touch(bench, way, MSI_AT + 0x10, 0);
    t.equal(kvm.irqfds.size, 8, text);
  }
});

t.test("MSI-X mask bits are taken from writes of 1, 2 and 4 bytes to the entry", async (t) => {
  for (const width of [1, 2, 4] as const) {
    const wired = wire(t, KIOXIA);
    wired.bench.write(MSIX_AT + 2, 2, ENABLE);
    writeEntry(wired, 0, false);
    const control = wired.bench.barAddress(0) + 0x520c;
    wired.bench.host.mmio.write(control, width, 1);
    t.equal(wired.kvm.irqfds.size, 0, `masked by ${width} bytes`);
    wired.bench.host.mmio.write(control, width, 0);
    t.equal(wired.kvm.irqfds.size, 1, `unmasked by ${width} bytes`);
  }
});
