import { once } from "node:events";
import { readdirSync } from "node:fs";
import { Worker } from "node:worker_threads";
import t, { type Test } from "tap";
import { fd, gpa } from "../../../../src/base/units.ts";
import { SyscallError } from "../../../../src/host/errors.ts";
import { EventFd } from "../../../../src/host/eventfd.ts";
import { UnixListener } from "../../../../src/host/unix-socket.ts";
import type { UserDevice } from "../../../../src/vfio-user/client/device.ts";
import { PreparedServer } from "../../../support/prepared-server.ts";
import { socketPath } from "../../../support/socket-pair.ts";
import { startServer, UserBench, until } from "../../../support/user-server.ts";

const CONFIG = 7;
const COMMAND = 0x04;
const MEMORY_AND_MASTER = 0x6;

/** An edu device in its own process, with decode and bus mastering on. */
async function edu(t: Test): Promise<{ bench: UserBench; device: UserDevice; kill: () => Promise<void> }> {
  const server = await startServer(t, "edu");
  const bench = new UserBench(t);
  const device = bench.connect(server.socket);
  device.writeRegion(CONFIG, COMMAND, 2, MEMORY_AND_MASTER);
  return { bench, device, kill: server.kill };
}

function eventFd(t: Test): EventFd {
  const event = EventFd.create();
  t.teardown(() => event.close());
  return event;
}

/** Moves 16 bytes: source, destination, count, command. */
function transfer(device: UserDevice, from: number, to: number, command: number, count = 16): void {
  for (const [offset, value] of [
    [0x80, from],
    [0x88, to],
    [0x90, count],
    [0x98, command],
  ] as const) {
    device.writeRegion(0, offset, 4, value);
    device.writeRegion(0, offset + 4, 4, 0);
  }
  device.writeRegion(0, 0x98, 4, command);
  until("the transfer ends", () => (device.readRegion(0, 0x98, 4) ?? 1) % 2 === 0);
}

t.test("UserDevice learns regions and interrupts of its server", async (t) => {
  const { device } = await edu(t);
  t.match(device.region(0), { index: 0, sizeBytes: 0x10_0000, isReadable: true, isWritable: true, mappableAreas: [] });
  t.match(device.region(1), { index: 1, sizeBytes: 0 });
  t.match(device.region(CONFIG), { sizeBytes: 256 });
  t.equal(device.region(8), undefined);
  t.same(device.interrupt("intx"), { count: 1, canGrow: true, isAutomasked: true });
  t.same(device.interrupt("msi"), { count: 1, canGrow: true, isAutomasked: false });
  t.equal(device.interrupt("msix").count, 0);
  t.equal(device.interrupt("error").count, 1);
  t.equal(device.interrupt("request").count, 1);
});

t.test("UserDevice.readRegion() reads configuration space and registers in each width", async (t) => {
  const { device } = await edu(t);
  t.equal(device.readRegion(CONFIG, 0, 4), 0x11e8_1234);
  t.equal(device.readRegion(CONFIG, 2, 2), 0x11e8);
  t.equal(device.readRegion(CONFIG, 0x3d, 1), 1, "INTA");
  t.equal(device.readRegion(0, 0, 4), 0x0100_00ed);
  t.equal(device.writeRegion(0, 4, 4, 0x1234_5678), true);
  t.equal(device.readRegion(0, 4, 4), 0xedcb_a987, "a posted write is done before the read that follows it");
  t.equal(device.readRegion(CONFIG, 254, 4), undefined, "across the end");
  t.equal(device.writeRegion(CONFIG, 256, 1, 0), false);
  t.equal(device.readRegion(3, 0, 4), undefined, "a BAR that is not there");
});

t.test("UserDevice's server reaches guest RAM by DMA, with bus mastering on only", async (t) => {
  const { bench, device } = await edu(t);
  const text = new TextEncoder().encode("sixteen bytes!!!");
  bench.memory.write(gpa(0xff0), text);
  transfer(device, 0xff0, 0x4_0000, 1);
  transfer(device, 0x4_0000, 0x2000, 3);
  const copy = new Uint8Array(16);
  bench.memory.read(gpa(0x2000), copy);
  t.same(copy, text);
  device.writeRegion(CONFIG, COMMAND, 2, 0x2);
  transfer(device, 0x4_0000, 0x3000, 3);
  t.equal(bench.memory.readU32(gpa(0x3000)), 0, "nothing without bus mastering");
  device.writeRegion(CONFIG, COMMAND, 2, MEMORY_AND_MASTER);
  transfer(device, 0x4_0000, 0xf_fff8, 3);
  t.equal(bench.memory.readU32(gpa(0xf_fff8)), 0, "not even in part where RAM ends within it");
  t.equal(device.readRegion(0, 0, 4), 0x0100_00ed, "and the server lives");
});

t.test("UserDevice.setTrigger() lets an MSI of the server ring our eventfd", async (t) => {
  const { device } = await edu(t);
  const event = eventFd(t);
  device.setTrigger("msi", 0, [event.fd]);
  device.writeRegion(0, 0x60, 4, 0x30);
  t.equal(device.readRegion(0, 0x24, 4), 0x30);
  t.equal(event.drain(), 1);
  device.setTrigger("msi", 0, [fd(-1)]);
  device.writeRegion(0, 0x60, 4, 1);
  t.equal(device.readRegion(0, 0x24, 4), 0x31);
  t.equal(event.drain(), 0, "disconnected");
  device.disableInterrupts("msi");
  t.throws(() => device.setTrigger("msi", 1, [event.fd]), { name: "SyscallError", errno: "EINVAL" });
});

t.test(
  "UserDevice's INTx is a level: masked by each signal, signalled again at an unmask while it is high",
  async (t) => {
    const { device } = await edu(t);
    const [trigger, resample] = [eventFd(t), eventFd(t)];
    device.setTrigger("intx", 0, [trigger.fd]);
    device.setIntxResample(resample.fd);
    device.writeRegion(0, 0x60, 4, 1);
    device.writeRegion(0, 0x60, 4, 2);
    t.equal(device.readRegion(CONFIG, 0x06, 2), 0x18, "the status register shows it, and the capability list");
    t.equal(trigger.drain(), 1, "once");
    device.unmaskIntx();
    t.equal(trigger.drain(), 1, "again while it is high");
    resample.signal();
    until("the resample eventfd unmasks", () => device.readRegion(0, 0, 4) !== 0 && trigger.drain() === 1);
    device.writeRegion(0, 0x64, 4, 3);
    device.unmaskIntx();
    t.equal(trigger.drain(), 0, "it is low");
    device.maskIntx();
    device.writeRegion(0, 0x60, 4, 1);
    t.equal(device.readRegion(0, 0x24, 4), 1);
    t.equal(trigger.drain(), 0, "masked");
    device.unmaskIntx();
    t.equal(trigger.drain(), 1);
    device.disableInterrupts("intx");
    device.setTrigger("intx", 0, [trigger.fd]);
    t.equal(trigger.drain(), 1, "a new trigger hears of a level that is high");
  },
);

t.test("UserDevice's edu computes a factorial and says so by an interrupt", async (t) => {
  const { device } = await edu(t);
  const event = eventFd(t);
  device.setTrigger("msi", 0, [event.fd]);
  device.writeRegion(0, 0x20, 4, 0x80);
  device.writeRegion(0, 0x08, 4, 10);
  until("it is done", () => device.readRegion(0, 0x20, 4) === 0x80);
  t.equal(device.readRegion(0, 0x08, 4), 3_628_800);
  t.equal(device.readRegion(0, 0x24, 4), 1);
  t.equal(event.drain(), 1);
});

t.test("UserDevice.reset() puts registers and configuration space back", async (t) => {
  const { device } = await edu(t);
  device.writeRegion(0, 4, 4, 5);
  t.equal(device.reset(), "vfio-user");
  t.equal(device.readRegion(0, 4, 4), 0);
  t.equal(device.readRegion(CONFIG, COMMAND, 2), 0);
});

t.test("UserDevice says that its server is gone, and then answers nothing", async (t) => {
  const { bench, device, kill } = await edu(t);
  const event = eventFd(t);
  await kill();
  bench.loop.wait(1000);
  t.same(bench.lost, ["its server has closed the connection"]);
  t.equal(device.isLost, true);
  t.equal(device.readRegion(0, 0, 4), undefined);
  t.equal(device.writeRegion(0, 4, 4, 1), false);
  t.equal(device.reset(), false);
  t.throws(() => device.setTrigger("msi", 0, [event.fd]), { message: /Cannot use thing: its server has closed/ });
  device.disableInterrupts("msi");
  device.close();
  t.equal(bench.lost.length, 1, "once");
});

t.test("UserDevice notices at its next access that the server is gone", async (t) => {
  const { bench, device, kill } = await edu(t);
  await kill();
  t.equal(device.readRegion(0, 0, 4), undefined);
  t.equal(bench.lost.length, 1);
});

t.test("UserDevice gives up a server that does not answer in time", async (t) => {
  const server = await startServer(t, "edu");
  const bench = new UserBench(t);
  const device = bench.connect(server.socket, { timeoutMs: 200 });
  server.process.kill("SIGSTOP");
  t.equal(device.readRegion(0, 0, 4), undefined);
  t.match(bench.lost, [/has not answered VFIO_USER_REGION_READ for 200 ms/]);
});

t.test("UserDevice that may wait as long as its server likes does not when the machine stops", async (t) => {
  const server = await startServer(t, "edu");
  const bench = new UserBench(t);
  let cutOff = Number.POSITIVE_INFINITY;
  const device = bench.connect(server.socket, { timeoutMs: Number.POSITIVE_INFINITY, cutOff: () => cutOff });
  t.equal(device.readRegion(0, 0, 4), 0x0100_00ed);
  server.process.kill("SIGSTOP");
  cutOff = performance.now() + 300;
  t.equal(device.readRegion(0, 0, 4), undefined);
  t.same(bench.lost, ["its server has not answered VFIO_USER_REGION_READ, and the machine stops"]);
  device.close();
});

t.test("UserDevice gives up a server that does not read, while the machine stops", async (t) => {
  const server = await startServer(t, "edu");
  const bench = new UserBench(t);
  let cutOff = Number.POSITIVE_INFINITY;
  const device = bench.connect(server.socket, { timeoutMs: Number.POSITIVE_INFINITY, cutOff: () => cutOff });
  server.process.kill("SIGSTOP");
  cutOff = performance.now() + 300;
  while (device.writeRegion(0, 4, 4, 1)); // posted, until the socket is full
  t.match(bench.lost, [/the other side does not read/]);
});

t.test("DeviceServer turns a second machine away and takes the next one when the first has gone", async (t) => {
  const server = await startServer(t, "edu");
  const bench = new UserBench(t);
  const first = bench.connect(server.socket);
  first.writeRegion(0, 4, 4, 5);
  t.throws(() => new UserBench(t).connect(server.socket), {
    name: "HostError",
    message: /thing: its server has closed the connection \(does it serve another machine already\?\)/,
  });
  t.equal(first.readRegion(0, 4, 4), 0xffff_fffa, "the first is not disturbed");
  for (let round = 0; round < 20; round++) {
    first.close();
    const next = bench.connect(server.socket);
    if (round === 0) t.equal(next.readRegion(0, 4, 4), 0, "it finds the device as after power-on");
    next.close();
  }
});

t.test("UserDevice asks for another machine only where the server hangs up or is silent", async (t) => {
  const path = socketPath(t);
  const version = (major: number, minor: number, json: string): Uint8Array => {
    const text = new TextEncoder().encode(`${json}\0`);
    const view = new DataView(new ArrayBuffer(20 + text.length)); // header, struct vfio_user_version, JSON
    view.setUint16(0, 2, true); // the id of the client's first message
    view.setUint16(2, 1, true); // VFIO_USER_VERSION
    view.setUint32(4, view.byteLength, true);
    view.setUint32(8, 1, true); // a reply
    view.setUint16(16, major, true);
    view.setUint16(18, minor, true);
    new Uint8Array(view.buffer).set(text, 20);
    return new Uint8Array(view.buffer);
  };
  const cases = [
    [new Uint8Array(0), "its server has closed the connection (does it serve another machine already?)"],
    [version(7, 3, "{}"), "its server speaks vfio-user 7.3, not 0.1"],
    [version(0, 1, "{"), "its server's version cannot be understood"],
    [new Uint8Array(16).fill(0xff), "Cannot understand a vfio-user message: its size is 4294967295 bytes"],
    [
      version(0, 1, "{}").fill(9, 2, 3),
      "its server has sent a reply to VFIO_USER_REGION_READ with id 2, which no request asked for",
    ],
  ] as const;
  const worker = new Worker(new URL("../../../support/answering-server-worker.js", import.meta.url), {
    workerData: { path, answers: cases.map(([answer]) => answer) },
  });
  t.teardown(() => worker.terminate());
  await once(worker, "message");
  const refusal = (...connect: Parameters<UserBench["connect"]>): string => {
    try {
      new UserBench(t).connect(...connect);
    } catch (error) {
      return String(error);
    }
    return "accepted";
  };
  for (const [, text] of cases) t.equal(refusal(path), `HostError: Cannot use thing: ${text}`);
  const silent = socketPath(t);
  const listener = UnixListener.listen(silent, 1);
  t.teardown(() => listener.close());
  t.equal(
    refusal(silent, { timeoutMs: 50 }),
    "HostError: Cannot use thing: its server has not answered VFIO_USER_VERSION for 50 ms (does it serve another " +
      "machine already?)",
  );
});

t.test("UserChannel tells a server that hung up before the first message from one that refuses it", async (t) => {
  const { channel, wire, lost } = new PreparedServer(t);
  wire.close();
  t.throws(() => channel.request(1, new Uint8Array(4)), {
    message: "Cannot use thing: its server has closed the connection",
  });
  t.same(lost, ["its server has closed the connection"]);
});

t.test("UserDevice says what is wrong without a listener", async (t) => {
  t.throws(() => new UserBench(t).connect(socketPath(t)), {
    name: "SyscallError",
    errno: "ENOENT",
    message: /no server has made it/,
  });
});

t.test("UserDevice gives all its descriptors back", async (t) => {
  const server = await startServer(t, "edu");
  const bench = new UserBench(t);
  bench.connect(server.socket).close();
  const before = readdirSync("/proc/self/fd").length;
  for (let round = 0; round < 10; round++) bench.connect(server.socket).close();
  t.equal(readdirSync("/proc/self/fd").length, before);
});

t.test("UserDevice keeps no connection that it cannot watch", async (t) => {
  const bench = new UserBench(t);
  const path = socketPath(t);
  const listener = UnixListener.listen(path, 1);
  t.teardown(() => listener.close());
  const error = new SyscallError("TSVMM_HOST_CALL", "watch descriptor 9", "epoll_ctl", "ENOSPC");
  const watch = (): never => {
    throw error;
  };
  const before = readdirSync("/proc/self/fd").length;
  t.throws(() => bench.connect(path, { watcher: { watch } }), error);
  t.equal(readdirSync("/proc/self/fd").length, before);
});
