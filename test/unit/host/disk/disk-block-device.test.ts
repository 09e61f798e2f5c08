import { closeSync, constants, openSync, readFileSync } from "node:fs";
import t from "tap";
import type { BlockStatus } from "../../../../src/base/backends.ts";
import { HostBench, HostBuffer } from "../../../support/host-bench.ts";
import { loopDevice, missingLoop } from "../../../support/loop-device.ts";
import { finish, openTestDisk } from "../../../support/test-disk.ts";

const MIB = 1024 * 1024;
const O_EXCL = 0o200;
const skip = missingLoop();

t.test("DiskFile uses a block device: size, transfer, flush, discard, write-zeroes", { skip }, async (t) => {
  const bench = new HostBench(t);
  const path = loopDevice(t, bench, 4 * MIB);
  const backend = openTestDisk(t, bench, { path, isReadOnly: false, isDirect: false });
  t.equal(backend.sizeBytes, 4 * MIB);
  const statuses: BlockStatus[] = [];
  const done = (status: BlockStatus): void => void statuses.push(status);
  const buffer = new HostBuffer(t, 512);
  buffer.bytes.fill(0x41);
  backend.write(512, [buffer.segment(0, 512)], done);
  backend.flush(done);
  backend.writeZeroes(MIB, MIB, false, done);
  if (backend.supportsDiscard) backend.discard(2 * MIB, MIB, done);
  else done("ok");
  backend.flush(done);
  bench.turnUntil(() => statuses.length === 5);
  t.same(statuses, ["ok", "ok", "ok", "ok", "ok"]);
  const stored = readFileSync(bench.path("backing"));
  t.equal(stored[511], 0x2e);
  t.ok(stored.subarray(512, 1024).every((byte) => byte === 0x41));
  t.ok(stored.subarray(MIB, 2 * MIB).every((byte) => byte === 0));
  if (backend.supportsDiscard) t.ok(stored.subarray(2 * MIB, 3 * MIB).every((byte) => byte === 0));
  t.equal(stored[3 * MIB], 0x2e);
  backend.close(10_000);
});

t.test("DiskFile does not write to a block device that the host uses, but reads it", { skip }, async (t) => {
  const bench = new HostBench(t);
  const path = loopDevice(t, bench, MIB);
  const common = { path, isDirect: true };
  const holder = openSync(path, constants.O_RDWR | O_EXCL); // as a mount holds it
  t.throws(() => openTestDisk(t, bench, { ...common, isReadOnly: false }), {
    name: "SyscallError",
    errno: "EBUSY",
    message: /the host uses it: unmount it, or give readonly=on/,
  });
  const reader = openTestDisk(t, bench, { ...common, isReadOnly: true });
  t.equal(reader.sizeBytes, MIB);
  t.equal(reader.supportsDiscard, false);
  reader.close(10_000);
  closeSync(holder);
});

t.test("DiskFile takes zeroes and discards of less than a device's block", { skip }, async (t) => {
  const bench = new HostBench(t);
  const path = loopDevice(t, bench, MIB, 4096);
  const backend = openTestDisk(t, bench, { path, isReadOnly: false, isDirect: false, logicalBlockBytes: 512 });
  t.equal(backend.blockSizeBytes, 512);
  const zero = (offset: number, sizeBytes: number): BlockStatus =>
    finish(bench, (done) => backend.writeZeroes(offset, sizeBytes, false, done));
  t.equal(zero(512, 512), "ok", "inside a block");
  t.equal(zero(8192 - 512, 1024), "ok", "across a border, no whole block");
  t.equal(zero(16_384 - 1024, 4096 + 1536), "ok", "a whole block and parts beside it");
  t.equal(zero(32_768, 8192), "ok", "whole blocks");
  if (backend.supportsDiscard) {
    const discard = (offset: number, sizeBytes: number): BlockStatus =>
      finish(bench, (done) => backend.discard(offset, sizeBytes, done));
    t.equal(discard(65_536 + 512, 4096), "ok", "no whole block: nothing is lost");
    t.equal(discard(131_072 - 512, 8192), "ok", "one whole block");
  }
  t.equal(
    finish(bench, (done) => backend.flush(done)),
    "ok",
  );
  const stored = readFileSync(bench.path("backing"));
  const expected = Buffer.alloc(MIB, 0x2e);
  for (const [offset, sizeBytes] of [
    [512, 512],
    [8192 - 512, 1024],
    [16_384 - 1024, 4096 + 1536],
    [32_768, 8192],
    [131_072, backend.supportsDiscard ? 4096 : 0],
  ] as const) {
    expected.fill(0, offset, offset + sizeBytes);
  }
  t.ok(stored.equals(expected));
});
