import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import t from "tap";
import { DiskFile } from "../../../../src/host/disk/disk-file.ts";
import { STORAGE_STAGE, StorageRing } from "../../../../src/host/disk/storage-ring.ts";
import { StorageWorker } from "../../../../src/host/disk/storage-starter.ts";
import { HostBench } from "../../../support/host-bench.ts";
import { withoutDescriptors } from "../../../support/host-descriptors.ts";
import { openTestDisk } from "../../../support/test-disk.ts";

const NAME = "the storage worker of disk0";

t.test("StorageWorker serves until it is told to stop", async (t) => {
  const worker = new StorageWorker(NAME);
  await worker.ready(60_000);
  await worker.ready(60_000);
  const ring = new StorageRing(worker.port.ring);
  t.equal(ring.stage, STORAGE_STAGE.serving);
  worker.stop();
  await worker.ended;
  t.equal(ring.stage, STORAGE_STAGE.ended);
});

t.test("StorageWorker that is told to stop while it loads ends by itself", async (t) => {
  const worker = new StorageWorker(NAME);
  t.ok(worker.waitForEnd(60_000), "this thread waits without a turn of its event loop");
  worker.stop();
  await worker.ended;
});

t.test("StorageWorker says that no descriptor is left for its eventfd", async (t) => {
  withoutDescriptors(() => {
    t.throws(() => new StorageWorker(NAME), {
      name: "SyscallError",
      message: /eventfd failed with EMFILE \(raise the limit of open files/,
    });
  });
});

t.test("StorageWorker.ready() gives up on a worker that does not start", async (t) => {
  const worker = new StorageWorker(NAME, new URL("../../../support/silent-storage-worker.js", import.meta.url));
  const late = { name: "HostError", message: `Cannot start ${NAME}: it is not ready after 0.005 s` };
  await t.rejects(worker.ready(5), late);
  worker.stop();
  await worker.ended;
});

t.test("StorageWorker says that its file is missing, and its jobs fail", async (t) => {
  const bench = new HostBench(t);
  const worker = new StorageWorker(NAME, pathToFileURL("/nowhere.js"));
  await t.rejects(worker.ready(60_000), {
    name: "HostError",
    message:
      /^Cannot start the storage worker of disk0: Cannot find module '.*nowhere.js'[^\n]* \(was the package replaced meanwhile\?\)$/,
  });
  await worker.ended;
  const path = bench.path("disk.img");
  writeFileSync(path, Buffer.alloc(4096));
  const common = { path, isReadOnly: false, isDirect: false, watcher: bench.loop, report: bench.report };
  const disk = new DiskFile({ ...common, storage: worker.port });
  const statuses: string[] = [];
  disk.flush((status) => statuses.push(status));
  t.same(statuses, ["ioError"]);
  disk.close(0);
  worker.stop();
});

t.test("DiskFile's jobs are carried out by a storage worker", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("disk.img");
  writeFileSync(path, Buffer.alloc(65_536, 0x2e));
  const disk = openTestDisk(t, bench, { path, isReadOnly: false, isDirect: false });
  const statuses: string[] = [];
  disk.writeZeroes(4096, 4096, false, (status) => statuses.push(status));
  disk.flush((status) => statuses.push(status));
  t.same(statuses, []);
  bench.turnUntil(() => statuses.length === 2);
  t.same(statuses, ["ok", "ok"]);
  const stored = readFileSync(path);
  t.same([stored[4095], stored[4096], stored[8191], stored[8192]], [0x2e, 0, 0, 0x2e]);
});
