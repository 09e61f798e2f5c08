import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import type { BlockStatus } from "../../../../src/base/backends.ts";
import type { DiskFile } from "../../../../src/host/disk/disk-file.ts";
import { HostBench, HostBuffer } from "../../../support/host-bench.ts";
import { loopDevice, missingLoop } from "../../../support/loop-device.ts";
import { finish, openTestDisk } from "../../../support/test-disk.ts";

/*
 * The guest's blocks are the image's: 512 bytes, or a block device's own, however the host reads them. Loop devices of
 * 4 KiB blocks take direct I/O in whole blocks alone, as 4Kn drives do. So do files of an ext4 on one.
 */

const MIB = 2 ** 20;
const skip = missingLoop();

const read = (bench: HostBench, disk: DiskFile, offset: number, buffer: HostBuffer, sizeBytes: number): BlockStatus =>
  finish(bench, (done) => disk.read(offset, [buffer.segment(0, sizeBytes)], done));
const write = (bench: HostBench, disk: DiskFile, offset: number, buffer: HostBuffer, sizeBytes: number): BlockStatus =>
  finish(bench, (done) => disk.write(offset, [buffer.segment(0, sizeBytes)], done));

/** A folder on an ext4 file system whose device has blocks of 4 KiB. */
function ext4On4Kn(t: Test, bench: HostBench): string {
  const device = loopDevice(t, bench, 16 * MIB, 4096);
  execFileSync("mkfs.ext4", ["-q", "-F", device], { stdio: "ignore" });
  const folder = bench.path("mounted");
  mkdirSync(folder);
  execFileSync("mount", [device, folder]);
  t.teardown(() => void spawnSync("umount", [folder]));
  return folder;
}

for (const isDirect of [false, true]) {
  const how = isDirect ? "direct I/O" : "the page cache";

  t.test(`DiskFile has a block device's own blocks through ${how} by default`, { skip }, async (t) => {
    for (const blockBytes of [512, 4096]) {
      const bench = new HostBench(t);
      const path = loopDevice(t, bench, MIB, blockBytes);
      const own = openTestDisk(t, bench, { path, isReadOnly: true, isDirect });
      t.equal(own.blockSizeBytes, blockBytes);
      const told = openTestDisk(t, bench, { path, isReadOnly: true, isDirect, logicalBlockBytes: 512 });
      t.equal(told.blockSizeBytes, 512);
      t.equal(told.sizeBytes, MIB);
    }
  });

  t.test(`DiskFile has sectors of 512 bytes in a file on a 4Kn device, through ${how}`, { skip }, async (t) => {
    const bench = new HostBench(t);
    const path = `${ext4On4Kn(t, bench)}/disk.img`;
    writeFileSync(path, Buffer.alloc(10 * MIB + 1536, 0x2e));
    const disk = openTestDisk(t, bench, { path, isReadOnly: false, isDirect });
    t.equal(disk.blockSizeBytes, 512);
    t.equal(disk.sizeBytes, 10 * MIB + 1536, "the backup header of a GPT is in the last sectors");
    const buffer = new HostBuffer(t, 2048);
    buffer.bytes.fill(0x41);
    t.equal(write(bench, disk, 512, buffer, 512), "ok", "inside a block");
    t.equal(write(bench, disk, 3 * 4096 - 512, buffer, 1024), "ok", "across a border");
    t.equal(write(bench, disk, 10 * MIB + 1024, buffer, 512), "ok", "the last sector");
    buffer.bytes.fill(0);
    t.equal(read(bench, disk, 10 * MIB + 512, buffer, 1024), "ok");
    t.same([buffer.bytes[511], buffer.bytes[512], buffer.bytes[1023]], [0x2e, 0x41, 0x41]);
    t.equal(
      finish(bench, (done) => disk.writeZeroes(8192 + 512, 1024, false, done)),
      "ok",
    );
    t.equal(
      finish(bench, (done) => disk.flush(done)),
      "ok",
    );
    const expected = Buffer.alloc(10 * MIB + 1536, 0x2e);
    expected.fill(0x41, 512, 1024);
    expected.fill(0x41, 3 * 4096 - 512, 3 * 4096 + 512);
    expected.fill(0x41, 10 * MIB + 1024);
    expected.fill(0, 8192 + 512, 8192 + 1536);
    t.ok(readFileSync(path).equals(expected), "all else is as it was, the file's size too");
  });

  t.test(`DiskFile with 512-byte sectors on a 4Kn block device, through ${how}`, { skip }, async (t) => {
    const bench = new HostBench(t);
    const path = loopDevice(t, bench, 4 * MIB, 4096);
    const disk = openTestDisk(t, bench, { path, isReadOnly: false, isDirect, logicalBlockBytes: 512 });
    const long = 2 * MIB + 1536; // more than the bounce buffer holds, neither end on a block
    const buffer = new HostBuffer(t, long + 3);
    for (let index = 0; index < long; index++) buffer.bytes[index + 3] = (index * 7) & 0xff;
    const parts = [buffer.segment(3, 1000), buffer.segment(1003, long - 1000)];
    t.equal(
      finish(bench, (done) => disk.write(4096 + 512, parts, done)),
      "ok",
    );
    const expected = Buffer.alloc(4 * MIB, 0x2e);
    expected.set(buffer.bytes.subarray(3, 3 + long), 4096 + 512);
    buffer.bytes.fill(0);
    t.equal(
      finish(bench, (done) => disk.read(4096 + 512, parts, done)),
      "ok",
    );
    t.ok(Buffer.from(buffer.bytes.subarray(3)).equals(expected.subarray(4096 + 512, 4096 + 512 + long)));
    const zero = (offset: number, sizeBytes: number): void => {
      const status = finish(bench, (done) => disk.writeZeroes(offset, sizeBytes, false, done));
      t.equal(status, "ok");
      expected.fill(0, offset, offset + sizeBytes);
    };
    zero(512, 512);
    zero(3 * MIB - 512, 1024);
    zero(3 * MIB + 8192 - 1024, 4096 + 1536);
    finish(bench, (done) => disk.flush(done));
    t.ok(readFileSync(bench.path("backing")).equals(expected));
  });

  t.test(`DiskFile shows zeroes behind an image that ends inside a sector, through ${how}`, async (t) => {
    const bench = new HostBench(t);
    const path = bench.path("odd.img");
    writeFileSync(path, Buffer.alloc(8192 + 700, 0x2e));
    const reader = openTestDisk(t, bench, { path, isReadOnly: true, isDirect });
    t.equal(reader.sizeBytes, 8192 + 1024);
    t.match(bench.reported, [/info: .*odd\.img: it ends inside a block of 512 bytes: the guest reads 324 zeroes/]);
    const buffer = new HostBuffer(t, 8192);
    buffer.bytes.fill(0xff);
    t.equal(read(bench, reader, 8192, buffer, 1024), "ok");
    t.ok(buffer.bytes.subarray(0, 700).every((byte) => byte === 0x2e));
    t.ok(buffer.bytes.subarray(700, 1024).every((byte) => byte === 0));
    t.equal(buffer.bytes[1024], 0xff);
    t.equal(
      finish(bench, (done) =>
        reader.read(
          8192 + 512,
          [buffer.segment(4096, 100), buffer.segment(5000, 200), buffer.segment(6000, 212)],
          done,
        ),
      ),
      "ok",
      "in pieces",
    );
    t.same([buffer.bytes[4195], buffer.bytes[5087], buffer.bytes[5088], buffer.bytes[6211]], [0x2e, 0x2e, 0, 0]);
    t.equal(buffer.bytes[6212], 0xff);
    reader.close(10_000);

    const writer = openTestDisk(t, bench, { path, isReadOnly: false, isDirect });
    buffer.bytes.fill(0x41);
    t.equal(write(bench, writer, 8192 + 512, buffer, 512), "ok", "the last sector can be written");
    t.equal(read(bench, writer, 8192, buffer, 1024), "ok");
    t.same([buffer.bytes[511], buffer.bytes[512], buffer.bytes[1023]], [0x2e, 0x41, 0x41]);
    finish(bench, (done) => writer.flush(done));
    const stored = readFileSync(path);
    t.equal(stored.length, 8192 + 1024, "and is whole from then on");
    t.equal(stored[1023 + 8192], 0x41);
  });
}

t.test("DiskFile with blocks of 4 KiB fills up a file's last one, and leaves a device's last part out", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("odd.img");
  writeFileSync(path, Buffer.alloc(8192 + 512, 0x2e));
  const disk = openTestDisk(t, bench, { path, isReadOnly: true, isDirect: false, logicalBlockBytes: 4096 });
  t.same([disk.sizeBytes, disk.blockSizeBytes], [12_288, 4096]);
  if (skip !== false) return;
  const device = loopDevice(t, bench, 8192 + 512);
  const onDevice = openTestDisk(t, bench, { path: device, isReadOnly: true, isDirect: false, logicalBlockBytes: 4096 });
  t.equal(onDevice.sizeBytes, 8192);
  t.match(bench.reported.at(-1), /warn: .*the last 512 bytes are no whole block/);
});

t.test("DiskFile writes no part of a block while the storage worker clears another", { skip }, async (t) => {
  const bench = new HostBench(t);
  const path = loopDevice(t, bench, MIB, 4096);
  const disk = openTestDisk(t, bench, { path, isReadOnly: false, isDirect: true, logicalBlockBytes: 512 });
  const buffer = new HostBuffer(t, 4096);
  buffer.bytes.fill(0x41);
  const answers: string[] = [];
  const note = (name: string) => (status: BlockStatus) => void answers.push(`${name} ${status}`);
  disk.writeZeroes(0, 512, false, note("zeroes"));
  disk.write(4096, [buffer.segment(0, 4096)], note("whole block"));
  disk.write(512, [buffer.segment(0, 512)], note("part"));
  t.same(answers, ["whole block ok"], "the part waits");
  bench.turnUntil(() => answers.length === 3);
  t.same(answers, ["whole block ok", "zeroes ok", "part ok"]);
  finish(bench, (done) => disk.flush(done));
  const stored = readFileSync(bench.path("backing"));
  t.same([stored[0], stored[511], stored[512], stored[1023], stored[1024]], [0, 0, 0x41, 0x41, 0x2e]);
});
