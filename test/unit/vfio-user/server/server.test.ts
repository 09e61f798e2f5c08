import { once } from "node:events";
import t from "tap";
import { fd } from "../../../../src/base/units.ts";
import { MMAN } from "../../../../src/host/constants.ts";
import { EventFd } from "../../../../src/host/eventfd.ts";
import { libc } from "../../../../src/host/libc.ts";
import { randomNumbers } from "../../../support/random-numbers.ts";
import { tamper } from "../../../support/tampered-message.ts";
import { fields, RawClient } from "../../../support/user-client.ts";
import { startServer, UserBench } from "../../../support/user-server.ts";

const ENOENT = 2;
const EEXIST = 17;
const EINVAL = 22;
const ENOSYS = 38;

const [VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO, IRQ_INFO, SET_IRQS] = [1, 2, 3, 4, 5, 7, 8] as const;
const [REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET] = [9, 10, 11, 12, 13] as const;

const regionRead = (region: number, offset: number, count: number): Uint8Array =>
  fields([offset, 8], [region, 4], [count, 4]);
const regionWrite = (region: number, offset: number, value: number, width: 2 | 4): Uint8Array =>
  fields([offset, 8], [region, 4], [width, 4], [value, width]);
const dmaMap = (address: number, size: number): Uint8Array => fields([32, 4], [3, 4], [0, 8], [address, 8], [size, 8]);

t.test("DeviceServer answers VERSION with its own, and nothing before it", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  t.equal(client.request(GET_INFO, fields([16, 4], [0, 4], [0, 4], [0, 4])).error, EINVAL);
  t.equal(client.request(VERSION, fields([1, 2], [0, 2])).error, EINVAL, "another major version");
  t.equal(client.request(VERSION, new TextEncoder().encode("\0\0\x01\0{broken")).error, EINVAL);
  const { payload, error } = client.negotiate();
  t.equal(error, 0);
  t.same([...payload.subarray(0, 4)], [0, 0, 1, 0]);
  t.equal(payload.at(-1), 0, "a NUL behind the JSON");
  t.match(JSON.parse(new TextDecoder().decode(payload.subarray(4, -1))), {
    capabilities: { max_msg_fds: 253, max_data_xfer_size: 1_048_576 },
  });
  t.equal(client.negotiate().error, EINVAL, "twice");
});

t.test("DeviceServer describes device, regions and interrupts as the structs of linux/vfio.h", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  client.negotiate();
  const words = (payload: Uint8Array): number[] => [...new Uint32Array(payload.slice().buffer)];
  t.same(words(client.request(GET_INFO, fields([16, 4], [0, 4], [0, 4], [0, 4])).payload), [16, 3, 9, 5]);
  const region = (index: number): Uint8Array => fields([32, 4], [0, 4], [index, 4], [0, 4], [0, 8], [0, 8]);
  t.same(words(client.request(REGION_INFO, region(0)).payload), [32, 3, 0, 0, 0x10_0000, 0, 0, 0]);
  t.same(words(client.request(REGION_INFO, region(3)).payload), [32, 0, 3, 0, 0, 0, 0, 0]);
  t.same(words(client.request(REGION_INFO, region(7)).payload), [32, 3, 7, 0, 256, 0, 0, 0]);
  t.same(words(client.request(REGION_INFO, region(8)).payload), [32, 0, 8, 0, 0, 0, 0, 0], "VGA");
  t.equal(client.request(REGION_INFO, region(9)).error, EINVAL);
  const interrupt = (index: number): Uint8Array => fields([16, 4], [0, 4], [index, 4], [0, 4]);
  t.same(words(client.request(IRQ_INFO, interrupt(0)).payload), [16, 7, 0, 1], "INTx: eventfd, maskable, automasked");
  t.same(words(client.request(IRQ_INFO, interrupt(1)).payload), [16, 1, 1, 1]);
  t.same(words(client.request(IRQ_INFO, interrupt(2)).payload), [16, 0, 2, 0]);
  t.equal(client.request(IRQ_INFO, interrupt(5)).error, EINVAL);
});

t.test("DeviceServer refuses what is wrong with an errno and goes on", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  client.negotiate();
  const errors: readonly (readonly [string, number, Uint8Array, number])[] = [
    ["an unknown command", 99, new Uint8Array(0), ENOSYS],
    ["a struct cut short", DMA_MAP, fields([32, 4]), EINVAL],
    ["no size", DMA_MAP, dmaMap(0x1000, 0), EINVAL],
    ["an odd size", DMA_MAP, dmaMap(0x1000, 100), EINVAL],
    ["an address beyond all", DMA_MAP, dmaMap(2 ** 53, 0x1000), EINVAL],
    ["memory that is not mapped", DMA_UNMAP, fields([24, 4], [0, 4], [0x1000, 8], [0x1000, 8]), ENOENT],
    ["beyond the region", REGION_READ, regionRead(0, 0x10_0000, 4), EINVAL],
    ["across its end", REGION_READ, regionRead(7, 254, 4), EINVAL],
    ["far beyond it", REGION_READ, regionRead(0, 2 ** 52, 4), EINVAL],
    ["a region that is not there", REGION_READ, regionRead(2, 0, 4), EINVAL],
    ["nothing of a region that cannot be", REGION_READ, regionRead(9, 0, 0), EINVAL],
    ["data of another length", REGION_WRITE, fields([0, 8], [0, 4], [4, 4], [0, 2]), EINVAL],
    ["more vectors than there are", SET_IRQS, fields([20, 4], [0x24, 4], [1, 4], [0, 4], [2, 4]), EINVAL],
    ["a mask of MSI", SET_IRQS, fields([20, 4], [0x09, 4], [1, 4], [0, 4], [1, 4]), EINVAL],
    ["two actions", SET_IRQS, fields([20, 4], [0x19, 4], [0, 4], [0, 4], [1, 4]), EINVAL],
  ];
  for (const [what, command, payload, error] of errors) t.equal(client.request(command, payload).error, error, what);
  t.equal(client.request(DMA_MAP, dmaMap(0x1000, 0x2000)).error, 0);
  t.equal(client.request(DMA_MAP, dmaMap(0x2000, 0x1000)).error, EEXIST);
  t.equal(client.request(DMA_UNMAP, fields([24, 4], [0, 4], [0x1000, 8], [0x1000, 8])).error, EINVAL, "only a part");
  const short = libc.memfdCreate("short", MMAN.MFD_CLOEXEC);
  t.equal(client.request(DMA_MAP, dmaMap(0x8000, 0x1000), [fd(short)]).error, EINVAL, "a file that is too short");
  libc.close(short);
  const event = EventFd.create();
  t.equal(client.request(DMA_MAP, dmaMap(0x8000, 0x1000), [event.fd]).error, EINVAL, "a file that is none");
  t.equal(
    client.request(SET_IRQS, fields([20, 4], [0x24, 4], [1, 4], [0, 4], [1, 4]), [event.fd, event.fd]).error,
    EINVAL,
  );
  event.close();
  t.equal(client.request(REGION_READ, regionRead(0, 0, 4)).error, 0);
});

t.test("DeviceServer reads a region of any length in accesses the device knows", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  client.negotiate();
  t.same([...client.request(REGION_READ, regionRead(7, 1, 6)).payload.subarray(16)], [0x12, 0xe8, 0x11, 0, 0, 0x10]);
  t.equal(client.request(REGION_READ, regionRead(7, 0, 256)).payload.length, 16 + 256);
  t.same([...client.request(REGION_READ, regionRead(0, 0, 8)).payload.subarray(16)], [0xed, 0, 0, 1, 0, 0, 0, 0]);
});

t.test("DeviceServer asks for memory that the client does not share, and waits for the answer only", async (t) => {
  const { socket } = await startServer(t, "edu");
  const client = new RawClient(t, socket);
  client.negotiate();
  client.request(REGION_WRITE, regionWrite(7, 4, 6, 2));
  client.request(DMA_MAP, dmaMap(0x1000, 0x1000));
  const start = (from: number, to: number, command: number): void => {
    for (const [offset, value] of [
      [0x80, from],
      [0x88, to],
      [0x90, 4],
      [0x98, command],
    ] as const) {
      client.request(REGION_WRITE, regionWrite(0, offset, value, 4));
    }
  };
  start(0x1ffc, 0x4_0000, 1);
  const read = client.message();
  t.match(read, { command: DMA_READ, isReply: false });
  t.same([...read.payload], [...fields([0x1ffc, 8], [4, 8])]);
  // A command that crosses it is answered afterwards.
  const crossing = client.send(REGION_READ, regionRead(0, 0, 4));
  const answer = { id: read.id, command: DMA_READ, isReply: true };
  client.wire.send({ ...answer, payload: fields([0x1ffc, 8], [4, 8], [0x1234_5678, 4]) }, performance.now() + 1000);
  t.match(client.message(), { id: crossing, isReply: true, error: 0 });
  start(0x4_0000, 0x1800, 3);
  const write = client.message();
  t.match(write, { command: DMA_WRITE, isReply: false });
  t.same([...write.payload], [...fields([0x1800, 8], [4, 8], [0x1234_5678, 4])]);
  client.wire.send({ id: write.id, command: DMA_WRITE, isReply: true, error: 14 }, performance.now() + 1000);
  t.equal(client.request(REGION_READ, regionRead(0, 0, 4)).error, 0, "a refusal is no harm");
  start(0x3000, 0x4_0000, 1);
  t.equal(client.request(RESET, new Uint8Array(0)).error, 0, "what is not mapped is not asked for");
});

t.test("DeviceServer hangs up on a client that sends what is no message, and serves the next one", async (t) => {
  const { socket, reported } = await startServer(t, "edu");
  for (const [index, header] of [
    fields([1, 2], [1, 2], [8, 4], [0, 4], [0, 4]),
    fields([1, 2], [1, 2], [0x7fff_ffff, 4], [0, 4], [0, 4]),
    fields([1, 2], [1, 2], [16, 4], [7, 4], [0, 4]),
    fields([1, 2], [1, 2], [16, 4], [1, 4], [0, 4]),
  ].entries()) {
    const client = new RawClient(t, socket);
    client.socket.send(header);
    t.equal(client.receive(), "closed", `header ${index}`);
  }
  await reported(
    /its size is 8 bytes[\s\S]*its size is 2147483647 bytes[\s\S]*its type is 7[\s\S]*request that was not made/,
  );
  const client = new RawClient(t, socket);
  t.equal(client.negotiate().error, 0);
});

t.test("tsvmm-device goes on when its standard error has lost its reader, and ends in order", async (t) => {
  const { socket, process: server } = await startServer(t, "edu");
  const first = new RawClient(t, socket);
  first.negotiate();
  server.stderr?.destroy();
  server.stdout?.destroy();
  first.wire.close(); // which is reported
  for (let round = 0; round < 3; round++) {
    const next = new RawClient(t, socket);
    t.equal(next.negotiate().error, 0);
    next.wire.close();
  }
  server.kill("SIGTERM");
  t.same(await once(server, "exit"), [0, null]);
});

for (const kind of ["edu", "nvme"] as const) {
  t.test(`DeviceServer with ${kind} survives 200 clients that send nonsense`, async (t) => {
    const image = `${t.testdir({ "disk.raw": Buffer.alloc(65_536) })}/disk.raw`;
    const { socket, process: server } = await startServer(t, kind, ...(kind === "nvme" ? ["--image", image] : []));
    const event = EventFd.create();
    let reports = "";
    server.stderr?.on("data", (chunk) => {
      reports += String(chunk);
    });
    for (let seed = 1; seed <= 200; seed++) {
      const random = randomNumbers(seed);
      const client = new RawClient(t, socket);
      client.negotiate();
      for (let step = 0; step < 20; step++) {
        const [command, payload] = randomCommand(random);
        const header = fields(
          [step, 2],
          [command, 2],
          [16 + payload.length, 4],
          [random(4) === 0 ? 0x10 : 0, 4],
          [0, 4],
        );
        const message = { bytes: Uint8Array.from([...header, ...payload]), descriptors: [] };
        try {
          for (const piece of random(4) === 0 ? tamper(message, random, event.fd) : [message]) {
            client.socket.send(piece.bytes, piece.descriptors);
          }
        } catch {
          break; // it has hung up
        }
      }
      client.wire.close();
    }
    event.close();
    const device = new UserBench(t).connect(socket);
    t.equal(device.readRegion(7, 0, 4), kind === "edu" ? 0x11e8_1234 : 0x0010_1b36);
    device.close();
    server.kill("SIGTERM");
    t.same(await once(server, "close"), [0, null], "it ends in order");
    t.match(reports, /^info: the machine is gone/m);
    t.notMatch(reports, /^error/m, "no exception");
  });
}

function randomCommand(random: (below: number) => number): readonly [command: number, payload: Uint8Array] {
  switch (random(6)) {
    case 0:
      return [DMA_MAP, dmaMap(0x1000 * random(8), 0x1000 * random(4))];
    case 1:
      return [DMA_UNMAP, fields([24, 4], [0, 4], [0x1000 * random(8), 8], [0x1000 * random(4), 8])];
    case 2:
      return [REGION_WRITE, regionWrite(random(2) * 7, 4 * random(64), random(0xffff_ffff), 4)];
    case 3:
      return [REGION_READ, regionRead(random(9), random(0x4000), random(300))];
    case 4:
      return [SET_IRQS, fields([20, 4], [random(64), 4], [random(6), 4], [random(3), 4], [random(3), 4])];
    default:
      return [1 + random(20), new Uint8Array(random(40))];
  }
}

t.test("DeviceServer tells what a guest does wrong a few times, and counts the rest", async (t) => {
  const { socket, process } = await startServer(t, "edu");
  let reports = "";
  process.stderr?.on("data", (chunk) => {
    reports += String(chunk);
  });
  const client = new RawClient(t, socket);
  client.negotiate();
  const transfers = 100;
  const isRunning = (): boolean => client.request(REGION_READ, regionRead(0, 0x98, 4)).payload[16] === 1;
  for (let index = 0; index < transfers; index++) {
    client.request(REGION_WRITE, regionWrite(0, 0x98, 1, 4));
    while (isRunning());
  }
  const ended = once(process, "close");
  process.kill("SIGTERM");
  await ended;
  const lines = reports.split("\n").filter((line) => /leaves its buffer/.test(line));
  const counted = lines.map((line) => Number(/and (\d+) more/.exec(line)?.[1] ?? 0));
  t.ok(lines.length < 20, `${lines.length} lines`);
  t.equal(
    counted.reduce((sum, count) => sum + count, lines.length),
    transfers,
  );
});
