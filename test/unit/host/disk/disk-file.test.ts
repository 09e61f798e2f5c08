import { chmodSync, mkdirSync, openSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import type { BlockStatus } from "../../../../src/base/backends.ts";
import { fd } from "../../../../src/base/units.ts";
import type { DiskFile } from "../../../../src/host/disk/disk-file.ts";
import { DiskTransfer } from "../../../../src/host/disk/disk-transfer.ts";
import { HostBench, HostBuffer } from "../../../support/host-bench.ts";
import { finish, openTestDisk } from "../../../support/test-disk.ts";

const MIB = 1024 * 1024;
const FULL = { isReadOnly: false, isDirect: false };

const disk = (t: Test, bench: HostBench, path: string, options: Partial<typeof FULL> = {}): DiskFile =>
  openTestDisk(t, bench, { ...FULL, ...options, path });

function image(bench: HostBench, sizeBytes: number, name = "disk.img"): string {
  const path = bench.path(name);
  writeFileSync(path, Buffer.alloc(sizeBytes, 0x2e));
  return path;
}

t.test("DiskFile reads into and writes from scattered memory", async (t) => {
  const bench = new HostBench(t);
  const path = image(bench, MIB);
  const backend = disk(t, bench, path);
  const buffer = new HostBuffer(t, 4096);
  t.equal(backend.sizeBytes, MIB);
  t.equal(backend.blockSizeBytes, 512);
  buffer.bytes.fill(0x41, 0, 512);
  buffer.bytes.fill(0x42, 1024, 1536);
  const parts = [buffer.segment(1024, 100), buffer.segment(0, 512), buffer.segment(1124, 412)];
  t.equal(
    finish(bench, (done) => backend.write(512, parts, done)),
    "ok",
  );
  const stored = readFileSync(path, "latin1");
  t.equal(stored.slice(511, 1537), `.${"B".repeat(100)}${"A".repeat(512)}${"B".repeat(412)}.`);
  t.equal(
    finish(bench, (done) => backend.read(512, [buffer.segment(2048, 1), buffer.segment(3000, 511)], done)),
    "ok",
  );
  t.equal(buffer.bytes[2048], 0x42);
  t.equal(Buffer.from(buffer.bytes.subarray(2999, 3512)).toString("latin1"), `\0${"B".repeat(99)}${"A".repeat(412)}\0`);
});

t.test("DiskFile takes more segments than one preadv can", async (t) => {
  const bench = new HostBench(t);
  const path = image(bench, MIB);
  const backend = disk(t, bench, path);
  const buffer = new HostBuffer(t, 2048 * 8);
  for (let index = 0; index < 2048; index++) buffer.bytes.fill(index & 0xff, index * 8, index * 8 + 4);
  const parts = Array.from({ length: 2048 }, (_, index) => buffer.segment(index * 8, 4));
  t.equal(
    finish(bench, (done) => backend.write(0, parts, done)),
    "ok",
  );
  const stored = readFileSync(path);
  t.ok([...stored.subarray(0, 8192)].every((byte, index) => byte === ((index >> 2) & 0xff)));
  buffer.bytes.fill(0);
  t.equal(
    finish(bench, (done) => backend.read(0, parts, done)),
    "ok",
  );
  t.equal(buffer.bytes[2047 * 8 + 3], 2047 & 0xff);
  t.equal(buffer.bytes[2047 * 8 + 4], 0);
});

t.test("DiskTransfer continues where the kernel moved only a part", async (t) => {
  const bench = new HostBench(t);
  const buffer = new HostBuffer(t, 8192);
  buffer.bytes.fill(0x41, 0, 8192);
  // The kernel stops a read at the end of a file, and the next one finds nothing: the longest partial read there is.
  const path = image(bench, 1000);
  const transfer = new DiskTransfer(fd(openSync(path, "r")), 1);
  t.equal(transfer.run("read", 0, [buffer.segment(0, 900), buffer.segment(4096, 200)]), 5, "EIO");
  t.equal(buffer.bytes[899], 0x2e);
  t.equal(buffer.bytes[4096 + 99], 0x2e);
  t.equal(buffer.bytes[4096 + 100], 0x41);
  t.equal(transfer.run("read", 0, [buffer.segment(8000, 0), buffer.segment(0, 1)]), 0, "an empty segment is no end");
});

t.test("DiskFile.flush() is done by the storage worker and answers through the watcher", async (t) => {
  const bench = new HostBench(t);
  const backend = disk(t, bench, image(bench, MIB));
  let status: BlockStatus | undefined;
  backend.flush((answer) => {
    status = answer;
  });
  t.equal(status, undefined, "not from inside the call");
  bench.turnUntil(() => status !== undefined);
  t.equal(status, "ok");
});

t.test("DiskFile.flush() has nothing to do where nothing was written since the last one", async (t) => {
  const bench = new HostBench(t);
  const backend = disk(t, bench, image(bench, MIB));
  const buffer = new HostBuffer(t, 512);
  /** True when the answer came from inside the call. */
  const isFree = (): boolean => {
    const statuses: BlockStatus[] = [];
    backend.flush((status) => statuses.push(status));
    const isDone = statuses.length === 1;
    bench.turnUntil(() => statuses.length === 1);
    t.same(statuses, ["ok"]);
    return isDone;
  };
  t.notOk(isFree(), "the first one: who knows what was written before");
  t.ok(isFree());
  const done = (): void => undefined;
  backend.read(0, [buffer.segment(0, 512)], done);
  t.ok(isFree(), "reading changes nothing");
  backend.write(0, [buffer.segment(0, 512)], done);
  t.notOk(isFree(), "after a write");
  backend.writeZeroes(0, 512, false, done);
  t.notOk(isFree(), "after zeroes");
  if (backend.supportsDiscard) {
    backend.discard(0, 4096, done);
    t.notOk(isFree(), "after a discard");
  }
});

t.test("DiskFile.flush() is not spared a write that came while another flush was under way", async (t) => {
  const bench = new HostBench(t);
  const backend = disk(t, bench, image(bench, MIB));
  const buffer = new HostBuffer(t, 512);
  const answered: string[] = [];
  backend.flush(() => answered.push("first"));
  backend.write(0, [buffer.segment(0, 512)], () => answered.push("write"));
  bench.turnUntil(() => answered.includes("first"));
  backend.flush(() => answered.push("second"));
  t.same(answered, ["write", "first"], "the second one goes to the worker");
  bench.turnUntil(() => answered.length === 3);
});

t.test("DiskFile answers more requests than the worker's ring holds, in order", async (t) => {
  const bench = new HostBench(t);
  const backend = disk(t, bench, image(bench, MIB));
  const answered: number[] = [];
  for (let index = 0; index < 200; index++) backend.writeZeroes(index * 512, 512, false, () => answered.push(index));
  bench.turnUntil(() => answered.length === 200);
  t.same(
    answered,
    Array.from({ length: 200 }, (_, index) => index),
  );
});

t.test("DiskFile does a request that an answer brings after those that wait already", async (t) => {
  const bench = new HostBench(t);
  const backend = disk(t, bench, image(bench, MIB));
  const answered: number[] = [];
  for (let index = 0; index < 100; index++) {
    backend.writeZeroes(index * 512, 512, false, () => {
      answered.push(index);
      if (index === 0) backend.flush(() => answered.push(1000));
    });
  }
  bench.turnUntil(() => answered.length === 101);
  t.equal(answered.indexOf(1000), 100);
});

t.test("DiskFile.discard() gives the file's blocks back", async (t) => {
  const bench = new HostBench(t);
  const path = image(bench, 4 * MIB);
  const backend = disk(t, bench, path);
  if (!backend.supportsDiscard) {
    t.equal(
      finish(bench, (done) => backend.discard(MIB, 2 * MIB, done)),
      "unsupported",
    );
    return;
  }
  const before = statSync(path).blocks;
  t.equal(
    finish(bench, (done) => backend.discard(MIB, 2 * MIB, done)),
    "ok",
  );
  t.ok(statSync(path).blocks <= before - 4000, "2 MiB are 4096 blocks of 512 bytes");
  const stored = readFileSync(path);
  t.equal(stored.length, 4 * MIB);
  t.equal(stored[MIB - 1], 0x2e);
  t.ok(stored.subarray(MIB, 3 * MIB).every((byte) => byte === 0));
  t.equal(stored[3 * MIB], 0x2e);
});

for (const mayUnmap of [false, true]) {
  for (const isDirect of [false, true]) {
    t.test(`DiskFile.writeZeroes() zeroes a range (mayUnmap ${mayUnmap}, direct ${isDirect})`, async (t) => {
      const bench = new HostBench(t);
      const path = image(bench, 4 * MIB);
      const backend = disk(t, bench, path, { isDirect });
      t.equal(
        finish(bench, (done) => backend.writeZeroes(4096, 2 * MIB, mayUnmap, done)),
        "ok",
      );
      const stored = readFileSync(path);
      t.equal(stored[4095], 0x2e);
      t.ok(stored.subarray(4096, 4096 + 2 * MIB).every((byte) => byte === 0));
      t.equal(stored[4096 + 2 * MIB], 0x2e);
    });
  }
}

t.test("DiskFile refuses changes outside the disk, and empty ones are done at once", async (t) => {
  const bench = new HostBench(t);
  const path = image(bench, MIB);
  const backend = disk(t, bench, path);
  t.equal(
    finish(bench, (done) => backend.writeZeroes(MIB - 512, 1024, false, done)),
    "ioError",
  );
  t.equal(
    finish(bench, (done) => backend.writeZeroes(0, 0, false, done)),
    "ok",
  );
  t.equal(statSync(path).size, MIB);
});

t.test("DiskFile with isReadOnly refuses every change and lets the file be", async (t) => {
  const bench = new HostBench(t);
  const path = image(bench, MIB);
  chmodSync(path, 0o444);
  const backend = disk(t, bench, path, { isReadOnly: true });
  const buffer = new HostBuffer(t, 512);
  t.equal(backend.isReadOnly, true);
  t.equal(backend.supportsDiscard, false);
  t.equal(
    finish(bench, (done) => backend.write(0, [buffer.segment(0, 512)], done)),
    "ioError",
  );
  t.equal(
    finish(bench, (done) => backend.writeZeroes(0, 512, true, done)),
    "ioError",
  );
  t.equal(
    finish(bench, (done) => backend.discard(0, 512, done)),
    "unsupported",
  );
  t.equal(
    finish(bench, (done) => backend.flush(done)),
    "ok",
  );
  t.equal(
    finish(bench, (done) => backend.read(0, [buffer.segment(0, 512)], done)),
    "ok",
  );
  t.ok(readFileSync(path).every((byte) => byte === 0x2e));
});

t.test("DiskFile with isDirect moves unaligned memory through its own buffer", async (t) => {
  const bench = new HostBench(t);
  const path = image(bench, 4 * MIB);
  const backend = disk(t, bench, path, { isDirect: true });
  const buffer = new HostBuffer(t, 3 * MIB);
  for (let index = 0; index < buffer.bytes.length; index++) buffer.bytes[index] = (index * 7) & 0xff;
  const size = 2 * MIB; // more than the bounce buffer holds
  const parts = [buffer.segment(3, 1000), buffer.segment(1003, size - 1000)];
  t.equal(
    finish(bench, (done) => backend.write(4096, parts, done)),
    "ok",
  );
  t.same(readFileSync(path).subarray(4096, 4096 + size), Buffer.from(buffer.bytes.subarray(3, 3 + size)));
  const expected = Buffer.from(buffer.bytes.subarray(3, 3 + size));
  buffer.bytes.fill(0);
  t.equal(
    finish(bench, (done) => backend.read(4096, [buffer.segment(1, 511), buffer.segment(513, size - 511)], done)),
    "ok",
  );
  const found = Buffer.concat([buffer.bytes.subarray(1, 512), buffer.bytes.subarray(513, 513 + size - 511)]);
  t.ok(found.equals(expected));
  t.equal(buffer.bytes[0], 0);
  t.equal(buffer.bytes[512], 0);
});

t.test("DiskFile with isDirect moves aligned memory and says no to ranges that cannot be", async (t) => {
  const bench = new HostBench(t);
  const backend = disk(t, bench, image(bench, MIB), { isDirect: true });
  const buffer = new HostBuffer(t, 8192);
  t.equal(
    finish(bench, (done) => backend.read(0, [buffer.segment(4096, 4096)], done)),
    "ok",
  );
  t.equal(buffer.bytes[4096], 0x2e);
  t.equal(
    finish(bench, (done) => backend.read(0, [buffer.segment(0, 100)], done)),
    "ioError",
  );
  t.equal(
    finish(bench, (done) => backend.read(0, [buffer.segment(0, 100)], done)),
    "ioError",
  );
  t.equal(bench.reported.filter((line) => line.includes("EINVAL")).length, 1, "reported once");
});

t.test("DiskFile.read() fails where the file has become shorter", async (t) => {
  const bench = new HostBench(t);
  const path = image(bench, MIB);
  const backend = disk(t, bench, path);
  truncateSync(path, 512);
  const buffer = new HostBuffer(t, 1024);
  t.equal(
    finish(bench, (done) => backend.read(512, [buffer.segment(0, 512)], done)),
    "ioError",
  );
  t.match(bench.reported, [/warn: .*read at 0x200 failed with EIO/]);
});

t.test("DiskFile locks an image: one writer, or any number of readers", async (t) => {
  const bench = new HostBench(t);
  const path = image(bench, MIB);
  const writer = disk(t, bench, path);
  const conflict = { name: "HostError", message: /Cannot lock disk image .*disk\.img: it is in use \(.*readonly=on/ };
  t.throws(() => disk(t, bench, path), conflict);
  t.throws(() => disk(t, bench, path, { isReadOnly: true }), conflict);
  writer.close(10_000);
  const reader = disk(t, bench, path, { isReadOnly: true });
  disk(t, bench, path, { isReadOnly: true }).close(10_000);
  t.throws(() => disk(t, bench, path), conflict);
  reader.close(10_000);
  disk(t, bench, path);
});

t.test(
  "DiskFile.close() delivers what the worker has in hand, unlocks the image and may be called twice",
  async (t) => {
    const bench = new HostBench(t);
    const path = image(bench, 4 * MIB);
    const backend = disk(t, bench, path);
    const answers: BlockStatus[] = [];
    for (let index = 0; index < 100; index++)
      backend.writeZeroes(index * 4096, 4096, false, (status) => answers.push(status));
    backend.flush((status) => answers.push(status));
    backend.close(10_000);
    backend.close(10_000);
    t.equal(answers.length, 101);
    t.ok(answers.every((status) => status === "ok"));
    backend.flush((status) => answers.push(status));
    t.equal(answers.at(-1), "ioError", "nothing works afterwards");
    disk(t, bench, path);
  },
);

t.test("DiskFile says what is wrong with the path it was given", async (t) => {
  const bench = new HostBench(t);
  mkdirSync(bench.path("folder"));
  t.throws(() => disk(t, bench, bench.path("missing")), {
    name: "HostError",
    message: /there is no such file \(make one/,
  });
  t.throws(() => disk(t, bench, bench.path("folder")), { name: "HostError", message: /it is a directory/ });
  t.throws(() => disk(t, bench, "/dev/null"), { name: "HostError", message: /neither a file nor a block device/ });
  t.throws(() => disk(t, bench, image(bench, 0)), { name: "HostError", message: /it has 0 bytes \(make it larger/ });
  t.throws(() => disk(t, bench, image(bench, 511)), { name: "HostError", message: /it has 511 bytes/ });
  t.throws(() => disk(t, bench, `${image(bench, 512)}/below`), { name: "HostError", message: /ENOTDIR/ });
});

/** Runs `work` as a user who is not root. */
function unprivileged(work: () => void): void {
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(65534);
  try {
    work();
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
}

t.test("DiskFile says that the user may not open an image", async (t) => {
  const bench = new HostBench(t);
  chmodSync(bench.directory, 0o755);
  const path = image(bench, MIB);
  chmodSync(path, 0o444);
  unprivileged(() => {
    t.throws(() => disk(t, bench, path), { name: "SyscallError", errno: "EACCES", message: /give readonly=on/ });
    disk(t, bench, path, { isReadOnly: true }).close(10_000);
  });
  chmodSync(path, 0);
  unprivileged(() => {
    t.throws(() => disk(t, bench, path, { isReadOnly: true }), { errno: "EACCES", message: /may not read it/ });
  });
});
