import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { type Gpa, gpa } from "../../../../src/base/units.ts";
import { EventFd } from "../../../../src/host/eventfd.ts";
import { NvmeDriver } from "../../../support/nvme-driver.ts";
import { startServer, UserBench } from "../../../support/user-server.ts";

/** 1 MiB, each block filled with its number. */
const BLOCKS = 2048;
const imageBytes = Uint8Array.from({ length: BLOCKS * 512 }, (_, at) => Math.floor(at / 512) & 0xff);
const DATA = 0x2_0000;
const LIST = 0x1_8000;
const READ = 2;
const WRITE = 1;

async function nvme(t: Test, ...rest: readonly string[]) {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-nvme-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const image = join(folder, "disk.raw");
  writeFileSync(image, imageBytes);
  const server = await startServer(t, "nvme", "--image", image, "--serial", "TS1", ...rest);
  const bench = new UserBench(t);
  const device = bench.connect(server.socket);
  const driver = new NvmeDriver(device, bench.memory);
  return { server, image, bench, device, driver };
}

const bytesAt = (bench: UserBench, address: Gpa, count: number): Uint8Array => {
  const bytes = new Uint8Array(count);
  bench.memory.read(address, bytes);
  return bytes;
};
const textAt = (bench: UserBench, address: Gpa, count: number): string =>
  new TextDecoder().decode(bytesAt(bench, address, count));

t.test("NvmeDevice shows the registers and the configuration space of an NVMe 1.4 controller", async (t) => {
  const { device, driver } = await nvme(t);
  t.equal(device.readRegion(7, 0x08, 4), 0x0108_0202, "class 01.08.02");
  t.equal(device.interrupt("msix").count, 17);
  t.equal(device.interrupt("intx").count, 0);
  t.equal(driver.read(0x00), 0x1401_03ff, "MQES 1024, contiguous queues, 10 s");
  t.equal(driver.read(0x04), 0x20, "NVM command set, doorbells of 4 bytes, 4-KiB pages");
  t.equal(driver.read(0x08), 0x0001_0400);
  t.equal(driver.read(0x1c), 0, "not ready");
});

t.test("NvmeDevice becomes ready with right settings and fatal with wrong ones", async (t) => {
  const { driver } = await nvme(t);
  driver.start();
  t.equal(driver.read(0x1c), 1);
  driver.write(0x14, 0x0046_0000);
  t.equal(driver.read(0x1c), 0, "disabled");
  for (const [wrong, why] of [
    [0x0046_0081, "pages of 8 KiB"],
    [0x0046_0011, "another command set"],
    [0x0066_0001, "entries of another size"],
  ] as const) {
    driver.write(0x14, wrong);
    t.equal(driver.read(0x1c), 2, why);
    driver.write(0x14, 0);
  }
  driver.write(0x28, 0x1_0008);
  driver.write(0x14, 0x0046_0001);
  t.equal(driver.read(0x1c), 2, "queues that are not page-aligned");
});

t.test("NvmeDevice identifies controller, namespace, list and descriptors", async (t) => {
  const { bench, driver } = await nvme(t);
  driver.start();
  const identify = (cns: number, nsid = 0): number => driver.run({ opcode: 6, nsid, prp1: DATA, dwords: [cns] }).status;
  t.equal(identify(1), 0);
  t.equal(textAt(bench, gpa(DATA + 4), 20), "TS1".padEnd(20));
  t.equal(bench.memory.readU8(gpa(DATA + 77)), 5, "MDTS: 128 KiB");
  t.equal(bench.memory.readU32(gpa(DATA + 516)), 1, "one namespace");
  t.equal(bench.memory.readU16(gpa(DATA + 512)), 0x4466, "entry sizes");
  t.equal(identify(0, 1), 0);
  t.equal(bench.memory.readU64(gpa(DATA)), BLOCKS);
  t.equal(bench.memory.readU32(gpa(DATA + 128)), 9 << 16, "512-byte blocks");
  t.equal(identify(2), 0);
  t.same([...bytesAt(bench, gpa(DATA), 8)], [1, 0, 0, 0, 0, 0, 0, 0]);
  t.equal(identify(3, 1), 0);
  t.same([...bytesAt(bench, gpa(DATA), 2)], [2, 16], "an NGUID");
  t.equal(identify(0, 2), 0x00b, "no such namespace");
  t.equal(identify(6), 0x002, "what 1.4 does not have");
});

t.test("NvmeDevice reads one page, two pages and a list of pages into memory", async (t) => {
  const { bench, driver } = await nvme(t);
  driver.start();
  driver.createQueues();
  const read = (block: number, count: number, prp1: number, prp2 = 0): number =>
    driver.runIo({ opcode: READ, nsid: 1, prp1, prp2, dwords: [block, 0, count - 1] }).status;
  const expected = (block: number, count: number): Uint8Array =>
    imageBytes.subarray(block * 512, (block + count) * 512);
  t.equal(read(3, 2, DATA), 0);
  t.same(bytesAt(bench, gpa(DATA), 1024), expected(3, 2));
  t.equal(read(40, 8, DATA + 0x800, DATA + 0x3000), 0);
  t.same(bytesAt(bench, gpa(DATA + 0x800), 2048), expected(40, 4));
  t.same(bytesAt(bench, gpa(DATA + 0x3000), 2048), expected(44, 4));
  // 128 KiB, pages in reverse order.
  for (let page = 0; page < 31; page++) bench.memory.writeU64(gpa(LIST + 8 * page), DATA + (40 - page) * 4096);
  t.equal(read(100, 256, DATA, LIST), 0);
  t.same(bytesAt(bench, gpa(DATA + 40 * 4096), 4096), expected(108, 8));
  t.same(bytesAt(bench, gpa(DATA + 10 * 4096), 4096), expected(348, 8));
  // A list that begins two entries before its page's end leads on from its last one.
  bench.memory.writeU64(gpa(LIST + 0xff0), DATA + 0x1000);
  bench.memory.writeU64(gpa(LIST + 0xff8), LIST);
  bench.memory.writeU64(gpa(LIST), DATA + 0x9000);
  bench.memory.writeU64(gpa(LIST + 8), DATA + 0xa000);
  t.equal(read(500, 32, DATA, LIST + 0xff0), 0);
  t.same(bytesAt(bench, gpa(DATA + 0xa000), 4096), expected(524, 8));
});

t.test("NvmeDevice writes, zeroes and flushes, and the image has it", async (t) => {
  const { image, bench, driver, device } = await nvme(t);
  driver.start();
  driver.createQueues();
  const event = EventFd.create();
  t.teardown(() => event.close());
  device.setTrigger("msix", 1, [event.fd]);
  bench.memory.write(gpa(DATA), new Uint8Array(4096).fill(0xab));
  t.equal(driver.runIo({ opcode: WRITE, nsid: 1, prp1: DATA, dwords: [8, 0, 7] }).status, 0);
  t.equal(event.drain(), 1, "vector 1 rings");
  t.equal(driver.runIo({ opcode: 8, nsid: 1, dwords: [10, 0, 1] }).status, 0);
  t.equal(driver.runIo({ opcode: 0, nsid: 0xffff_ffff }).status, 0);
  const after = readFileSync(image);
  t.same([after[8 * 512], after[10 * 512], after[11 * 512 + 511], after[12 * 512]], [0xab, 0, 0, 0xab]);
  t.equal(after[7 * 512 + 511], 7);
  t.equal(after[16 * 512], 16);
});

t.test("NvmeDevice answers wrong commands with the status that NVMe gives them", async (t) => {
  const { bench, driver } = await nvme(t);
  driver.start();
  driver.createQueues();
  const io = (command: Parameters<NvmeDriver["runIo"]>[0]): number => driver.runIo(command).status;
  t.equal(io({ opcode: READ, nsid: 2, prp1: DATA }), 0x00b, "namespace");
  t.equal(io({ opcode: 0x55, nsid: 1 }), 0x001, "opcode");
  t.equal(io({ opcode: READ, nsid: 1, prp1: DATA, dwords: [BLOCKS, 0, 0] }), 0x080, "beyond the end");
  t.equal(io({ opcode: READ, nsid: 1, prp1: DATA, dwords: [BLOCKS - 1, 0, 1] }), 0x080, "across the end");
  t.equal(io({ opcode: READ, nsid: 1, prp1: DATA, dwords: [0, 0xffff_ffff, 0] }), 0x080, "far beyond");
  t.equal(io({ opcode: READ, nsid: 1, prp1: DATA + 2 }), 0x013, "unaligned");
  t.equal(io({ opcode: READ, nsid: 1, prp1: DATA, prp2: 8, dwords: [0, 0, 15] }), 0x013, "unaligned second page");
  t.equal(io({ opcode: READ, nsid: 1, prp1: 0x7000_0000 }), 0x004, "no memory there");
  t.equal(io({ opcode: READ, nsid: 1, prp1: DATA, prp2: 0x7000_0000, dwords: [0, 0, 31] }), 0x013, "no list there");
  t.equal(io({ opcode: READ, nsid: 1, prp1: DATA, dwords: [0, 0, 256] }), 0x002, "more than MDTS");
  t.equal(io({ opcode: READ, nsid: 1, prp1: DATA, flags: 0x40 }), 0x002, "SGLs");
  bench.memory.writeU64(gpa(LIST), DATA + 1);
  t.equal(io({ opcode: READ, nsid: 1, prp1: DATA, prp2: LIST, dwords: [0, 0, 31] }), 0x013, "unaligned in the list");
  const { mayRetry } = driver.runIo({ opcode: 0x55, nsid: 1 });
  t.equal(mayRetry, false);
});

t.test("NvmeDevice creates and deletes queues, and refuses those that cannot be", async (t) => {
  const { driver } = await nvme(t);
  driver.start();
  const admin = (opcode: number, prp1: number, ...dwords: number[]): number =>
    driver.run({ opcode, prp1, dwords }).status;
  t.equal(driver.run({ opcode: 9, dwords: [7, 0x0003_0003] }).result, 0x000f_000f, "16 queues");
  t.equal(admin(1, DATA, 0x000f_0001, 0x0001_0001), 0x100, "no such completion queue");
  t.equal(admin(5, DATA, 0x000f_0011, 1), 0x101, "queue 17");
  t.equal(admin(5, DATA, 0x0000_0001, 1), 0x102, "one entry");
  t.equal(admin(5, DATA, 0x0400_0001, 1), 0x102, "1025 entries");
  t.equal(admin(5, DATA, 0x000f_0001, 0x0011_0003), 0x108, "vector 17");
  t.equal(admin(5, DATA + 8, 0x000f_0001, 1), 0x013);
  t.equal(admin(5, DATA, 0x000f_0001, 0), 0x002, "in pieces");
  t.equal(admin(5, DATA, 0x000f_0001, 1), 0);
  t.equal(admin(5, DATA, 0x000f_0001, 1), 0x101, "twice");
  t.equal(admin(1, DATA, 0x000f_0001, 0x0001_0001), 0);
  t.equal(admin(4, 0, 1), 0x10c, "still in use");
  t.equal(admin(0, 0, 1), 0);
  t.equal(admin(4, 0, 1), 0);
  t.equal(admin(0, 0, 0), 0x101, "the admin queue stays");
});

t.test("NvmeDevice keeps event requests pending, aborts them, and gives logs and features", async (t) => {
  const { bench, driver } = await nvme(t);
  driver.start();
  const events = [1, 2, 3, 4].map(() => driver.submit(driver.admin, { opcode: 0x0c }));
  t.equal(driver.run({ opcode: 0x0c }).status, 0x105, "four are the limit");
  t.equal(driver.hasCompletion(driver.admin), false);
  const [, second = 0] = events;
  driver.submit(driver.admin, { opcode: 8, dwords: [second << 16] });
  t.match(driver.take(driver.admin), { cid: second, status: 0x007 });
  t.match(driver.take(driver.admin), { status: 0, result: 0 });
  t.match(driver.run({ opcode: 8, dwords: [0x0999_0000] }), { status: 0, result: 1 }, "not aborted");
  t.equal(driver.run({ opcode: 2, nsid: 0xffff_ffff, prp1: DATA, dwords: [0x007f_0002] }).status, 0);
  t.equal(bench.memory.readU16(gpa(DATA + 1)), 300, "27 °C");
  t.equal(driver.run({ opcode: 2, prp1: DATA, dwords: [0x007f_00c0] }).status, 0x109);
  t.equal(driver.run({ opcode: 10, dwords: [6] }).result, 1, "a volatile write cache");
  t.equal(driver.run({ opcode: 9, dwords: [6, 0] }).status, 0);
  t.equal(driver.run({ opcode: 10, dwords: [6] }).result, 0);
  t.equal(driver.run({ opcode: 9, dwords: [0x8000_0006, 0] }).status, 0x10d);
  t.equal(driver.run({ opcode: 10, dwords: [0x7f] }).status, 0x002);
  // Many commands: the rings go round.
  for (let round = 0; round < 40; round++) t.equal(driver.run({ opcode: 10, dwords: [7] }).status, 0);
});

t.test("NvmeDevice does what waits when the host makes room in a full completion queue", async (t) => {
  const { driver } = await nvme(t);
  driver.start();
  driver.createQueues();
  for (let count = 0; count < 15; count++) driver.submit(driver.io, { opcode: 0, nsid: 1 });
  t.equal(driver.read(0x1c), 1);
  // All 15 places are taken; this one has to wait.
  const waiting = driver.submit(driver.io, { opcode: 0, nsid: 1 });
  for (let count = 0; count < 15; count++) t.equal(driver.take(driver.io).status, 0);
  t.equal(driver.take(driver.io).cid, waiting);
});

t.test("NvmeDevice lets others have their turn while it does much, and finishes it", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-nvme-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const image = join(folder, "disk.raw");
  writeFileSync(image, "");
  truncateSync(image, 32 << 20);
  const server = await startServer(t, "nvme", "--image", image);
  const bench = new UserBench(t);
  const driver = new NvmeDriver(bench.connect(server.socket), bench.memory);
  driver.start();
  driver.createQueues();
  const ids: number[] = [];
  for (let count = 0; count < 15; count++) {
    ids.push(driver.submit(driver.io, { opcode: 8, nsid: 1, dwords: [0, 0, 0xffff] })); // 32 MiB of zeroes
  }
  // Every doorbell has been taken when this is answered, not every command.
  t.equal(driver.read(0x1c), 1);
  const last = 15 * 16 + 0x1_3000 - 16;
  t.equal(bench.memory.readU32(gpa(last + 12)), 0, "the last command is still to be done");
  const results = ids.map(() => driver.take(driver.io));
  t.same(
    results.map(({ cid, status }) => [cid, status]),
    ids.map((id) => [id, 0]),
  );
});

t.test("NvmeDevice survives doorbells and queues that make no sense, and a reset makes it whole", async (t) => {
  const { server, driver, device } = await nvme(t);
  driver.start();
  driver.write(0x1000, 999);
  driver.write(0x1004, 999);
  driver.write(0x1080, 1);
  device.writeRegion(0, 0x1001, 1, 3);
  t.equal(driver.read(0x1c), 1);
  device.reset();
  device.writeRegion(7, 0x04, 2, 0x6);
  driver.write(0x24, 0x000f_000f);
  driver.write(0x28, 0x7000_0000);
  driver.write(0x30, 0x7000_1000);
  driver.write(0x14, 0x0046_0001);
  driver.write(0x1000, 1);
  t.equal(driver.read(0x1c), 2, "fatal: its queue is not in memory");
  await server.reported(/submission queue 0 is not in memory/);
  device.reset();
  t.equal(driver.read(0x1c), 0);
});

t.test("NvmeDevice with --read-only says so and takes no writes", async (t) => {
  const { bench, driver } = await nvme(t, "--read-only");
  driver.start();
  driver.createQueues();
  driver.run({ opcode: 6, nsid: 1, prp1: DATA, dwords: [0] });
  t.equal(bench.memory.readU8(gpa(DATA + 99)), 1);
  t.equal(driver.runIo({ opcode: WRITE, nsid: 1, prp1: DATA, dwords: [0, 0, 0] }).status, 0x002);
  t.equal(driver.runIo({ opcode: 8, nsid: 1, dwords: [0, 0, 0] }).status, 0x002);
  t.equal(driver.runIo({ opcode: READ, nsid: 1, prp1: DATA, dwords: [9, 0, 0] }).status, 0);
});

t.test("NvmeDevice finishes a shutdown", async (t) => {
  const { driver } = await nvme(t);
  driver.start();
  driver.write(0x14, 0x0046_4001);
  t.equal(driver.read(0x1c), 0x9, "ready, and shutdown complete");
});
