import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import { DiskFile } from "../../../../src/host/disk/disk-file.ts";
import { libc } from "../../../../src/host/libc.ts";
import { linkTarget } from "../../../../src/host-pci/files.ts";
import { HostBench, HostBuffer } from "../../../support/host-bench.ts";
import { PlayedStorage } from "../../../support/played-storage.ts";

/** A disk whose storage worker the test plays, and what its requests answered: "zero ok". */
function disk(t: Test) {
  const bench = new HostBench(t);
  const path = bench.path("disk.img");
  writeFileSync(path, Buffer.alloc(65_536, 0x2e));
  const worker = new PlayedStorage(t);
  const common = { path, isReadOnly: false, isDirect: false, watcher: bench.loop, report: bench.report };
  const backend = new DiskFile({ ...common, storage: worker.port });
  t.teardown(() => backend.close(0));
  const buffer = new HostBuffer(t, 512);
  buffer.bytes.fill(0x41);
  const answers: string[] = [];
  const segments = [buffer.segment(0, 512)];
  const write = (): void => backend.write(512, segments, (status) => answers.push(`write ${status}`));
  const read = (): void => backend.read(512, segments, (status) => answers.push(`read ${status}`));
  const zero = (): void => backend.writeZeroes(0, 4096, false, (status) => answers.push(`zero ${status}`));
  const flush = (): void => backend.flush((status) => answers.push(`flush ${status}`));
  const finish = (): void => {
    worker.finish();
    bench.turnWhileReady();
  };
  return { path, worker, backend, buffer, answers, write, read, zero, flush, finish };
}

t.test("DiskFile keeps what the next device writes from zeroes of the one before", async (t) => {
  const { path, backend, buffer, answers, write, read, zero, flush, finish } = disk(t);
  flush();
  zero();
  backend.detach();
  write();
  read();
  t.same(answers, [], "the flush may take long");
  finish();
  t.same(answers, ["flush ok"]);
  finish();
  t.same(answers, ["flush ok", "zero ok", "write ok", "read ok"]);
  t.equal(buffer.bytes[0], 0x41);
  const stored = readFileSync(path);
  t.same([stored[511], stored[512], stored[1024], stored[4096]], [0, 0x41, 0, 0x2e]);
});

t.test("DiskFile lets the next device begin at once when only a flush is under way", async (t) => {
  const { backend, answers, write, flush, finish } = disk(t);
  flush();
  backend.detach();
  write();
  t.same(answers, ["write ok"]);
  finish();
  t.same(answers, ["write ok", "flush ok"]);
});

t.test("DiskFile drops what waited for a device that goes too", async (t) => {
  const { backend, buffer, answers, read, write, zero, finish } = disk(t);
  zero();
  backend.detach();
  read();
  backend.detach();
  write();
  finish();
  t.same(answers, ["zero ok", "write ok"], "the read would have touched memory of the guest's life before");
  t.equal(buffer.bytes[0], 0x41);
});

t.test("DiskFile.close() fails what still waits, and touches no memory", async (t) => {
  const { path, backend, buffer, answers, read, zero } = disk(t);
  zero();
  backend.detach();
  read();
  backend.close(5);
  t.same(answers, ["zero ioError", "read ioError"]);
  // Left open for the worker, which is inside a call, by its number alone.
  const left = readdirSync("/proc/self/fd").filter((name) => linkTarget(`/proc/self/fd/${name}`) === path);
  t.equal(left.length, 1);
  for (const name of left) libc.close(Number(name));
  t.equal(buffer.bytes[0], 0x41);
});
