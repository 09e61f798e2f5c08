import { writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import type { BlockStatus } from "../../../../src/base/backends.ts";
import { DiskFile } from "../../../../src/host/disk/disk-file.ts";
import { HostBench, HostBuffer } from "../../../support/host-bench.ts";
import { PlayedStorage } from "../../../support/played-storage.ts";

const EIO = 5;

/** A disk whose storage worker the test plays: the kernel's answers are the test's choice. */
function disk(t: Test, isDirect = false) {
  const bench = new HostBench(t);
  const path = bench.path("disk.img");
  writeFileSync(path, Buffer.alloc(65_536, 0x2e));
  const worker = new PlayedStorage(t);
  const common = { path, isReadOnly: false, watcher: bench.loop, report: bench.report };
  const backend = new DiskFile({ ...common, isDirect, storage: worker.port });
  const buffer = new HostBuffer(t, 4096);
  t.teardown(() => backend.close(0));
  const statuses: BlockStatus[] = [];
  const done = (status: BlockStatus): void => void statuses.push(status);
  /** Ends the worker's next job as told, or as the kernel does. */
  const finish = (errno?: number): void => {
    worker.finish(errno);
    bench.turnWhileReady();
  };
  const write = (): void => backend.write(0, [buffer.segment(0, 4096)], done);
  const flush = (): void => backend.flush(done);
  return { bench, worker, backend, statuses, done, finish, write, flush };
}

t.test("DiskFile fails every flush after one that failed: what it lost is not on stable storage", async (t) => {
  const { bench, worker, statuses, finish, write, flush } = disk(t);
  write();
  flush();
  finish(EIO);
  flush();
  write();
  flush();
  t.same(statuses, ["ok", "ioError", "ioError", "ok", "ioError"]);
  t.equal(worker.job, undefined, "the kernel is not asked again");
  t.match(bench.reported, [
    /^warn: .*disk.img: a storage call failed with EIO$/,
    /^error: .*disk.img: a flush failed: data may be lost, so every later flush fails until the machine is started anew$/,
  ]);
});

t.test("DiskFile fails flushes that were under way behind the one that failed", async (t) => {
  const { statuses, finish, write, flush } = disk(t);
  write();
  flush();
  flush();
  finish(EIO);
  finish(0);
  t.same(statuses, ["ok", "ioError", "ioError"], "the kernel reports the loss once");
});

t.test("DiskFile that others have lost data of reads, writes and zeroes on", async (t) => {
  const { backend, statuses, done, finish, write, flush } = disk(t);
  flush();
  finish(EIO);
  write();
  backend.writeZeroes(0, 4096, false, done);
  finish();
  t.same(statuses, ["ioError", "ok", "ok"]);
});

t.test("DiskFile with isDirect flushes again: no page of it was lost", async (t) => {
  const { statuses, finish, write, flush } = disk(t, true);
  write();
  flush();
  finish(EIO);
  flush();
  finish(0);
  t.same(statuses, ["ok", "ioError", "ok"]);
});

t.test("DiskFile.flush() covers no write that is done after it began", async (t) => {
  const { worker, statuses, finish, write, flush } = disk(t);
  write();
  flush();
  write();
  finish(0);
  flush();
  t.same(worker.job, { kind: "flush" });
  finish(0);
  flush();
  t.same(statuses, ["ok", "ok", "ok", "ok", "ok"]);
});
