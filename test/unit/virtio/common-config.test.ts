import t from "tap";
import { gpa, type Width } from "../../../src/base/units.ts";
import { EchoDevice } from "../../support/echo-device.ts";
import { plugVirtio, type VirtioBench } from "../../support/virtio-bench.ts";

const VERSION_1 = 1n << 32n;
const buffer = { address: 0x10_0000, sizeBytes: 16 };

function plug(device = new EchoDevice()): VirtioBench & { readonly device: EchoDevice } {
  return { ...plugVirtio(() => device), device };
}

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
