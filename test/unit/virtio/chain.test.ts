import t from "tap";
import { gpa } from "../../../src/base/units.ts";
import {
  type Chain,
  gather,
  type MalformedChain,
  readChain,
  scatter,
  sliceSegments,
} from "../../../src/virtio/chain.ts";
import { EchoDevice } from "../../support/echo-device.ts";
import { FAKE_HOST_BASE, FakeGuestMemory } from "../../support/fake-memory.ts";
import { plugVirtio } from "../../support/virtio-bench.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const TABLE = 0x1000;
const QUEUE_SIZE = 8;

interface Descriptor {
  readonly address: number;
  readonly size: number;
  readonly flags?: number;
  readonly next?: number;
}

/** RAM with a hole between its two regions. */
const newMemory = (): FakeGuestMemory =>
  new FakeGuestMemory([
    { gpa: 0, sizeBytes: 0x1_0000 },
    { gpa: 0x2_0000, sizeBytes: 0x1_0000 },
  ]);

function describe(memory: FakeGuestMemory, table: number, descriptors: readonly Descriptor[]): void {
  descriptors.forEach(({ address, size, flags = 0, next = 0 }, index) => {
    memory.writeU64(gpa(table + 16 * index), address);
    memory.writeU32(gpa(table + 16 * index + 8), size);
    memory.writeU16(gpa(table + 16 * index + 12), flags);
    memory.writeU16(gpa(table + 16 * index + 14), next);
  });
}

function read(memory: FakeGuestMemory, head = 0, hasIndirect = true): Chain | MalformedChain {
  return readChain({ memory, address: gpa(TABLE), size: QUEUE_SIZE, maxChainLength: QUEUE_SIZE, hasIndirect }, head);
}

function readTable(...descriptors: readonly Descriptor[]): Chain | MalformedChain {
  const memory = newMemory();
  describe(memory, TABLE, descriptors);
  return read(memory);
}

t.test("readChain() gives readable and writable buffers in order, under both addresses", async (t) => {
  const chain = readTable(
    { address: 0x2000, size: 16, flags: NEXT, next: 2 },
    { address: 0x2_0010, size: 1, flags: WRITE },
    { address: 0x3000, size: 512, flags: NEXT | WRITE, next: 1 },
  );
  t.strictSame(chain, {
    kind: "chain",
    head: 0,
    readable: [{ gpa: 0x2000, address: FAKE_HOST_BASE + 0x2000, sizeBytes: 16 }],
    writable: [
      { gpa: 0x3000, address: FAKE_HOST_BASE + 0x3000, sizeBytes: 512 },
      { gpa: 0x2_0010, address: FAKE_HOST_BASE + 0x1_0010, sizeBytes: 1 },
    ],
    readableBytes: 16,
    writableBytes: 513,
  });
});

t.test("readChain() loads each byte of a descriptor once", async (t) => {
  const memory = newMemory();
  describe(memory, TABLE, [
    { address: 0x2000, size: 16, flags: NEXT, next: 1 },
    { address: 0x3000, size: 32, flags: INDIRECT },
  ]);
  describe(memory, 0x3000, [
    { address: 0x4000, size: 8, flags: NEXT | WRITE, next: 1 },
    { address: 0x5000, size: 8, flags: WRITE },
  ]);
  const loads = new Map<number, number>();
  memory.onLoad = (address, sizeBytes) => {
    for (let at = address; at < address + sizeBytes; at++) loads.set(at, (loads.get(at) ?? 0) + 1);
  };
  t.equal(read(memory).kind, "chain");
  t.equal(loads.size, 4 * 16);
  t.ok([...loads.values()].every((count) => count === 1));
});

t.test("readChain() follows direct buffers into a last indirect table", async (t) => {
  const memory = newMemory();
  describe(memory, TABLE, [
    { address: 0x2000, size: 16, flags: NEXT, next: 1 },
    { address: 0x3000, size: 48, flags: INDIRECT | WRITE }, // the write flag means nothing here
  ]);
  describe(memory, 0x3000, [
    { address: 0x4000, size: 100, flags: NEXT, next: 2 },
    { address: 0x5000, size: 1, flags: WRITE },
    { address: 0x6000, size: 200, flags: NEXT | WRITE, next: 1 },
  ]);
  const chain = read(memory);
  t.match(chain, { kind: "chain", head: 0, readableBytes: 116, writableBytes: 201 });
});

t.test("readChain() takes a chain as long as the queue, direct or indirect", async (t) => {
  const full = Array.from({ length: QUEUE_SIZE }, (_, index) => ({
    address: 0x2000 + 16 * index,
    size: 16,
    flags: index + 1 < QUEUE_SIZE ? NEXT : 0,
    next: index + 1,
  }));
  t.match(readTable(...full), { kind: "chain", readableBytes: 128 });

  const memory = newMemory();
  describe(memory, TABLE, [{ address: 0x3000, size: 16 * QUEUE_SIZE, flags: INDIRECT }]);
  describe(memory, 0x3000, full);
  t.match(read(memory), { kind: "chain", readableBytes: 128 });
});

const buffer = { address: 0x2000, size: 16 };
const malformed: Readonly<Record<string, readonly Descriptor[]>> = {
  "a loop of one": [{ ...buffer, flags: NEXT, next: 0 }],
  "a loop of two": [
    { ...buffer, flags: NEXT, next: 1 },
    { ...buffer, flags: NEXT, next: 0 },
  ],
  "a next index out of range": [{ ...buffer, flags: NEXT, next: QUEUE_SIZE }],
  "an address in the hole between RAM regions": [{ address: 0x1_8000, size: 16 }],
  "a buffer that runs out of a RAM region": [{ address: 0xfff8, size: 16 }],
  "an address above 2^53": [{ address: 2 ** 60, size: 16 }],
  "a size of 4 GiB minus one": [{ address: 0x2000, size: 0xffff_ffff }],
  "an empty buffer": [{ address: 0x2000, size: 0 }],
  "a readable buffer after a writable one": [
    { ...buffer, flags: NEXT | WRITE, next: 1 },
    { ...buffer, flags: 0 },
  ],
  "an empty indirect table": [{ address: 0x3000, size: 0, flags: INDIRECT }],
  "a ragged indirect table": [{ address: 0x3000, size: 24, flags: INDIRECT }],
  "an indirect table outside RAM": [{ address: 0x4_0000, size: 16, flags: INDIRECT }],
  "an indirect table partly outside RAM": [{ address: 0xfff0, size: 32, flags: INDIRECT }],
  "an indirect descriptor with a successor": [
    { address: 0x3000, size: 16, flags: INDIRECT | NEXT, next: 1 },
    { ...buffer },
  ],
};

for (const [what, descriptors] of Object.entries(malformed)) {
  t.test(`readChain() refuses ${what}`, async (t) => {
    t.equal(readTable(...descriptors).kind, "malformed");
  });
}

t.test("readChain() refuses a head out of range", async (t) => {
  const memory = newMemory();
  t.equal(read(memory, QUEUE_SIZE).kind, "malformed");
  t.equal(read(memory, 0xffff).kind, "malformed");
});

const malformedTables: Readonly<Record<string, readonly Descriptor[]>> = {
  "a nested indirect descriptor": [{ address: 0x4000, size: 16, flags: INDIRECT }],
  "an index beyond the indirect table": [{ ...buffer, flags: NEXT, next: 1 }],
  "a loop in the indirect table": [{ ...buffer, flags: NEXT, next: 0 }],
};

for (const [what, descriptors] of Object.entries(malformedTables)) {
  t.test(`readChain() refuses ${what}`, async (t) => {
    const memory = newMemory();
    describe(memory, TABLE, [{ address: 0x3000, size: 16 * descriptors.length, flags: INDIRECT }]);
    describe(memory, 0x3000, descriptors);
    describe(memory, 0x4000, [buffer]); // where the nested one leads is fine in itself
    t.equal(read(memory).kind, "malformed");
  });
}

t.test("readChain() refuses an indirect chain longer than the queue", async (t) => {
  const memory = newMemory();
  const count = QUEUE_SIZE + 1;
  describe(memory, TABLE, [{ address: 0x3000, size: 16 * count, flags: INDIRECT }]);
  const chain = Array.from({ length: count }, (_, index) => ({
    ...buffer,
    flags: index + 1 < count ? NEXT : 0,
    next: index + 1,
  }));
  describe(memory, 0x3000, chain);
  t.equal(read(memory).kind, "malformed");
});

t.test("readChain() refuses an indirect descriptor that was not negotiated", async (t) => {
  const memory = newMemory();
  describe(memory, TABLE, [{ address: 0x3000, size: 16, flags: INDIRECT }]);
  describe(memory, 0x3000, [buffer]);
  t.equal(read(memory, 0, false).kind, "malformed");
  t.equal(read(memory, 0, true).kind, "chain");
});

t.test(
  "A malformed chain sets NEEDS_RESET, interrupts for configuration, is reported once, and a reset heals",
  async (t) => {
    const device = new EchoDevice();
    const { driver, reports } = plugVirtio(() => device);
    for (let round = 1; round <= 2; round++) {
      const [queue] = driver.start();
      if (queue === undefined) throw new Error("The device has no queue");
      queue.describe(3, { address: 0x2000, sizeBytes: 16, flags: NEXT, next: 3 });
      queue.offer(3);
      queue.notify();
      t.equal(driver.status, 0x4f);
      t.equal(queue.usedIndex, 0);
      t.equal(driver.interrupts(0), round);
      t.equal(driver.isr, 2);
      t.equal(reports.length, 1);

      queue.add([{ address: 0x2000, sizeBytes: 16 }]);
      queue.notify();
      t.equal(queue.usedIndex, 0, "a device that needs a reset answers nothing");
    }
    t.strictSame(device.chains, []);
    const [queue] = driver.start();
    queue?.add([{ address: 0x2000, sizeBytes: 16 }]);
    queue?.notify();
    t.equal(queue?.usedIndex, 1);
  },
);

t.test("sliceSegments() cuts a run of segments by bytes", async (t) => {
  const chain = readTable(
    { address: 0x2000, size: 10, flags: NEXT, next: 1 },
    { address: 0x3000, size: 20, flags: NEXT, next: 2 },
    { address: 0x4000, size: 30 },
  );
  if (chain.kind !== "chain") throw new Error(chain.reason);
  const cut = (offset: number, size: number): readonly (readonly [number, number, number])[] =>
    sliceSegments(chain.readable, offset, size).map((s) => [s.gpa, s.address - FAKE_HOST_BASE, s.sizeBytes]);
  t.strictSame(cut(0, 60), [
    [0x2000, 0x2000, 10],
    [0x3000, 0x3000, 20],
    [0x4000, 0x4000, 30],
  ]);
  t.strictSame(cut(10, 20), [[0x3000, 0x3000, 20]]);
  t.strictSame(cut(4, 10), [
    [0x2004, 0x2004, 6],
    [0x3000, 0x3000, 4],
  ]);
  t.strictSame(cut(55, 100), [[0x4019, 0x4019, 5]]);
  t.strictSame(cut(60, 1), []);
  t.strictSame(cut(5, 0), []);
});

t.test("gather() and scatter() copy over segment borders and say how much", async (t) => {
  const memory = newMemory();
  describe(memory, TABLE, [
    { address: 0x2000, size: 3, flags: NEXT, next: 1 },
    { address: 0x3000, size: 4 },
  ]);
  const chain = read(memory);
  if (chain.kind !== "chain") throw new Error(chain.reason);
  t.equal(scatter(memory, chain.readable, Uint8Array.of(1, 2, 3, 4, 5)), 5);
  t.strictSame([...memory.bytes(0x2000, 4)], [1, 2, 3, 0]);
  t.strictSame([...memory.bytes(0x3000, 4)], [4, 5, 0, 0]);
  const target = new Uint8Array(9);
  t.equal(gather(memory, chain.readable, target), 7);
  t.strictSame([...target], [1, 2, 3, 4, 5, 0, 0, 0, 0]);
});
