import { writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import type { BlockBackend } from "../../../../src/base/backends.ts";
import { gpa } from "../../../../src/base/units.ts";
import { DiskFile } from "../../../../src/host/disk/disk-file.ts";
import { libc } from "../../../../src/host/libc.ts";
import { VirtioBlock } from "../../../../src/virtio/block.ts";
import { FakeGuestMemory } from "../../../support/fake-memory.ts";
import type { DriverBuffer, DriverQueue } from "../../../support/guest-driver.ts";
import { HostBench } from "../../../support/host-bench.ts";
import { PlayedStorage } from "../../../support/played-storage.ts";
import { type Change, DiskModel, lostByPowerCuts, SECTOR, sectorValue } from "../../../support/power-cut.ts";
import { randomNumbers } from "../../../support/random-numbers.ts";
import { plugVirtio, type VirtioBench } from "../../../support/virtio-bench.ts";
import { WriteLog } from "../../../support/write-log.ts";

const FLUSH = 1n << 9n;
const DISCARD = 1n << 13n;
const WRITE_ZEROES = 1n << 14n;
/** Request types. VIRTIO 1.2 §5.2.6 */
const TYPES = { read: 0, write: 1, flush: 4, discard: 11, zero: 13 } as const;
const OK = 0;
const EIO = 5;

const SECTORS = 64;
const RAM_BYTES = 16 << 20;
/** Of guest RAM, for a request's data. */
const DATA = 0x80_0000;
const MOST_SECTORS = 8;

interface Options {
  readonly isWriteThrough: boolean;
  /** A flush of the host fails somewhere on the way. */
  readonly hasFailingFlush: boolean;
  /** Puts a disk in place of the one under test. */
  readonly wrap?: (backend: BlockBackend) => BlockBackend;
}

/**
 * A guest's driver, its disk and the storage worker, driven by one sequence of random numbers. There are several
 * requests at a time, a slow worker, and flushes that last while others go on. The guest resets with requests under
 * way.
 */
class Workload {
  readonly log: WriteLog;
  readonly model: DiskModel;
  readonly wrong: string[] = [];
  flushes = 0;
  readonly #options: Options;
  readonly #random: (below: number) => number;
  readonly #bench: HostBench;
  readonly #worker: PlayedStorage;
  readonly #backend: BlockBackend;
  readonly #memory: FakeGuestMemory;
  /** By the head of its chain: what to do when the disk answers. */
  readonly #waiting = new Map<number, (status: number) => void>();
  #hasBegunFlush = false;
  #virtio: VirtioBench;
  #queue: DriverQueue;
  #nextData = 0;

  constructor(t: Test, seed: number, options: Options) {
    this.#options = options;
    this.#random = randomNumbers(seed);
    this.#bench = new HostBench(t);
    const path = this.#bench.path("disk.img");
    writeFileSync(path, Buffer.alloc(SECTORS * SECTOR));
    this.log = new WriteLog(t, path);
    this.#worker = new PlayedStorage(t);
    const common = { path, isReadOnly: false, isDirect: false, watcher: this.#bench.loop, report: this.#bench.report };
    const disk = new DiskFile({ ...common, storage: this.#worker.port });
    t.teardown(() => disk.close(0));
    this.#backend = options.wrap?.(disk) ?? disk;
    this.model = new DiskModel(SECTORS, () => this.log.entries.length);
    const bytes = new Uint8Array(RAM_BYTES);
    this.#memory = new FakeGuestMemory([{ gpa: 0, sizeBytes: RAM_BYTES }], { bytes, address: libc.addressOf(bytes) });
    [this.#virtio, this.#queue] = this.#boot();
  }

  /** Runs so many steps, then lets everything end. */
  run(steps: number): void {
    for (let step = 0; step < steps; step++) {
      const die = this.#random(100);
      if (die < 28) this.#change("write");
      else if (die < 36) this.#change("zero");
      else if (die < 40) this.#change("discard");
      else if (die < 52) this.#flush();
      else if (die < 62) this.#read();
      else if (die < 63) this.#reset();
      else this.#turn();
    }
    while (this.#worker.job !== undefined) this.#turn();
    for (let sector = 0; sector < SECTORS; sector++) this.#read({ first: sector, count: 1 });
    while (this.#waiting.size > 0) this.#turn();
  }

  #boot(): [VirtioBench, DriverQueue] {
    const virtio = plugVirtio(() => new VirtioBlock("disk0", this.#backend, "serial"), this.#memory);
    const features = DISCARD | WRITE_ZEROES | (this.#options.isWriteThrough ? 0n : FLUSH);
    const [queue] = virtio.driver.start(features);
    if (queue === undefined) throw new Error("The disk has no queue");
    return [virtio, queue];
  }

  /**
   * The guest's reset, as the board does it: the device goes, the disk stays, requests that are under way stay
   * unanswered.
   */
  #reset(): void {
    this.#virtio.pci.close();
    for (const answer of this.#waiting.values()) answer(-1);
    this.#waiting.clear();
    [this.#virtio, this.#queue] = this.#boot();
  }

  #change(kind: "write" | "zero" | "discard"): void {
    const change: Change = { ...this.#range(), isZero: kind !== "write" };
    if (!this.model.isQuiet(change.first, change.count)) return;
    this.model.begin(change);
    const data = kind === "write" ? this.#buffer(this.model.bytesOf(change)) : this.#rangeOf(change, kind);
    const sector = kind === "write" ? change.first : 0;
    this.#request(TYPES[kind], sector, data, (status) => {
      this.model.end(change, { isOk: status === OK, isDurable: this.#options.isWriteThrough });
    });
  }

  #flush(): void {
    if (this.#options.isWriteThrough) return;
    const covered = this.model.beginFlush();
    this.#request(TYPES.flush, 0, undefined, (status) => {
      if (status !== OK) return;
      this.flushes++;
      covered();
    });
  }

  #read({ first, count } = this.#range()): void {
    if (!this.model.isQuiet(first, count)) return;
    // What stands there now: the guest may ask for another change before the answer comes.
    const expected = Array.from({ length: count }, (_, index) => this.model.expected(first + index));
    const data = { ...this.#buffer(new Uint8Array(count * SECTOR).fill(0xee)), isWritable: true };
    this.#request(TYPES.read, first, data, (status) => {
      if (status < 0) return;
      const bytes = this.#memory.bytes(data.address, data.sizeBytes);
      expected.forEach((values, index) => {
        const value = sectorValue(bytes, index);
        if (status !== OK || !values.includes(value)) {
          this.wrong.push(`sector ${first + index} reads ${value} with status ${status}, and not ${values}`);
        }
      });
    });
  }

  /** The worker goes on, and the device thread hears of it. */
  #turn(): void {
    const { job } = this.#worker;
    if (job?.kind === "flush" && !this.#hasBegunFlush && this.#random(2) === 0) {
      this.log.beginFlush();
      this.#hasBegunFlush = true;
    } else if (job !== undefined) {
      this.#hasBegunFlush = false;
      if (this.#options.hasFailingFlush && this.flushes > 5 && this.#random(10) === 0) this.log.nextFlushErrno = EIO;
      this.#worker.finish();
    }
    this.#bench.turnWhileReady();
    for (const work of this.#virtio.deferred.splice(0)) work();
    this.#takeAnswers();
  }

  #takeAnswers(): void {
    for (let used = this.#queue.take(); used !== undefined; used = this.#queue.take()) {
      const answer = this.#waiting.get(used.id);
      this.#waiting.delete(used.id);
      answer?.(0);
    }
  }

  #request(type: number, sector: number, data: DriverBuffer | undefined, answer: (status: number) => void): void {
    const { driver } = this.#virtio;
    const header = driver.allocate(16);
    this.#memory.writeU32(gpa(header), type);
    this.#memory.writeU64(gpa(header + 8), sector);
    const status = driver.allocate(1, 1);
    this.#memory.writeU8(gpa(status), 0xee);
    const buffers: DriverBuffer[] = [{ address: header, sizeBytes: 16 }];
    if (data !== undefined) buffers.push(data);
    const head = this.#queue.add([...buffers, { address: status, sizeBytes: 1, isWritable: true }]);
    // Never answered: -1.
    this.#waiting.set(head, (used) => answer(used < 0 ? used : (this.#memory.readU8(gpa(status)) ?? 0xff)));
    this.#queue.notify();
    if (this.#random(2) === 0) this.#takeAnswers();
  }

  #range(): { readonly first: number; readonly count: number } {
    const count = 1 + this.#random(MOST_SECTORS);
    return { first: this.#random(SECTORS - count + 1), count };
  }

  /** Guest memory with these bytes in it, used again when all of it was. */
  #buffer(bytes: Uint8Array): DriverBuffer {
    const address = DATA + (this.#nextData++ % 1024) * MOST_SECTORS * SECTOR;
    this.#memory.write(gpa(address), bytes);
    return { address, sizeBytes: bytes.length };
  }

  /** struct virtio_blk_discard_write_zeroes */
  #rangeOf({ first, count }: Change, kind: "zero" | "discard"): DriverBuffer {
    const range = new DataView(new ArrayBuffer(16));
    range.setUint32(0, first, true);
    range.setUint32(8, count, true);
    range.setUint32(12, kind === "zero" ? this.#random(2) : 0, true);
    return this.#buffer(new Uint8Array(range.buffer));
  }
}

const CACHED: Options = { isWriteThrough: false, hasFailingFlush: false };
const WRITE_THROUGH: Options = { isWriteThrough: true, hasFailingFlush: false };
const FAILING: Options = { isWriteThrough: false, hasFailingFlush: true };
const SEEDS = 8;
const STEPS = 400;

for (const [how, options] of Object.entries({
  "": CACHED,
  ", in write-through mode": WRITE_THROUGH,
  ", where a flush of the host fails too": FAILING,
})) {
  t.test(`VirtioBlock on a DiskFile loses nothing that it acknowledged, wherever the power is cut${how}`, async (t) => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const workload = new Workload(t, seed, options);
      workload.run(STEPS);
      const writes = workload.log.entries.filter(({ kind }) => kind === "write").length;
      t.ok(
        writes > 60,
        `seed ${seed}: ${writes} writes, ${workload.flushes} flushes, ${workload.log.entries.length} cuts`,
      );
      t.same(workload.wrong, [], `seed ${seed}: what was read`);
      t.same(lostByPowerCuts(workload.log.entries, workload.model).slice(0, 5), [], `seed ${seed}: what was lost`);
    }
  });
}

/** A disk that passes most requests on. */
const lying = (backend: BlockBackend, lie: Partial<BlockBackend>): BlockBackend => ({
  sizeBytes: backend.sizeBytes,
  isReadOnly: backend.isReadOnly,
  blockSizeBytes: backend.blockSizeBytes,
  supportsDiscard: backend.supportsDiscard,
  read: (...request) => backend.read(...request),
  write: (...request) => backend.write(...request),
  flush: (done) => backend.flush(done),
  discard: (...request) => backend.discard(...request),
  writeZeroes: (...request) => backend.writeZeroes(...request),
  detach: () => backend.detach(),
  ...lie,
});

const LIES: Readonly<Record<string, Options>> = {
  "answers flushes without doing them": { ...CACHED, wrap: (disk) => lying(disk, { flush: (done) => done("ok") }) },
  "answers flushes before they are done": {
    ...CACHED,
    wrap: (disk) =>
      lying(disk, {
        flush: (done) => {
          disk.flush(() => undefined);
          done("ok");
        },
      }),
  },
  "does not flush behind a change in write-through mode": {
    ...WRITE_THROUGH,
    wrap: (disk) => lying(disk, { flush: (done) => done("ok") }),
  },
  "forgets that a flush has failed": {
    ...FAILING,
    wrap: (disk) => {
      let hasFailed = false;
      return lying(disk, {
        flush: (done) =>
          disk.flush((status) => {
            done(hasFailed ? "ok" : status);
            hasFailed ||= status !== "ok";
          }),
      });
    },
  },
};

for (const [what, options] of Object.entries(LIES)) {
  t.test(`the power cuts find a disk that ${what}`, async (t) => {
    const workload = new Workload(t, 1, options);
    workload.run(STEPS);
    t.same(workload.wrong, [], "it reads right as long as the power is there");
    t.not(lostByPowerCuts(workload.log.entries, workload.model).length, 0);
  });
}

t.test("the workload finds zeroes that are done behind a reset, over what was written since", async (t) => {
  const wrong: string[] = [];
  for (let seed = 1; seed <= SEEDS && wrong.length === 0; seed++) {
    const workload = new Workload(t, seed, { ...CACHED, wrap: (disk) => lying(disk, { detach: () => undefined }) });
    workload.run(STEPS);
    wrong.push(...workload.wrong);
  }
  t.not(wrong.length, 0);
});
