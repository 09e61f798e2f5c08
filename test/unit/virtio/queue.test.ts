import t from "tap";
import { gpa } from "../../../src/base/units.ts";
import { EchoDevice } from "../../support/echo-device.ts";
import type { DriverQueue } from "../../support/guest-driver.ts";
import { plugVirtio, type VirtioBench } from "../../support/virtio-bench.ts";

const EVENT_IDX = 1n << 29n;
const INDIRECT_DESC = 1n << 28n;

interface Bench extends VirtioBench {
  readonly device: EchoDevice;
  readonly queue: DriverQueue;
}

function start(features = 0n, size = 16): Bench {
  const device = new EchoDevice();
  const bench = plugVirtio(() => device);
  const [queue] = bench.driver.start(features, { size });
  if (queue === undefined) throw new Error("The device has no queue");
  return { ...bench, device, queue };
}

const readable = { address: 0x10_0000, sizeBytes: 64 };
const writable = { address: 0x10_1000, sizeBytes: 32, isWritable: true };

t.test("Virtqueue gives chains back in order with their heads and lengths", async (t) => {
  const { queue, driver } = start();
  const first = queue.add([readable, writable]);
  const second = queue.add([readable]);
  queue.notify();
  t.strictSame(queue.take(), { id: first, writtenBytes: 32 });
  t.strictSame(queue.take(), { id: second, writtenBytes: 0 });
  t.equal(queue.take(), undefined);
  t.equal(driver.interrupts(1), 1, "one interrupt for the batch");
});

t.test("Virtqueue shows a batch with one store of the used index", async (t) => {
  const { queue, memory, device } = start();
  const seen: (number | undefined)[] = [];
  device.onChain = () => seen.push(memory.readU16(gpa(queue.used + 2)));
  for (let i = 0; i < 4; i++) queue.add([readable]);
  queue.notify();
  t.strictSame(seen, [0, 0, 0, 0]);
  t.equal(queue.usedIndex, 4);
});

t.test("Virtqueue reads indirect tables when negotiated", async (t) => {
  const { queue, device } = start(INDIRECT_DESC);
  queue.addIndirect([readable, readable, writable]);
  queue.notify();
  t.match(queue.take(), { writtenBytes: 32 });
  t.match(device.chains[0], { readableBytes: 128, writableBytes: 32 });
});

t.test("Virtqueue without EVENT_IDX obeys VIRTQ_AVAIL_F_NO_INTERRUPT", async (t) => {
  const { queue, driver } = start();
  queue.suppressInterrupts(true);
  queue.add([readable]);
  queue.notify();
  t.equal(queue.usedIndex, 1);
  t.equal(driver.interrupts(1), 0);
  queue.suppressInterrupts(false);
  queue.add([readable]);
  queue.notify();
  t.equal(driver.interrupts(1), 1);
});

t.test("Virtqueue without EVENT_IDX asks for no notifications while it drains, and for them afterwards", async (t) => {
  const { queue, device } = start();
  const wanted: boolean[] = [];
  device.onChain = () => wanted.push(queue.wantsNotification());
  queue.add([readable]);
  queue.notify();
  t.strictSame(wanted, [false]);
  t.equal(queue.wantsNotification(), true);
});

t.test("Virtqueue with EVENT_IDX interrupts when the used index steps past used_event", async (t) => {
  const { queue, driver } = start(EVENT_IDX);
  queue.setUsedEvent(2);
  for (const expected of [0, 0, 1, 1]) {
    queue.add([readable]);
    queue.notify();
    t.equal(driver.interrupts(1), expected);
  }
  queue.setUsedEvent(5);
  for (let i = 0; i < 3; i++) queue.add([readable]);
  queue.notify(); // steps over 5 in one go
  t.equal(driver.interrupts(1), 2);
});

t.test("Virtqueue with EVENT_IDX ignores the flag and keeps its own at 0", async (t) => {
  const { queue, driver, memory, device } = start(EVENT_IDX);
  queue.suppressInterrupts(true);
  const flags: (number | undefined)[] = [];
  device.onChain = () => flags.push(memory.readU16(gpa(queue.used)));
  queue.add([readable]);
  queue.notify();
  t.equal(driver.interrupts(1), 1);
  t.strictSame(flags, [0]);
});

t.test(
  "Virtqueue with EVENT_IDX sets avail_event to the next chain, so that exactly that one is notified",
  async (t) => {
    const { queue, memory } = start(EVENT_IDX);
    for (let i = 0; i < 3; i++) queue.add([readable]);
    t.equal(queue.kick(), true);
    t.equal(memory.readU16(gpa(queue.used + 4 + 8 * queue.size)), 3);
    queue.add([readable]);
    t.equal(queue.kick(), true);
  },
);

t.test("Virtqueue finds a chain that came between its last look and its asking for notifications", async (t) => {
  for (const features of [0n, EVENT_IDX]) {
    const { queue, memory, device } = start(features);
    let isAdded = false;
    queue.add([readable]);
    memory.onFence = () => {
      // The fence after asking: the guest's chain is there, its notification was suppressed.
      if (isAdded || queue.usedIndex !== 1) return;
      isAdded = true;
      queue.add([readable]);
    };
    queue.notify();
    t.equal(device.chains.length, 2);
    t.equal(queue.usedIndex, 2);
  }
});

t.test("Virtqueue interrupts a driver that asks for it just after the used index was stored", async (t) => {
  const { queue, memory, driver } = start(EVENT_IDX);
  queue.setUsedEvent(100);
  queue.add([readable]);
  memory.onFence = () => {
    if (queue.usedIndex === 1) queue.setUsedEvent(0); // it looked before our store and goes to sleep
  };
  queue.notify();
  t.equal(driver.interrupts(1), 1);
});

t.test("Virtqueue goes on over the wrap of its 16-bit indices", async (t) => {
  for (const features of [0n, EVENT_IDX]) {
    const { queue, driver } = start(features, 4);
    const total = 0x1_0000 + 10;
    for (let i = 0; i < total; i++) {
      queue.setUsedEvent(i & 0xffff);
      queue.add([writable]);
      if (!queue.kick()) throw new Error(`No notification was wanted for chain ${i}`);
      if (queue.take() === undefined) throw new Error(`Chain ${i} did not come back`);
    }
    t.equal(queue.usedIndex, 10);
    t.equal(driver.interrupts(1), total);
  }
});

t.test("Virtqueue puts a refilled queue off to the next turn after some rounds", async (t) => {
  const { queue, device, deferred } = start();
  queue.describe(0, { ...readable, flags: 0 });
  device.onChain = () => queue.offer(0); // a guest that never stops
  queue.offer(0);
  queue.notify();
  const served = device.chains.length;
  t.equal(deferred.length, 1);
  t.equal(queue.usedIndex, served);
  deferred.shift()?.();
  t.ok(device.chains.length > served);
});

t.test("Virtqueue asks for one further turn, however often the guest notifies before it comes", async (t) => {
  const { queue, device, deferred, turn } = start();
  queue.describe(0, { ...readable, flags: 0 });
  device.onChain = () => queue.offer(0);
  queue.offer(0);
  for (let turns = 0; turns < 50; turns++) {
    queue.notify();
    queue.notify();
    t.equal(deferred.length, 1);
    const served = device.chains.length;
    turn();
    t.ok(device.chains.length > served);
  }
});

t.test("Virtqueue takes what was made available before its further turn, without a notification", async (t) => {
  const { queue, device, turn } = start();
  device.bytesPerTurn = 1;
  queue.add([readable]);
  queue.add([readable]);
  queue.notify();
  t.equal(queue.usedIndex, 1);
  queue.add([readable]);
  turn();
  turn();
  t.equal(queue.usedIndex, 3);
});

t.test("Virtqueue ends its turn when chains have moved the bytes of one", async (t) => {
  const { queue, driver, device, deferred, turn } = start();
  device.bytesPerTurn = 128; // two chains
  for (let i = 0; i < 5; i++) queue.add([readable]);
  queue.notify();
  t.equal(queue.usedIndex, 2);
  turn();
  t.equal(queue.usedIndex, 4);
  turn();
  t.equal(queue.usedIndex, 5);
  t.equal(deferred.length, 0);
  t.equal(driver.interrupts(1), 3, "each turn shows what it has done");
});

t.test("Virtqueue asks for no further turn when the last chain of its turn was the last of all", async (t) => {
  const { queue, device, deferred } = start();
  device.bytesPerTurn = 64;
  queue.add([readable]);
  queue.notify();
  t.equal(queue.usedIndex, 1);
  t.equal(deferred.length, 0);
});

t.test("Virtqueue ends its turn when chains have had the buffers of one", async (t) => {
  const device = new EchoDevice(0n, [256]);
  const { driver, deferred } = plugVirtio(() => device);
  const [queue] = driver.start(INDIRECT_DESC, { size: 256 });
  const many = Array.from({ length: 250 }, () => ({ address: 0x10_0000, sizeBytes: 1 }));
  for (let i = 0; i < 20; i++) queue?.addIndirect(many);
  queue?.notify();
  t.equal(device.chains.length, 17, "4096 buffers, and the rest of the chain");
  t.equal(deferred.length, 1);
});

t.test("Work that was put off does nothing after a reset", async (t) => {
  const { queue, device, deferred, driver } = start();
  queue.describe(0, { ...readable, flags: 0 });
  device.onChain = () => queue.offer(0);
  queue.offer(0);
  queue.notify();
  driver.status = 0;
  const served = device.chains.length;
  deferred.shift()?.();
  t.equal(device.chains.length, served);
  t.equal(deferred.length, 0);
});

t.test("Virtqueue refuses an available index further ahead than the queue is long", async (t) => {
  const { queue, driver, device, reports } = start();
  queue.setAvailableIndex(17);
  queue.notify();
  t.equal(driver.status, 0x4f);
  t.equal(device.chains.length, 0);
  t.equal(reports.length, 1);
});

t.test("Virtqueue refuses more chains in flight than it holds", async (t) => {
  const device = new EchoDevice();
  device.queueNotified = (index) => {
    while (device.queues[index]?.pop() !== undefined) device.log.push("popped");
  };
  const { driver, memory } = plugVirtio(() => device);
  const [queue] = driver.start(0n, { size: 4 });
  if (queue === undefined) throw new Error("The device has no queue");
  queue.describe(0, { address: 0x2000, sizeBytes: 8, flags: 0 });
  for (let i = 0; i < 4; i++) queue.offer(0);
  queue.notify();
  t.equal(driver.status, 0xf);
  queue.offer(0); // the same head a fifth time, none has come back
  queue.notify();
  t.equal(device.log.filter((entry) => entry === "popped").length, 4);
  t.equal(driver.status, 0x4f);
  t.equal(memory.readU16(gpa(queue.used + 2)), 0);
});

t.test("A malformed chain in one queue stops the others too", async (t) => {
  const device = new EchoDevice();
  const { driver } = plugVirtio(() => device);
  const [first, second] = driver.start();
  first?.offer(0xffff);
  first?.notify();
  second?.add([readable]);
  second?.notify();
  t.equal(second?.usedIndex, 0);
  t.equal(driver.status, 0x4f);
});

t.test("A completion that comes after a reset leaves the guest's memory alone", async (t) => {
  const device = new EchoDevice();
  const late: (() => void)[] = [];
  device.queueNotified = (index) => {
    const queue = device.queues[index];
    const chain = queue?.pop();
    if (queue !== undefined && chain !== undefined) late.push(() => queue.complete(chain, 7));
  };
  const { driver, memory } = plugVirtio(() => device);
  const [queue] = driver.start();
  queue?.add([writable]);
  queue?.notify();
  t.equal(late.length, 1);
  const [again] = driver.start();
  const before = memory.bytes(0, 0x10_0000).slice();
  const interrupts = driver.interrupts(1);
  late[0]?.();
  t.strictSame(Buffer.compare(before, memory.bytes(0, 0x10_0000)), 0);
  t.equal(driver.interrupts(1), interrupts);
  t.equal(again?.usedIndex, 0);
});

t.test("A completion outside of a drain is published and interrupts at once", async (t) => {
  const device = new EchoDevice();
  const late: (() => void)[] = [];
  device.queueNotified = (index) => {
    const queue = device.queues[index];
    queue?.drain(1, (chain) => {
      late.push(() => queue.complete(chain, 7));
      return 0;
    });
  };
  const { driver } = plugVirtio(() => device);
  const [queue] = driver.start();
  const first = queue?.add([writable]);
  const second = queue?.add([writable]);
  queue?.notify();
  t.equal(queue?.usedIndex, 0);
  late[1]?.();
  t.strictSame(queue?.take(), { id: second, writtenBytes: 7 });
  t.equal(driver.interrupts(1), 1);
  late[0]?.();
  t.strictSame(queue?.take(), { id: first, writtenBytes: 7 });
  t.equal(driver.interrupts(1), 2);
});
