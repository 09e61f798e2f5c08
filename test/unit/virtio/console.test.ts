import t from "tap";
import { VirtioConsole } from "../../../src/virtio/console.ts";
import { FakeChar } from "../../support/fake-char.ts";
import type { DriverQueue } from "../../support/guest-driver.ts";
import { plugVirtio, type VirtioBench } from "../../support/virtio-bench.ts";

const F_SIZE = 1n << 0n;
const EVENT_IDX = 1n << 29n;
const BUFFER = 0x10_0000;

interface ConsoleBench extends VirtioBench {
  readonly backend: FakeChar;
  readonly device: VirtioConsole;
}

function plug(): ConsoleBench {
  const backend = new FakeChar();
  const device = new VirtioConsole("console0", backend, { columns: 80, rows: 24 });
  return { ...plugVirtio(() => device), backend, device };
}

function start(features = F_SIZE): ConsoleBench & { readonly receive: DriverQueue; readonly transmit: DriverQueue } {
  const bench = plug();
  const [receive, transmit] = bench.driver.start(features);
  if (receive === undefined || transmit === undefined) throw new Error("The console has no queues");
  return { ...bench, receive, transmit };
}

const text = (bench: VirtioBench, address: number, sizeBytes: number): string =>
  Buffer.from(bench.memory.bytes(address, sizeBytes)).toString();

t.test("VirtioConsole has two queues, its size and no multiport", async (t) => {
  const { driver } = start();
  t.equal(driver.config(0x00, 4), 0x1043_1af4);
  t.equal(driver.offeredFeatures() & 0xffffn, F_SIZE);
  t.equal(driver.read(1, 0x12, 2), 2);
  t.equal(driver.read(4, 0, 4), (24 << 16) | 80);
  t.equal(driver.read(4, 4, 4), 0);
});

t.test("VirtioConsole.resize() counts the generation up and interrupts for configuration", async (t) => {
  const { driver, device } = start();
  const generation = driver.read(1, 0x15, 1);
  device.resize(132, 43);
  t.equal(driver.read(4, 0, 2), 132);
  t.equal(driver.read(4, 2, 2), 43);
  t.equal(driver.read(1, 0x15, 1), (generation + 1) & 0xff);
  t.equal(driver.interrupts(0), 1);
  device.resize(132, 43);
  t.equal(driver.interrupts(0), 1, "the same size is no change");
});

t.test("VirtioConsole.resize() before DRIVER_OK does not interrupt", async (t) => {
  const { driver, device } = plug();
  driver.enableMsix(3);
  device.resize(1, 2);
  t.equal(driver.read(4, 0, 4), 0x0002_0001);
  t.equal(driver.interrupts(0), 0);
});

t.test("VirtioConsole sends what the driver transmits, in order", async (t) => {
  const { backend, transmit, memory, driver } = start();
  memory.bytes(BUFFER, 6).set(Buffer.from("hello "));
  memory.bytes(BUFFER + 4096, 5).set(Buffer.from("world"));
  transmit.add([
    { address: BUFFER, sizeBytes: 6 },
    { address: BUFFER + 4096, sizeBytes: 5 },
  ]);
  transmit.add([{ address: BUFFER, sizeBytes: 5 }]);
  transmit.notify();
  t.equal(backend.text, "hello worldhello");
  t.match(transmit.take(), { writtenBytes: 0 });
  t.match(transmit.take(), { writtenBytes: 0 });
  t.equal(driver.interrupts(2), 1);
});

t.test("VirtioConsole cuts a transmit request of many megabytes, once reported", async (t) => {
  const { backend, transmit, reports, turn } = start();
  const huge = [0, 1, 2, 3].map(() => ({ address: 0x40_0000, sizeBytes: 8 << 20 }));
  transmit.add(huge);
  transmit.add(huge);
  transmit.notify();
  t.equal(backend.text.length, 1 << 20, "one turn moves no more");
  turn();
  t.equal(transmit.usedIndex, 2);
  t.equal(backend.text.length, 2 << 20);
  t.equal(reports.length, 1);
});

t.test("VirtioConsole puts input in receive buffers, a batch in as many as it takes", async (t) => {
  const bench = start();
  const { backend, receive, driver } = bench;
  receive.add([{ address: BUFFER, sizeBytes: 4, isWritable: true }]);
  receive.add([{ address: BUFFER + 16, sizeBytes: 64, isWritable: true }]);
  receive.notify();
  backend.type("abcdefg");
  t.match(receive.take(), { writtenBytes: 4 });
  t.match(receive.take(), { writtenBytes: 3 });
  t.equal(text(bench, BUFFER, 4), "abcd");
  t.equal(text(bench, BUFFER + 16, 3), "efg");
  t.ok(driver.interrupts(1) >= 1);
  t.equal(backend.waitingBytes, 0);
});

t.test("VirtioConsole leaves input that finds no buffer with the backend until there is one", async (t) => {
  for (const features of [F_SIZE, F_SIZE | EVENT_IDX]) {
    const bench = start(features);
    const { backend, receive } = bench;
    receive.add([{ address: BUFFER, sizeBytes: 2, isWritable: true }]);
    receive.notify();
    backend.type("abcde");
    t.equal(backend.waitingBytes, 3);
    receive.add([{ address: BUFFER + 16, sizeBytes: 64, isWritable: true }]);
    t.ok(receive.kick(), "a notification is wanted");
    t.equal(backend.waitingBytes, 0);
    t.equal(text(bench, BUFFER + 16, 3), "cde");
  }
});

t.test("VirtioConsole takes a buffer that came just as it gave up", async (t) => {
  const { backend, receive, memory } = start(F_SIZE | EVENT_IDX);
  let isAdded = false;
  memory.onFence = () => {
    if (isAdded) return;
    isAdded = true;
    receive.add([{ address: BUFFER, sizeBytes: 64, isWritable: true }]);
  };
  backend.type("abc");
  t.equal(backend.waitingBytes, 0);
});

t.test("VirtioConsole takes no input before DRIVER_OK and after a reset, and loses none", async (t) => {
  const bench = plug();
  const { driver, backend } = bench;
  backend.type("early");
  t.equal(backend.waitingBytes, 5);
  const [receive] = driver.start(F_SIZE);
  receive?.add([{ address: BUFFER, sizeBytes: 64, isWritable: true }]);
  receive?.notify();
  t.equal(text(bench, BUFFER, 5), "early");
  receive?.add([{ address: BUFFER + 64, sizeBytes: 64, isWritable: true }]);
  driver.status = 0;
  backend.type("late");
  t.equal(backend.waitingBytes, 4);
  t.equal(receive?.usedIndex, 1);
});

t.test("VirtioConsole needs a reset after a receive buffer that is not writable", async (t) => {
  const { backend, receive, driver } = start();
  receive.add([{ address: BUFFER, sizeBytes: 64 }]);
  receive.notify();
  backend.type("a");
  t.equal(driver.status, 0x4f);
  t.equal(backend.waitingBytes, 1);
});
