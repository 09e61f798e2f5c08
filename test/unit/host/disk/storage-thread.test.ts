import { openSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import type { BlockStatus } from "../../../../src/base/backends.ts";
import { StorageThread } from "../../../../src/host/disk/storage-thread.ts";
import { HostBench } from "../../../support/host-bench.ts";
import { PlayedStorage } from "../../../support/played-storage.ts";

const EIO = 5;

function storage(t: Test) {
  const bench = new HostBench(t);
  const path = bench.path("disk.img");
  writeFileSync(path, Buffer.alloc(65_536, 0x2e));
  const worker = new PlayedStorage(t);
  const target = { fd: openSync(path, "r+"), isBlockDevice: false, deviceBlockBytes: 1, transferBlockBytes: 1 };
  const thread = new StorageThread("disk", worker.port, target, bench.loop, bench.report);
  const statuses: BlockStatus[] = [];
  const flush = (): void => thread.submit({ kind: "flush" }, (status) => statuses.push(status));
  return { bench, worker, thread, statuses, flush };
}

t.test("StorageThread delivers the worker's results in order, and what waits for room follows", async (t) => {
  const { bench, worker, thread, statuses, flush } = storage(t);
  for (let count = 0; count < 70; count++) flush();
  for (let count = 0; count < 70; count++) {
    worker.finish(count === 65 ? EIO : undefined);
    bench.turnWhileReady();
  }
  t.same(
    statuses,
    Array.from({ length: 70 }, (_, index) => (index === 65 ? "ioError" : "ok")),
  );
  t.ok(thread.close(0));
});

t.test("StorageThread fails all jobs when its worker has ended, and says so once", async (t) => {
  const { bench, worker, thread, statuses, flush } = storage(t);
  for (let count = 0; count < 70; count++) flush();
  worker.finish();
  worker.enter("ended");
  bench.turnWhileReady();
  t.equal(statuses.length, 70);
  t.same([statuses[0], statuses[1], statuses[69]], ["ok", "ioError", "ioError"]);
  flush();
  t.equal(statuses.at(-1), "ioError", "at once");
  t.same(bench.reported, [
    "error: disk: its storage worker has ended: flushes, discards and zeroes fail until the machine's end",
  ]);
  t.ok(thread.close(0), "the worker uses the descriptor no more");
});

t.test("StorageThread.close() fails what its worker does not finish, and leaves the descriptor to it", async (t) => {
  const { bench, thread, statuses, flush } = storage(t);
  flush();
  t.notOk(thread.close(5));
  t.same(statuses, ["ioError"]);
  t.match(bench.reported, [/^warn: disk: a storage call has not finished after 5 ms and is left alone/]);
});

t.test("StorageThread.close() does not wait for a worker that has ended", async (t) => {
  const { worker, thread, statuses, flush } = storage(t);
  flush();
  worker.enter("ended");
  t.ok(thread.close(600_000));
  t.same(statuses, ["ioError"]);
});
