import t from "tap";
import type { EntropyBackend } from "../../../src/base/backends.ts";
import { VirtioRng } from "../../../src/virtio/rng.ts";
import type { DriverQueue } from "../../support/guest-driver.ts";
import { plugVirtio, type VirtioBench } from "../../support/virtio-bench.ts";

/** An entropy device whose bytes count up, where there are any: `give` makes some come. */
function start(available = Number.POSITIVE_INFINITY): VirtioBench & {
  readonly queue: DriverQueue;
  readonly give: (count: number) => void;
} {
  let next = 1;
  let left = available;
  let ready = (): void => undefined;
  const backend: EntropyBackend = {
    take(target) {
      const count = Math.min(left, target.length);
      left -= count;
      for (let i = 0; i < count; i++) target[i] = next++;
      return count;
    },
    onReady(callback) {
      ready = callback;
    },
  };
  const bench = plugVirtio(() => new VirtioRng("rng0", backend));
  const [queue] = bench.driver.start();
  if (queue === undefined) throw new Error("The device has no queue");
  const give = (count: number): void => {
    left += count;
    ready();
  };
  return { ...bench, queue, give };
}

t.test("VirtioRng is an entropy device of one queue without configuration", async (t) => {
  const { driver } = start();
  t.equal(driver.config(0x00, 4), 0x1044_1af4);
  t.equal(driver.read(1, 0x12, 2), 1);
  t.notOk(driver.hasPlace(4));
});

t.test("VirtioRng fills the writable buffers of a request", async (t) => {
  const { queue, memory, driver } = start();
  const head = queue.add([
    { address: 0x10_0000, sizeBytes: 3, isWritable: true },
    { address: 0x10_1000, sizeBytes: 2, isWritable: true },
  ]);
  queue.notify();
  t.strictSame(queue.take(), { id: head, writtenBytes: 5 });
  t.strictSame([...memory.bytes(0x10_0000, 4)], [1, 2, 3, 0]);
  t.strictSame([...memory.bytes(0x10_1000, 3)], [4, 5, 0]);
  t.equal(driver.interrupts(1), 1);
});

t.test("VirtioRng gives at most 4 KiB a request", async (t) => {
  const { queue, memory } = start();
  queue.add([{ address: 0x10_0000, sizeBytes: 1 << 20, isWritable: true }]);
  queue.notify();
  t.match(queue.take(), { writtenBytes: 4096 });
  t.strictSame([...memory.bytes(0x10_0000 + 4096, 16)], new Array(16).fill(0));
});

t.test("VirtioRng needs a reset after a request without room", async (t) => {
  const { queue, driver, reports } = start();
  queue.add([{ address: 0x10_0000, sizeBytes: 64 }]);
  queue.notify();
  t.equal(driver.status, 0x4f);
  t.equal(reports.length, 1);
});

t.test("VirtioRng answers with the bytes that are there, and lets requests wait for the next ones", async (t) => {
  const { queue, memory, driver, give } = start(3);
  const request = (address: number): number => queue.add([{ address, sizeBytes: 8, isWritable: true }]);
  const heads = [request(0x10_0000), request(0x10_1000), request(0x10_2000)];
  queue.notify();
  t.strictSame(queue.take(), { id: heads[0], writtenBytes: 3 });
  t.equal(queue.take(), undefined, "no request is answered without a byte");
  t.equal(driver.interrupts(1), 1);
  give(9);
  t.strictSame(queue.take(), { id: heads[1], writtenBytes: 8 });
  t.strictSame(queue.take(), { id: heads[2], writtenBytes: 1 });
  t.strictSame([...memory.bytes(0x10_1000, 8)], [4, 5, 6, 7, 8, 9, 10, 11]);
  t.strictSame([...memory.bytes(0x10_2000, 2)], [12, 0]);
});

t.test("VirtioRng forgets requests that wait when the driver resets it", async (t) => {
  const { queue, memory, driver, give } = start(0);
  queue.add([{ address: 0x10_0000, sizeBytes: 8, isWritable: true }]);
  queue.notify();
  driver.status = 0;
  give(8);
  t.strictSame([...memory.bytes(0x10_0000, 8)], new Array(8).fill(0));
});
