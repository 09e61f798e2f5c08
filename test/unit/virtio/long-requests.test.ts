import t from "tap";
import { gpa } from "../../../src/base/units.ts";
import { VirtioBlock } from "../../../src/virtio/block.ts";
import { FakeBlock } from "../../support/fake-block.ts";
import type { DriverBuffer, DriverQueue } from "../../support/guest-driver.ts";
import { plugVirtio, type VirtioBench } from "../../support/virtio-bench.ts";

const MIB = 1 << 20;
const FLUSH = 1n << 9n;
const IN = 0;
const OUT = 1;
const DATA = 0x40_0000;

/** A disk of 32 MiB; a driver may put its buffers one upon the other, so 12 MiB of RAM can hold a larger request. */
class Disk {
  readonly bench: VirtioBench;
  readonly backend: FakeBlock;
  readonly queue: DriverQueue;

  constructor(features = FLUSH) {
    let backend: FakeBlock | undefined;
    this.bench = plugVirtio((memory) => {
      backend = new FakeBlock(memory, { sizeBytes: 32 * MIB });
      return new VirtioBlock("disk0", backend, "");
    });
    const [queue] = this.bench.driver.start(features);
    if (queue === undefined || backend === undefined) throw new Error("The disk has no queue");
    this.queue = queue;
    this.backend = backend;
  }

  /** Makes a request of data buffers available; answers where its status goes. */
  ask(type: number, sector: number, data: readonly DriverBuffer[]): number {
    const { driver, memory } = this.bench;
    const header = driver.allocate(16);
    memory.writeU32(gpa(header), type);
    memory.writeU64(gpa(header + 8), sector);
    const status = driver.allocate(1, 1);
    memory.writeU8(gpa(status), 0xee);
    this.queue.add([{ address: header, sizeBytes: 16 }, ...data, { address: status, sizeBytes: 1, isWritable: true }]);
    this.queue.notify();
    return status;
  }

  status(address: number): number | undefined {
    return this.bench.memory.readU8(gpa(address));
  }
}

const read = (sizeBytes: number): DriverBuffer => ({ address: DATA, sizeBytes, isWritable: true });
const write = (sizeBytes: number): DriverBuffer => ({ address: DATA, sizeBytes });

t.test("VirtioBlock reads 10 MiB in three turns, and says so at the end", async (t) => {
  const disk = new Disk();
  const { backend, bench, queue } = disk;
  for (let mib = 0; mib < 10; mib++) backend.bytes.fill(mib + 1, mib * MIB, (mib + 1) * MIB);
  const status = disk.ask(IN, 0, [read(7 * MIB), { ...read(3 * MIB), address: DATA + 7 * MIB }]);
  t.same(backend.log, [], "not within the guest's notification");
  for (const slice of ["read 0+4194304", "read 4194304+4194304"]) {
    bench.turn();
    t.equal(backend.log.at(-1), slice);
    t.equal(queue.usedIndex, 0);
    t.equal(disk.status(status), 0xee);
  }
  bench.turn();
  t.equal(backend.log.at(-1), "read 8388608+2097152");
  t.equal(disk.status(status), 0);
  t.match(queue.take(), { writtenBytes: 10 * MIB + 1 });
  for (let mib = 0; mib < 10; mib++) t.equal(bench.memory.readU8(gpa(DATA + mib * MIB + 12_345)), mib + 1);
  t.equal(bench.deferred.length, 0);
});

t.test("VirtioBlock writes in slices, and flushes once behind them for a driver without FLUSH", async (t) => {
  const disk = new Disk(0n);
  const { backend, bench } = disk;
  for (let mib = 0; mib < 6; mib++) bench.memory.fill(gpa(DATA + mib * MIB), MIB);
  bench.memory.writeU8(gpa(DATA + 5 * MIB), 77);
  const status = disk.ask(OUT, 2, [write(6 * MIB)]);
  bench.turn();
  bench.turn();
  t.same(backend.log, ["write 1024+4194304", "write 4195328+2097152", "flush"]);
  t.equal(disk.status(status), 0);
  t.equal(backend.bytes[1024 + 5 * MIB], 77);
});

t.test("VirtioBlock does a request of 4 MiB at once", async (t) => {
  const disk = new Disk();
  t.equal(disk.status(disk.ask(IN, 0, [read(4 * MIB)])), 0);
  t.equal(disk.bench.deferred.length, 0);
});

t.test("VirtioBlock serves short requests between the slices of a long one", async (t) => {
  const disk = new Disk();
  const long = disk.ask(IN, 0, [read(8 * MIB)]);
  disk.bench.turn();
  const short = disk.ask(IN, 0, [{ ...read(512), address: DATA + 9 * MIB }]);
  t.equal(disk.status(short), 0);
  t.equal(disk.status(long), 0xee);
  disk.bench.turn();
  t.equal(disk.status(long), 0);
});

t.test("VirtioBlock moves one slice in a turn, however many long requests there are", async (t) => {
  const disk = new Disk();
  const statuses = [0, 1, 2].map(() => disk.ask(IN, 0, [read(8 * MIB)]));
  for (let turn = 1; turn <= 6; turn++) {
    disk.bench.turn();
    t.equal(disk.backend.log.length, turn);
    t.equal(disk.queue.usedIndex, Math.floor(turn / 2));
  }
  t.same(
    statuses.map((status) => disk.status(status)),
    [0, 0, 0],
  );
  t.equal(disk.bench.deferred.length, 0);
});

t.test("VirtioBlock ends a long request with its first error", async (t) => {
  const disk = new Disk();
  const failing = disk.ask(IN, 0, [read(12 * MIB)]);
  const next = disk.ask(IN, 0, [read(8 * MIB)]);
  disk.bench.turn();
  disk.backend.status = "ioError";
  disk.bench.turn();
  t.equal(disk.status(failing), 1);
  t.match(disk.queue.take(), { writtenBytes: 1 });
  disk.backend.status = "ok";
  for (let turn = 0; turn < 2; turn++) disk.bench.turn();
  t.equal(disk.status(next), 0);
});

t.test("VirtioBlock drops long requests at a reset, touches their memory no more, and starts anew", async (t) => {
  const disk = new Disk();
  const { bench, backend } = disk;
  const status = disk.ask(IN, 0, [read(12 * MIB)]);
  disk.ask(IN, 0, [read(12 * MIB)]);
  bench.turn();
  bench.driver.status = 0;
  t.equal(bench.driver.status, 0, "nothing of it is under way");
  t.notOk(bench.pci.isBusy);
  const [again] = bench.driver.start(FLUSH);
  bench.turn();
  t.equal(backend.log.length, 1);
  t.equal(disk.status(status), 0xee);
  t.equal(again?.usedIndex, 0);
  t.equal(bench.deferred.length, 0);
});

t.test("VirtioBlock goes on with the next slice when a slow backend has done one", async (t) => {
  const disk = new Disk();
  disk.backend.isDeferred = true;
  const status = disk.ask(IN, 0, [read(8 * MIB)]);
  disk.bench.turn();
  t.equal(disk.bench.deferred.length, 0, "one slice at a time");
  disk.backend.completeNext();
  disk.bench.turn();
  disk.backend.completeNext();
  t.equal(disk.status(status), 0);
  t.same(disk.backend.log, ["read 0+4194304", "read 4194304+4194304"]);
});

t.test("VirtioBlock stays busy over a reset while a slow backend has a slice", async (t) => {
  const disk = new Disk();
  disk.backend.isDeferred = true;
  disk.ask(IN, 0, [read(8 * MIB)]);
  disk.ask(IN, 0, [read(8 * MIB)]);
  disk.bench.turn();
  disk.bench.driver.status = 0;
  t.ok(disk.bench.pci.isBusy);
  disk.backend.completeNext();
  disk.bench.turn();
  t.notOk(disk.bench.pci.isBusy);
  t.equal(disk.backend.log.length, 1);
  disk.backend.isDeferred = false;
  const [again] = disk.bench.driver.start(FLUSH);
  t.equal(again?.usedIndex, 0);
});
