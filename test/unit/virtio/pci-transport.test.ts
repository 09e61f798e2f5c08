import t from "tap";
import { Bus } from "../../../src/base/bus.ts";
import { gpa } from "../../../src/base/units.ts";
import { PciRoot } from "../../../src/pci/root.ts";
import { intxGsi } from "../../../src/vmm/shared/memory-map.ts";
import { EchoDevice } from "../../support/echo-device.ts";
import { BAR_ADDRESS } from "../../support/guest-driver.ts";
import { plugVirtio, type VirtioBench } from "../../support/virtio-bench.ts";

const buffer = { address: 0x10_0000, sizeBytes: 16 };

function plug(device = new EchoDevice()): VirtioBench & { readonly device: EchoDevice } {
  return { ...plugVirtio(() => device), device };
}

t.test("VirtioPciFunction is a modern virtio function", async (t) => {
  const { driver, pci } = plug();
  t.equal(driver.config(0x00, 4), 0x106a_1af4);
  t.equal(driver.config(0x08, 1), 1);
  t.ok(driver.config(0x2e, 2) >= 0x40);
  t.equal(driver.config(0x3d, 1), 1, "INTA");
  t.strictSame(pci.barRequests, [{ kind: "mem64", index: 0, sizeBytes: 0x8000, isPrefetchable: false }]);
});

t.test("VirtioPciFunction's structures lie in its BAR and do not overlap", async (t) => {
  const { driver, pci } = plug();
  const kinds = driver.capabilities(0x09).map((at) => driver.config(at + 3, 1));
  t.strictSame(kinds, [1, 2, 3, 4, 5]);
  const sizes = [0x38, 8, 1, 8];
  const ranges = [1, 2, 3, 4].map((kind) => driver.place(kind));
  t.strictSame(
    ranges.map((place) => place.length),
    sizes,
  );
  const msix = driver.capabilities(0x11)[0] ?? 0;
  t.equal(driver.config(msix + 2, 2), 2, "three vectors");
  ranges.push({ bar: 0, offset: driver.config(msix + 4, 4) & ~7, length: 48 });
  ranges.push({ bar: 0, offset: driver.config(msix + 8, 4) & ~7, length: 8 });
  ranges.sort((a, b) => a.offset - b.offset);
  for (const [i, place] of ranges.entries()) {
    t.equal(place.bar, 0);
    t.ok(place.offset + place.length <= (ranges[i + 1]?.offset ?? pci.barRequests[0]?.sizeBytes ?? 0));
  }
  for (const at of driver.capabilities(0x09)) {
    t.equal(driver.config(at + 2, 1), [2, 5].includes(driver.config(at + 3, 1)) ? 20 : 16, "cap_len");
  }
});

t.test("VirtioPciFunction.reset() also switches MSI-X off and lowers the pin", async (t) => {
  const { driver, pci, router, line, device } = plug();
  const [queue] = driver.start();
  pci.reset();
  t.equal(driver.status, 0);
  t.equal(router.live.length, 0);
  queue?.notify();
  t.strictSame(device.chains, []);
  const [again] = driver.start(0n, { msix: false });
  again?.add([buffer]);
  again?.notify();
  t.ok(line.isHigh);
  pci.reset();
  t.notOk(line.isHigh);
});

t.test("VirtioPciFunction sends no message for a queue without a vector", async (t) => {
  const { driver, router, line } = plug();
  const [queue] = driver.start();
  driver.write(1, 0x16, 2, 0);
  driver.write(1, 0x1a, 2, 0xffff);
  queue?.add([buffer]);
  queue?.notify();
  t.equal(queue?.usedIndex, 1);
  t.equal(router.deliveries.length, 0);
  t.notOk(line.isHigh);
});

t.test("VirtioPciFunction keeps a message pending while the vector is masked", async (t) => {
  const { driver, pci } = plug();
  const [queue] = driver.start();
  const msix = driver.capabilities(0x11)[0] ?? 0;
  const entry = (driver.config(msix + 4, 4) & ~7) + 16;
  pci.writeBar(0, entry + 12, 4, 1);
  queue?.add([buffer]);
  queue?.notify();
  t.equal(driver.interrupts(1), 0);
  t.equal(pci.readBar(0, driver.config(msix + 8, 4) & ~7, 4), 2);
  pci.writeBar(0, entry + 12, 4, 0);
  t.equal(driver.interrupts(1), 1);
});

t.test("Without MSI-X the pin is high from an event until the ISR is read", async (t) => {
  const { driver, line, device } = plug();
  const [queue] = driver.start(0n, { msix: false });
  queue?.add([buffer]);
  queue?.notify();
  t.ok(line.isHigh);
  t.equal(driver.config(0x06, 2) & 8, 8, "interrupt bit of the PCI status");
  device.transport?.configChanged();
  t.equal(line.rises, 1);
  t.equal(driver.isr, 3);
  t.notOk(line.isHigh);
  t.equal(driver.config(0x06, 2) & 8, 0);
  t.equal(driver.isr, 0);
});

t.test("The INTx disable bit holds the pin low, not the status bit", async (t) => {
  const { driver, line } = plug();
  const [queue] = driver.start(0n, { msix: false });
  driver.setConfig(0x04, 2, 0x0406);
  queue?.add([buffer]);
  queue?.notify();
  t.notOk(line.isHigh);
  t.equal(driver.config(0x06, 2) & 8, 8);
  driver.setConfig(0x04, 2, 0x0006);
  t.ok(line.isHigh);
});

t.test("Switching MSI-X on takes the pin down", async (t) => {
  const { driver, line } = plug();
  const [queue] = driver.start(0n, { msix: false });
  queue?.add([buffer]);
  queue?.notify();
  t.ok(line.isHigh);
  driver.enableMsix(3);
  t.notOk(line.isHigh);
});

t.test("A device reset lowers the pin", async (t) => {
  const { driver, line } = plug();
  const [queue] = driver.start(0n, { msix: false });
  queue?.add([buffer]);
  queue?.notify();
  driver.status = 0;
  t.notOk(line.isHigh);
  t.equal(driver.isr, 0);
});

t.test("VirtioPciFunction hears of queues by trapped writes where the host has no doorbells left", async (t) => {
  const { driver, pci, doorbells, device, reports } = plug();
  doorbells.room = 1;
  pci.barPlaced(0, undefined);
  pci.barPlaced(0, gpa(BAR_ADDRESS));
  t.equal(doorbells.addresses.length, 1);
  t.match(reports, [/^virtio0: not all queues have doorbells/]);
  const [, second] = driver.start();
  second?.add([buffer]);
  second?.notify();
  t.equal(device.chains.length, 1);
  pci.barPlaced(0, undefined);
  t.same(doorbells.addresses, []);
});

t.test("VirtioPciFunction.barPlaced() moves one doorbell for each queue with the BAR", async (t) => {
  const { driver, pci, doorbells, device } = plug();
  const notify = driver.place(2).offset;
  t.strictSame(doorbells.addresses, [BAR_ADDRESS + notify, BAR_ADDRESS + notify + 4]);
  driver.start();
  device.log.length = 0;
  doorbells.ring(BAR_ADDRESS + notify + 4, 2);
  t.strictSame(device.log, ["notified 1"]);

  pci.barPlaced(0, gpa(0x10_0000_0000));
  t.strictSame(doorbells.addresses, [0x10_0000_0000 + notify, 0x10_0000_0000 + notify + 4]);
  pci.barPlaced(0, undefined);
  t.strictSame(doorbells.addresses, []);
  pci.barPlaced(1, gpa(0x1000));
  t.strictSame(doorbells.addresses, [], "BAR 1 is the upper half of BAR 0");
});

t.test("VirtioPciFunction behind a PciRoot answers where the guest puts its BAR", async (t) => {
  const { driver, pci, doorbells, device } = plug();
  pci.barPlaced(0, undefined);
  const mmio = new Bus("mmio");
  const root = new PciRoot({
    gsiOf: intxGsi,
    ports: new Bus("ports"),
    mmio,
    windows: { ports: [], memory32: [], memory64: [{ base: 0x10_0000_0000, sizeBytes: 0x10_0000 }] },
  });
  root.plug(pci, 1);
  root.configWrite(0, 1, 0, 0x10, 4, 0x0001_0000);
  root.configWrite(0, 1, 0, 0x14, 4, 0x10);
  root.configWrite(0, 1, 0, 0x04, 2, 0x0006);
  const common = 0x10_0001_0000 + driver.place(1).offset;
  t.equal(mmio.read(common + 0x12, 2), 2, "num_queues");
  mmio.write(common + 0x14, 1, 1);
  t.equal(driver.status, 1);
  const notify = 0x10_0001_0000 + driver.place(2).offset;
  t.strictSame(doorbells.addresses, [notify, notify + 4]);

  driver.start();
  root.reset();
  t.equal(driver.status, 0);
  t.equal(device.log.at(-1), "reset");
  t.strictSame(doorbells.addresses, [], "decode is off after a reset");
});

t.test("A notification that traps is a notification too", async (t) => {
  const { driver, device } = plug();
  driver.start();
  device.log.length = 0;
  driver.write(2, 4, 2, 1);
  driver.write(2, 0, 4, 0);
  driver.write(2, 2, 2, 0); // between two doorbells
  t.strictSame(device.log, ["notified 1", "notified 0"]);
});

t.test("VirtioPciFunction passes the device's configuration through", async (t) => {
  const { driver } = plug();
  driver.write(4, 0, 4, 0x1234_5678);
  t.equal(driver.read(4, 1, 2), 0x3456);
  driver.write(4, 3, 1, 0xff);
  t.equal(driver.read(4, 0, 4), 0xff34_5678);
  t.equal(driver.read(4, 8, 4), 0, "behind its end");
});

t.test("The configuration window reads and writes the BAR", async (t) => {
  const { driver, device } = plug();
  const at = driver.capabilities(0x09).find((cap) => driver.config(cap + 3, 1) === 5) ?? 0;
  const aim = (bar: number, offset: number, length: number): void => {
    driver.setConfig(at + 4, 1, bar);
    driver.setConfig(at + 8, 4, offset);
    driver.setConfig(at + 12, 4, length);
  };
  aim(0, driver.place(1).offset + 0x14, 1);
  driver.setConfig(at + 16, 1, 3);
  t.equal(driver.status, 3);
  t.equal(driver.config(at + 16, 1), 3);

  aim(0, driver.place(4).offset, 4);
  driver.setConfig(at + 16, 4, 0x89ab_cdef);
  t.equal(device.readConfig(0, 4), 0x89ab_cdef);
  t.equal(driver.config(at + 16, 4), 0x89ab_cdef);
  t.equal(driver.config(at + 18, 2), 0x89ab);

  for (const [bar, offset, length] of [
    [1, 0x2000, 4],
    [0, 0x2002, 4],
    [0, 0x2000, 3],
    [0, 0x2000, 0],
    [0, 0x8000, 4],
    [0, 0xffff_fffc, 4],
  ]) {
    aim(bar ?? 0, offset ?? 0, length ?? 0);
    driver.setConfig(at + 16, 4, 0);
    t.equal(driver.config(at + 16, 4), 0);
  }
  t.equal(device.readConfig(0, 4), 0x89ab_cdef);
});

t.test("VirtioPciFunction.close() closes the device and gives everything back", async (t) => {
  const { driver, pci, device, router, doorbells } = plug();
  driver.start();
  pci.close();
  t.equal(device.log.at(-1), "close");
  t.equal(router.live.length, 0);
  t.strictSame(doorbells.addresses, []);
});

t.test("VirtioPciFunction carries out an access over the border of two structures in both", async (t) => {
  const { driver, pci } = plug();
  driver.status = 1;
  // The notifications' page ends at 0x4000, where the MSI-X table begins.
  pci.writeBar(0, 0x3ffe, 4, 0x6858_0000);
  t.equal(pci.readBar(0, 0x4000, 4), 0x0000_6858);
  t.equal(pci.readBar(0, 0x3ffe, 4), 0x6858_0000);
  t.equal(pci.readBar(0, 0x3fff, 2), 0x5800);
});

t.test("VirtioPciFunction.inspect() and peek() show features, status and queues, and clear nothing", async (t) => {
  const { driver, pci } = plug();
  t.match(pci.inspect(), { deviceId: 42, status: 0, driverFeatures: "0x0", isr: 0, queues: [{}, {}] });
  const [queue] = driver.start(0n, { msix: false });
  const { status, driverFeatures } = pci.inspect();
  t.equal(status, 0x0f);
  t.equal(driverFeatures, "0x100000000");
  queue?.add([buffer]);
  const indices = (): object | undefined => pci.inspect().queues[0]?.indices;
  t.same(indices(), { isLive: true, available: 1, nextAvailable: 0, used: 0, inFlight: 0 });
  queue?.notify();
  t.same(indices(), { isLive: true, available: 1, nextAvailable: 1, used: 1, inFlight: 0 });
  // The window to the BAR leads to the ISR status, which a read clears.
  const window = driver.capabilities(0x09).find((at) => driver.config(at + 3, 1) === 5) ?? 0;
  driver.setConfig(window + 8, 4, driver.place(3).offset);
  driver.setConfig(window + 12, 4, 1);
  t.equal(pci.config.peek()[window + 16], 0);
  t.equal(pci.inspect().isr, 1);
  t.equal(driver.config(window + 16, 1), 1, "the guest still finds it");
  t.equal(pci.inspect().isr, 0);
});
