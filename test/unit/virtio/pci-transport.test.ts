import t from "tap";
import { Bus } from "../../../src/base/bus.ts";
import { gpa, type Width } from "../../../src/base/units.ts";
import { PciRoot } from "../../../src/pci/root.ts";
import { EchoDevice } from "../../support/echo-device.ts";
import { BAR_ADDRESS } from "../../support/guest-driver.ts";
import { plugVirtio, type VirtioBench } from "../../support/virtio-bench.ts";

const VERSION_1 = 1n << 32n;
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

t.test("VirtioPciFunction offers VERSION_1, EVENT_IDX and INDIRECT_DESC beside the device's own", async (t) => {
  const { driver } = plug(new EchoDevice(1n << 5n));
  t.equal(driver.offeredFeatures(), VERSION_1 | (1n << 29n) | (1n << 28n) | (1n << 5n));
  driver.write(1, 0x00, 4, 2);
  t.equal(driver.read(1, 0x04, 4), 0, "no features above 63");
});

t.test("VirtioPciFunction refuses FEATURES_OK without VERSION_1 or with features that were not offered", async (t) => {
  const { driver, reports } = plug(new EchoDevice(1n << 5n));
  t.notOk(driver.negotiate(1n << 5n));
  t.notOk(driver.negotiate(VERSION_1 | (1n << 6n)));
  t.notOk(driver.negotiate(VERSION_1 | (1n << 6n)));
  t.equal(driver.status, 0x03);
  t.equal(reports.length, 2);
  t.ok(driver.negotiate(VERSION_1 | (1n << 5n)));
  t.equal(driver.status, 0x0b);
});

t.test("VirtioPciFunction keeps the features after FEATURES_OK", async (t) => {
  const { driver, device } = plug(new EchoDevice(1n << 5n));
  driver.negotiate(VERSION_1);
  driver.write(1, 0x08, 4, 0);
  driver.write(1, 0x0c, 4, 1 << 5);
  driver.status = 0x0f;
  t.ok(device.log.includes("activate 0x100000000"));
});

t.test("VirtioPciFunction starts the device at DRIVER_OK, not before", async (t) => {
  const { driver, device } = plug();
  driver.negotiate(VERSION_1);
  const queue = driver.setUpQueue(0);
  queue.add([buffer]);
  queue.notify();
  t.equal(queue.usedIndex, 0);
  t.strictSame(device.log, ["reset"]);
  driver.status = 0x0f;
  t.equal(queue.usedIndex, 1, "what was there before is looked at");
  t.equal(device.queues[1], undefined, "a queue left disabled");
});

t.test("VirtioPciFunction refuses DRIVER_OK without FEATURES_OK", async (t) => {
  const { driver, device, reports } = plug();
  driver.status = 1;
  driver.status = 7;
  t.equal(driver.status, 3);
  t.strictSame(device.log, []);
  t.equal(reports.length, 1);
});

t.test("VirtioPciFunction takes no status bit away but by a reset, and lets the driver set only its own", async (t) => {
  const { driver } = plug();
  driver.start();
  driver.status = 0x01;
  t.equal(driver.status, 0x0f);
  driver.status = 0x7f;
  t.equal(driver.status, 0x0f);
  driver.status = 0x8f;
  t.equal(driver.status, 0x8f);
  driver.status = 0;
  t.equal(driver.status, 0);
});

t.test("A reset puts every register back and the device to sleep", async (t) => {
  const { driver, device } = plug();
  const [queue] = driver.start();
  driver.status = 0;
  t.equal(device.log.at(-1), "reset");
  t.equal(driver.read(1, 0x10, 2), 0xffff);
  t.equal(driver.read(1, 0x1a, 2), 0xffff);
  t.equal(driver.read(1, 0x18, 2), 16);
  t.equal(driver.read(1, 0x1c, 2), 0);
  t.strictSame(
    [0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].map((offset) => driver.read(1, offset, 4)),
    [0, 0, 0, 0, 0, 0],
  );
  driver.write(1, 0x08, 4, 1);
  t.equal(driver.read(1, 0x0c, 4), 0);
  queue?.add([buffer]);
  queue?.notify();
  t.equal(queue?.usedIndex, 0);
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

t.test("VirtioPciFunction answers nothing for a queue that is not there", async (t) => {
  const { driver, device } = plug();
  driver.write(1, 0x16, 2, 2);
  t.equal(driver.read(1, 0x18, 2), 0, "queue_size");
  t.equal(driver.read(1, 0x1a, 2), 0xffff, "queue_msix_vector");
  driver.write(1, 0x18, 2, 8);
  driver.write(1, 0x1a, 2, 1);
  driver.write(1, 0x1c, 2, 1);
  driver.setQueueAddresses(0x1000, 0x2000, 0x3000);
  t.equal(driver.read(1, 0x18, 2), 0);
  t.equal(driver.read(1, 0x1c, 2), 0);
  t.equal(driver.read(1, 0x20, 4), 0);
  driver.start();
  driver.write(2, 8, 2, 2);
  t.notOk(device.log.includes("notified 2"));
});

t.test("VirtioPciFunction takes queue sizes that are powers of two up to its own", async (t) => {
  const { driver } = plug();
  for (const [written, read] of [
    [8, 8],
    [0, 8],
    [6, 8],
    [32, 8],
    [0x8000, 8],
    [1, 1],
    [16, 16],
  ]) {
    driver.write(1, 0x18, 2, written ?? 0);
    t.equal(driver.read(1, 0x18, 2), read);
  }
});

t.test("VirtioPciFunction settles a queue when it is enabled", async (t) => {
  const { driver } = plug();
  driver.negotiate(VERSION_1);
  const queue = driver.setUpQueue(0);
  driver.write(1, 0x18, 2, 8);
  driver.setQueueAddresses(0, 0, 0);
  driver.write(1, 0x1c, 2, 0);
  t.equal(driver.read(1, 0x18, 2), 16);
  t.equal(driver.read(1, 0x20, 4), queue.descriptors);
  t.equal(driver.read(1, 0x1c, 2), 1);
});

const badAddresses: Readonly<Record<string, readonly [number, number, number]>> = {
  "a descriptor table outside RAM": [0x100_0000, 0x2000, 0x3000],
  "a descriptor table that leaves RAM": [0x100_0000 - 16 * 15, 0x2000, 0x3000],
  "a misaligned descriptor table": [0x1008, 0x2000, 0x3000],
  "an available ring outside RAM": [0x1000, 2 ** 40, 0x3000],
  "a misaligned available ring": [0x1000, 0x2001, 0x3000],
  "a used ring that leaves RAM": [0x1000, 0x2000, 0x100_0000 - 4],
  "a misaligned used ring": [0x1000, 0x2000, 0x3002],
  "an address no address space reaches": [2 ** 63, 0x2000, 0x3000],
};

for (const [what, [descriptors, available, used]] of Object.entries(badAddresses)) {
  t.test(`VirtioPciFunction does not enable a queue with ${what}`, async (t) => {
    const { driver, reports, device } = plug();
    driver.negotiate(VERSION_1);
    driver.setQueueAddresses(descriptors, available, used);
    driver.write(1, 0x1c, 2, 1);
    t.equal(driver.read(1, 0x1c, 2), 0);
    t.equal(driver.status, 0x4b);
    t.equal(reports.length, 1);
    driver.status = 0x0f;
    t.equal(driver.status, 0x4b, "no DRIVER_OK before a reset");
    t.strictSame(device.queues, []);
  });
}

t.test("VirtioPciFunction enables no queue after DRIVER_OK", async (t) => {
  const { driver, reports } = plug();
  driver.negotiate(VERSION_1);
  driver.status = 0x0f;
  driver.setUpQueue(1);
  t.equal(driver.read(1, 0x1c, 2), 0);
  t.equal(reports.length, 1);
});

t.test("VirtioPciFunction answers NO_VECTOR to a vector that is not there", async (t) => {
  const { driver } = plug();
  driver.write(1, 0x10, 2, 2);
  t.equal(driver.read(1, 0x10, 2), 2);
  driver.write(1, 0x10, 2, 3);
  t.equal(driver.read(1, 0x10, 2), 0xffff);
  driver.write(1, 0x1a, 2, 0x1234);
  t.equal(driver.read(1, 0x1a, 2), 0xffff);
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

/** A 32-bit generator (xorshift), so that a failure comes again. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

t.test("VirtioPciFunction survives a driver that writes anything anywhere in any order", async (t) => {
  const widths: readonly Width[] = [1, 2, 4];
  const values = [0, 1, 2, 3, 4, 8, 0x0b, 0x0f, 0x10, 0x1000, 0x2000, 0xffff, 0xff_f000, 0xffff_ffff];
  for (let seed = 1; seed <= 20; seed++) {
    const { driver, pci, memory, reports, deferred } = plug(new EchoDevice(0n, [4, 8, 16]));
    const random = randomFrom(seed * 0x9e37_79b1);
    for (let i = 0; i < 0x4000; i += 4) memory.writeU32(gpa(i), random(4) === 0 ? random(2 ** 32) : random(32));
    for (let step = 0; step < 3000; step++) {
      const width = widths[random(3)] ?? 4;
      const value = random(3) === 0 ? random(2 ** 32) : (values[random(values.length)] ?? 0);
      const kept = width === 4 ? value : value & (width === 2 ? 0xffff : 0xff);
      switch (random(8)) {
        case 0:
          pci.writeBar(0, random(0x9000), width, kept);
          break;
        case 1:
          driver.setConfig(random(260), width, kept);
          break;
        case 2:
          pci.readBar(0, random(0x9000), width);
          break;
        case 3:
          driver.ring(4 * random(4), random(0x1_0000));
          break;
        case 4:
          if (random(10) === 0) driver.start(BigInt(random(4)) << 28n);
          break;
        default:
          driver.write(1, random(0x3c), width, kept);
      }
      for (const work of deferred.splice(0)) work();
    }
    t.ok(reports.length < 30, `seed ${seed}: each text is reported once`);
    t.equal(new Set(reports).size, reports.length);
    // It still works after a reset.
    pci.reset();
    const [queue] = driver.start();
    queue?.add([buffer]);
    queue?.notify();
    t.match(queue?.take(), { writtenBytes: 0 }, `seed ${seed}`);
    t.equal(driver.status, 0x0f, `seed ${seed}`);
  }
});
