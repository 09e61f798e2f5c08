import t from "tap";
import { gpa } from "../../../src/base/units.ts";
import { VirtioBlock } from "../../../src/virtio/block.ts";
import { FakeBlock } from "../../support/fake-block.ts";
import { FAKE_HOST_BASE } from "../../support/fake-memory.ts";
import type { DriverBuffer, DriverQueue } from "../../support/guest-driver.ts";
import { plugVirtio, type VirtioBench } from "../../support/virtio-bench.ts";

const RO = 1n << 5n;
const FLUSH = 1n << 9n;
const DISCARD = 1n << 13n;
const WRITE_ZEROES = 1n << 14n;

const IN = 0;
const OUT = 1;
const FLUSH_REQUEST = 4;
const GET_ID = 8;
const DISCARD_REQUEST = 11;
const WRITE_ZEROES_REQUEST = 13;

const OK = 0;
const IOERR = 1;
const UNSUPP = 2;

interface Answer {
  readonly status: number | undefined;
  readonly writtenBytes: number | undefined;
}

class Disk {
  readonly bench: VirtioBench;
  readonly backend: FakeBlock;
  readonly queue: DriverQueue;
  readonly data: number;

  constructor(
    options: { readonly features?: bigint; readonly disk?: ConstructorParameters<typeof FakeBlock>[1] } = {},
  ) {
    let backend: FakeBlock | undefined;
    this.bench = plugVirtio((memory) => {
      backend = new FakeBlock(memory, options.disk);
      return new VirtioBlock("disk0", backend, "serial-0123456789-too-long");
    });
    const [queue] = this.bench.driver.start(options.features ?? FLUSH | DISCARD | WRITE_ZEROES);
    if (queue === undefined || backend === undefined) throw new Error("The disk has no queue");
    this.queue = queue;
    this.backend = backend;
    this.data = this.bench.driver.allocate(64 * 1024, 4096);
  }

  header(type: number, sector: number): DriverBuffer {
    const { driver, memory } = this.bench;
    const address = driver.allocate(16);
    memory.writeU32(gpa(address), type);
    memory.writeU64(gpa(address + 8), sector);
    return { address, sizeBytes: 16 };
  }

  statusByte(): DriverBuffer {
    const address = this.bench.driver.allocate(1, 1);
    this.bench.memory.writeU8(gpa(address), 0xee);
    return { address, sizeBytes: 1, isWritable: true };
  }

  /** One request, laid out as Linux does: header, data, status. */
  request(type: number, sector: number, data: readonly DriverBuffer[] = []): Answer {
    const status = this.statusByte();
    this.queue.add([this.header(type, sector), ...data, status]);
    this.queue.notify();
    const used = this.queue.take();
    return { status: this.bench.memory.readU8(gpa(status.address)), writtenBytes: used?.writtenBytes };
  }

  /** A range of a discard or write zeroes request. */
  range(sector: number, sectors: number, flags: number): DriverBuffer {
    const { driver, memory } = this.bench;
    const address = driver.allocate(16);
    memory.writeU64(gpa(address), sector);
    memory.writeU32(gpa(address + 8), sectors);
    memory.writeU32(gpa(address + 12), flags);
    return { address, sizeBytes: 16 };
  }
}

const pattern = (sizeBytes: number): Uint8Array => Uint8Array.from({ length: sizeBytes }, (_, i) => (i * 7 + 3) & 0xff);

t.test("VirtioBlock says what it is in PCI identity, features and configuration", async (t) => {
  const { bench } = new Disk({ disk: { sizeBytes: 1 << 20 } });
  const { driver } = bench;
  t.equal(driver.config(0x00, 4), 0x1042_1af4);
  t.equal(driver.config(0x08, 4), 0x0180_0001);
  // SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, DISCARD, WRITE_ZEROES, INDIRECT_DESC, EVENT_IDX, VERSION_1
  t.equal(driver.offeredFeatures(), 0x1_3000_6644n);
  t.equal(driver.read(4, 0, 4), 2048); // capacity in sectors
  t.equal(driver.read(4, 4, 4), 0);
  t.equal(driver.read(4, 8, 4), 0); // size_max is not offered
  t.equal(driver.read(4, 12, 4), 254); // seg_max
  t.equal(driver.read(4, 20, 4), 512); // blk_size
  t.equal(driver.read(4, 24, 1), 3); // physical_block_exp
  t.equal(driver.read(4, 25, 1), 0); // alignment_offset
  t.equal(driver.read(4, 26, 2), 8); // min_io_size
  t.equal(driver.read(4, 40, 4), 1); // max_discard_seg
  t.equal(driver.read(4, 52, 4), 1); // max_write_zeroes_seg
  t.equal(driver.read(4, 56, 1), 1); // write_zeroes_may_unmap
  t.equal(driver.place(4).length, 60);
  t.equal(driver.read(1, 0x18, 2), 256); // queue_size
});

t.test("VirtioBlock of 4 KiB blocks rounds its capacity down to blocks", async (t) => {
  const { bench } = new Disk({ disk: { sizeBytes: 8192 + 512, blockSizeBytes: 4096 } });
  t.equal(bench.driver.read(4, 0, 4), 16);
  t.equal(bench.driver.read(4, 20, 4), 4096);
  t.equal(bench.driver.read(4, 24, 1), 0);
  t.equal(bench.driver.read(4, 26, 2), 1);
});

t.test("VirtioBlock reads into the driver's buffers without a copy", async (t) => {
  const disk = new Disk();
  disk.backend.bytes.set(pattern(1536), 1024);
  const answer = disk.request(IN, 2, [
    { address: disk.data, sizeBytes: 1024, isWritable: true },
    { address: disk.data + 8192, sizeBytes: 512, isWritable: true },
  ]);
  t.strictSame(answer, { status: OK, writtenBytes: 1537 });
  t.strictSame(disk.backend.log, ["read 1024+1536"]);
  t.match(disk.backend.lastSegments, [
    { address: FAKE_HOST_BASE + disk.data, sizeBytes: 1024 },
    { address: FAKE_HOST_BASE + disk.data + 8192, sizeBytes: 512 },
  ]);
  const { memory } = disk.bench;
  t.strictSame([...memory.bytes(disk.data, 1024), ...memory.bytes(disk.data + 8192, 512)], [...pattern(1536)]);
});

t.test("VirtioBlock writes from the driver's buffers", async (t) => {
  const disk = new Disk();
  disk.bench.memory.write(gpa(disk.data), pattern(1024));
  const answer = disk.request(OUT, 3, [{ address: disk.data, sizeBytes: 1024 }]);
  t.strictSame(answer, { status: OK, writtenBytes: 1 });
  t.strictSame(disk.backend.bytes.subarray(1536, 2560), pattern(1024));
  t.strictSame(disk.backend.log, ["write 1536+1024"]);
});

t.test("VirtioBlock takes any layout of header, data and status", async (t) => {
  const disk = new Disk();
  const { memory, driver } = disk.bench;
  // A write: the header cut in three, its end and the data in one buffer.
  const block = driver.allocate(16 + 512);
  memory.write(gpa(block), Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 4));
  memory.write(gpa(block + 16), pattern(512));
  const status = disk.statusByte();
  disk.queue.add([
    { address: block, sizeBytes: 3 },
    { address: block + 3, sizeBytes: 10 },
    { address: block + 13, sizeBytes: 3 + 512 },
    status,
  ]);
  disk.queue.notify();
  t.equal(memory.readU8(gpa(status.address)), OK);
  t.strictSame(disk.backend.bytes.subarray(2048, 2560), pattern(512));

  // A read: data and status in one buffer.
  const target = driver.allocate(513);
  disk.queue.take();
  disk.queue.add([disk.header(IN, 4), { address: target, sizeBytes: 513, isWritable: true }]);
  disk.queue.notify();
  t.match(disk.queue.take(), { writtenBytes: 513 });
  t.strictSame(memory.bytes(target, 512), pattern(512));
  t.equal(memory.readU8(gpa(target + 512)), OK);
});

t.test("VirtioBlock flushes", async (t) => {
  const disk = new Disk();
  t.strictSame(disk.request(FLUSH_REQUEST, 0), { status: OK, writtenBytes: 1 });
  t.strictSame(disk.backend.log, ["flush"]);
});

t.test("VirtioBlock flushes after each change for a driver without VIRTIO_BLK_F_FLUSH", async (t) => {
  const disk = new Disk({ features: DISCARD | WRITE_ZEROES });
  const done = { status: OK, writtenBytes: 1 };
  t.strictSame(disk.request(OUT, 0, [{ address: disk.data, sizeBytes: 512 }]), done);
  t.strictSame(disk.backend.log.splice(0), ["write 0+512", "flush"]);
  t.strictSame(disk.request(WRITE_ZEROES_REQUEST, 0, [disk.range(8, 1, 0)]), done);
  t.strictSame(disk.backend.log.splice(0), ["zero 4096+512", "flush"]);
  t.strictSame(disk.request(DISCARD_REQUEST, 0, [disk.range(1, 2, 0)]), done);
  t.strictSame(disk.backend.log.splice(0), ["discard 512+1024", "flush"]);
});

t.test("VirtioBlock fails a change whose flush fails, for a driver without VIRTIO_BLK_F_FLUSH", async (t) => {
  const disk = new Disk({ features: WRITE_ZEROES });
  disk.backend.isDeferred = true;
  const status = disk.statusByte();
  disk.queue.add([disk.header(WRITE_ZEROES_REQUEST, 0), disk.range(8, 1, 0), status]);
  disk.queue.notify();
  disk.backend.completeNext();
  t.equal(disk.queue.take(), undefined, "not before the flush");
  disk.backend.status = "ioError";
  disk.backend.completeNext();
  t.equal(disk.queue.take()?.writtenBytes, 1);
  t.equal(disk.bench.memory.readU8(gpa(status.address)), IOERR);
});

t.test("VirtioBlock answers GET_ID with 20 bytes of its serial", async (t) => {
  const disk = new Disk();
  const answer = disk.request(GET_ID, 0, [{ address: disk.data, sizeBytes: 20, isWritable: true }]);
  t.strictSame(answer, { status: OK, writtenBytes: 21 });
  t.equal(Buffer.from(disk.bench.memory.bytes(disk.data, 20)).toString(), "serial-0123456789-to");
});

t.test("VirtioBlock discards and writes zeroes", async (t) => {
  const disk = new Disk();
  disk.backend.bytes.fill(0x55);
  t.equal(disk.request(DISCARD_REQUEST, 0, [disk.range(1, 2, 0)]).status, OK);
  t.equal(disk.request(WRITE_ZEROES_REQUEST, 0, [disk.range(8, 1, 0)]).status, OK);
  t.equal(disk.request(WRITE_ZEROES_REQUEST, 0, [disk.range(9, 1, 1)]).status, OK);
  t.strictSame(disk.backend.log, ["discard 512+1024", "zero 4096+512", "zero 4608+512 unmap"]);
});

t.test("VirtioBlock refuses what a range request may not ask", async (t) => {
  const disk = new Disk();
  const ask = (type: number, ...data: readonly DriverBuffer[]): number | undefined =>
    disk.request(type, 0, data).status;
  t.equal(ask(DISCARD_REQUEST, disk.range(0, 8, 1)), UNSUPP, "unmap flag of a discard");
  t.equal(ask(WRITE_ZEROES_REQUEST, disk.range(0, 8, 2)), UNSUPP, "a reserved flag");
  t.equal(ask(DISCARD_REQUEST, disk.range(120, 9, 0)), IOERR, "past the end");
  t.equal(ask(DISCARD_REQUEST, disk.range(2 ** 52, 1, 0)), IOERR, "far past the end");
  t.equal(ask(WRITE_ZEROES_REQUEST, disk.range(0, 0xffff_ffff, 0)), IOERR, "more than max_write_zeroes_sectors");
  t.equal(ask(DISCARD_REQUEST, disk.range(0, 1, 0), disk.range(1, 1, 0)), IOERR, "more than max_discard_seg");
  t.equal(ask(DISCARD_REQUEST), IOERR, "no range");
  t.equal(ask(DISCARD_REQUEST, { address: disk.data, sizeBytes: 15 }), IOERR, "a ragged range");
  t.strictSame(disk.backend.log, []);
});

t.test("VirtioBlock does not know discards that were not negotiated or that its file cannot do", async (t) => {
  const disk = new Disk({ features: FLUSH });
  t.equal(disk.request(DISCARD_REQUEST, 0, [disk.range(0, 1, 0)]).status, UNSUPP);
  t.equal(disk.request(WRITE_ZEROES_REQUEST, 0, [disk.range(0, 1, 0)]).status, UNSUPP);
  const plain = new Disk({ features: FLUSH, disk: { supportsDiscard: false } });
  t.equal(plain.bench.driver.offeredFeatures() & DISCARD, 0n);
  t.equal(plain.bench.driver.read(4, 36, 4), 0);
  t.equal(plain.bench.driver.read(4, 56, 1), 0);
});

t.test("VirtioBlock refuses lengths that are no whole blocks, and sectors past the end", async (t) => {
  const disk = new Disk(); // 128 sectors
  const into = (sizeBytes: number): readonly DriverBuffer[] => [{ address: disk.data, sizeBytes, isWritable: true }];
  const from = (sizeBytes: number): readonly DriverBuffer[] => [{ address: disk.data, sizeBytes }];
  t.strictSame(disk.request(IN, 0, into(511)), { status: IOERR, writtenBytes: 1 });
  t.equal(disk.request(IN, 0, into(513)).status, IOERR);
  t.equal(disk.request(OUT, 0, from(1)).status, IOERR);
  t.equal(disk.request(IN, 0).status, IOERR, "no data");
  t.equal(disk.request(OUT, 0).status, IOERR, "no data");
  t.equal(disk.request(IN, 127, into(1024)).status, IOERR, "over the end");
  t.equal(disk.request(IN, 128, into(512)).status, IOERR, "at the end");
  t.equal(disk.request(OUT, 128, from(512)).status, IOERR);
  t.equal(disk.request(OUT, 2 ** 52, from(512)).status, IOERR);
  t.equal(disk.request(IN, 2 ** 63, into(512)).status, IOERR);
  t.strictSame(disk.backend.log, []);
  t.equal(disk.request(IN, 127, into(512)).status, OK);
  t.equal(disk.bench.driver.status, 0xf);
});

t.test("VirtioBlock of 4 KiB blocks refuses accesses of other blocks", async (t) => {
  const disk = new Disk({ disk: { blockSizeBytes: 4096 } });
  t.equal(disk.request(IN, 0, [{ address: disk.data, sizeBytes: 512, isWritable: true }]).status, IOERR);
  t.equal(disk.request(OUT, 1, [{ address: disk.data, sizeBytes: 4096 }]).status, IOERR);
  t.equal(disk.request(OUT, 8, [{ address: disk.data, sizeBytes: 4096 }]).status, OK);
});

t.test("VirtioBlock that is read-only offers RO and refuses to change anything", async (t) => {
  const disk = new Disk({ features: FLUSH | RO, disk: { isReadOnly: true } });
  t.equal(disk.bench.driver.offeredFeatures() & (RO | DISCARD | WRITE_ZEROES), RO);
  t.equal(disk.request(OUT, 0, [{ address: disk.data, sizeBytes: 512 }]).status, IOERR);
  t.equal(disk.request(DISCARD_REQUEST, 0, [disk.range(0, 1, 0)]).status, UNSUPP);
  t.equal(disk.request(WRITE_ZEROES_REQUEST, 0, [disk.range(0, 1, 0)]).status, UNSUPP);
  t.strictSame(disk.backend.log, []);
  t.equal(disk.request(IN, 0, [{ address: disk.data, sizeBytes: 512, isWritable: true }]).status, OK);
});

t.test("VirtioBlock answers UNSUPP to a request type it does not know", async (t) => {
  const disk = new Disk();
  t.strictSame(disk.request(0x1234_5678, 0), { status: UNSUPP, writtenBytes: 1 });
});

t.test("VirtioBlock passes the backend's failure on", async (t) => {
  const disk = new Disk();
  disk.backend.status = "ioError";
  const read = disk.request(IN, 0, [{ address: disk.data, sizeBytes: 512, isWritable: true }]);
  t.strictSame(read, { status: IOERR, writtenBytes: 1 });
  t.equal(disk.request(FLUSH_REQUEST, 0).status, IOERR);
});

t.test("VirtioBlock needs a reset after a request without a status byte or a whole header", async (t) => {
  const noStatus = new Disk();
  noStatus.queue.add([noStatus.header(OUT, 0), { address: noStatus.data, sizeBytes: 512 }]);
  noStatus.queue.notify();
  t.equal(noStatus.bench.driver.status, 0x4f);
  t.equal(noStatus.bench.reports.length, 1);

  const shortHeader = new Disk();
  shortHeader.queue.add([{ address: shortHeader.data, sizeBytes: 15 }, shortHeader.statusByte()]);
  shortHeader.queue.notify();
  t.equal(shortHeader.bench.driver.status, 0x4f);
  t.strictSame([...noStatus.backend.log, ...shortHeader.backend.log], []);
});

t.test("VirtioBlock answers a batch with one interrupt", async (t) => {
  const disk = new Disk();
  for (let i = 0; i < 5; i++) {
    disk.queue.add([disk.header(OUT, i), { address: disk.data, sizeBytes: 512 }, disk.statusByte()]);
  }
  disk.queue.notify();
  t.equal(disk.queue.usedIndex, 5);
  t.equal(disk.bench.driver.interrupts(1), 1);
});

t.test("VirtioBlock gives requests back in the order in which the backend ends them", async (t) => {
  const disk = new Disk();
  disk.backend.isDeferred = true;
  const statuses = [disk.statusByte(), disk.statusByte()];
  const heads = statuses.map((status, i) =>
    disk.queue.add([disk.header(OUT, i), { address: disk.data, sizeBytes: 512 }, status]),
  );
  disk.queue.notify();
  t.equal(disk.queue.usedIndex, 0);
  disk.backend.completeNext(1);
  t.strictSame(disk.queue.take(), { id: heads[1], writtenBytes: 1 });
  disk.backend.completeNext();
  t.strictSame(disk.queue.take(), { id: heads[0], writtenBytes: 1 });
  t.equal(disk.bench.driver.interrupts(1), 2);
});

t.test("VirtioBlock that is reset keeps its status until the backend is done, and touches no queue then", async (t) => {
  const disk = new Disk();
  const { driver, memory } = disk.bench;
  disk.backend.isDeferred = true;
  const status = disk.statusByte();
  disk.queue.add([disk.header(OUT, 0), { address: disk.data, sizeBytes: 512 }, status]);
  disk.queue.notify();
  driver.status = 0;
  t.equal(driver.status, 0xf, "not reset yet: the backend may still touch the driver's memory");
  t.ok(disk.bench.pci.isBusy);
  disk.backend.completeNext();
  t.notOk(disk.bench.pci.isBusy);
  t.equal(driver.status, 0);
  t.equal(disk.queue.usedIndex, 0);
  t.equal(memory.readU8(gpa(status.address)), 0xee);
  t.equal(driver.interrupts(1), 0);
});

t.test("VirtioBlock.close() detaches it from its backend, which lives on", async (t) => {
  const disk = new Disk();
  disk.bench.pci.close();
  t.ok(disk.backend.isDetached);
  t.strictSame(disk.bench.doorbells.addresses, []);
  t.equal(disk.bench.router.live.length, 0);
});
