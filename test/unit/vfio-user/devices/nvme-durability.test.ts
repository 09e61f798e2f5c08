import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { LocalNvme } from "../../../support/local-nvme.ts";
import { WriteLog } from "../../../support/write-log.ts";

const DATA = 0x2_0000;
const FLUSH = 0x00;
const WRITE = 0x01;
const READ = 0x02;
const WRITE_ZEROES = 0x08;
const SET_FEATURES = 0x09;
const GET_FEATURES = 0x0a;
const WRITE_CACHE = 0x06;
const FUA = 0x4000_0000;
const EIO = 5;
const INTERNAL_ERROR = 0x006;

async function nvme(t: Test) {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-nvme-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "disk.raw");
  writeFileSync(path, new Uint8Array(64 * 1024));
  const log = new WriteLog(t, path);
  const driver = await LocalNvme.start(t, path);
  const { reports } = driver;
  /** A command for two blocks from block 4 on; its status. */
  const io = async (opcode: number, cdw12 = 1): Promise<number> =>
    (await driver.runIo({ opcode, nsid: 1, prp1: DATA, dwords: [4, 0, cdw12] })).status;
  const setCache = async (value: number): Promise<number> =>
    (await driver.run({ opcode: SET_FEATURES, dwords: [WRITE_CACHE, value] })).status;
  /** What reached the kernel since the last look. */
  const calls = (): readonly string[] => log.entries.splice(0).map(({ kind }) => kind);
  return { log, driver, reports, io, setCache, calls };
}

t.test(
  "NvmeDevice brings a write with FUA to the medium before it completes, and leaves others in the cache",
  async (t) => {
    const { io, calls } = await nvme(t);
    t.equal(await io(WRITE), 0);
    t.same(calls(), ["write"]);
    t.equal(await io(WRITE, FUA | 1), 0);
    t.same(calls(), ["write", "flush"]);
    t.equal(await io(WRITE_ZEROES), 0);
    t.same(calls(), ["write"]);
    t.equal(await io(WRITE_ZEROES, FUA | 1), 0);
    t.same(calls(), ["write", "flush"]);
  },
);

t.test("NvmeDevice reads with FUA from the medium", async (t) => {
  const { io, calls } = await nvme(t);
  await io(WRITE);
  t.equal(await io(READ, 1), 0);
  t.same(calls(), ["write"]);
  t.equal(await io(READ, FUA | 1), 0);
  t.same(calls(), ["flush"]);
});

t.test("NvmeDevice with its write cache off flushes each write, and what was in the cache", async (t) => {
  const { driver, io, setCache, calls } = await nvme(t);
  await io(WRITE);
  calls();
  t.equal(await setCache(0), 0);
  t.same(calls(), ["flush"], "what the cache held");
  t.equal((await driver.run({ opcode: GET_FEATURES, dwords: [WRITE_CACHE] })).result, 0);
  t.equal(await io(WRITE), 0);
  t.same(calls(), ["write", "flush"]);
  t.equal(await io(WRITE_ZEROES), 0);
  t.same(calls(), ["write", "flush"]);
  t.equal(await setCache(1), 0);
  t.equal(await io(WRITE), 0);
  t.same(calls(), ["write"]);
});

t.test(
  "NvmeDevice fails a write with FUA whose flush fails, and keeps its cache on when that cannot be emptied",
  async (t) => {
    const { driver, log, io, setCache, reports } = await nvme(t);
    log.nextFlushErrno = EIO;
    t.equal(await setCache(0), INTERNAL_ERROR);
    t.equal((await driver.run({ opcode: GET_FEATURES, dwords: [WRITE_CACHE] })).result, 1);
    t.equal(await io(WRITE, FUA | 1), INTERNAL_ERROR);
    t.match(reports, [/^error: nvme: Cannot flush the namespace: fdatasync failed with EIO/]);
  },
);

t.test("NvmeDevice fails every flush after one that failed: what it lost is not on the medium", async (t) => {
  const { log, io, setCache, calls, reports } = await nvme(t);
  await io(WRITE);
  log.nextFlushErrno = EIO;
  t.equal(await io(FLUSH), INTERNAL_ERROR);
  t.equal(await io(FLUSH), INTERNAL_ERROR, "although the next fdatasync would succeed");
  t.equal(await io(WRITE, FUA | 1), INTERNAL_ERROR);
  t.equal(await setCache(0), INTERNAL_ERROR);
  t.equal(await io(WRITE), 0, "what promises nothing goes on");
  t.equal(await io(READ), 0);
  t.same(calls(), ["write", "failedFlush", "write", "write"]);
  t.same(reports, [
    "error: nvme: Cannot flush the namespace: fdatasync failed with EIO " +
      "(data may be lost: every later flush fails until the device is started anew)",
  ]);
});
