import t from "tap";
import { VirtioRng } from "../../../src/virtio/rng.ts";
import type { DriverQueue } from "../../support/guest-driver.ts";
import { plugVirtio, type VirtioBench } from "../../support/virtio-bench.ts";

/** An entropy device whose bytes count up. */
function start(): VirtioBench & { readonly queue: DriverQueue } {
  let next = 1;
  const fill = (target: Uint8Array): void => {
    for (let i = 0; i < target.length; i++) target[i] = next++;
  };
  const bench = plugVirtio(() => new VirtioRng("rng0", { fill }));
  const [queue] = bench.driver.start();
  if (queue === undefined) throw new Error("The device has no queue");
  return { ...bench, queue };
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
