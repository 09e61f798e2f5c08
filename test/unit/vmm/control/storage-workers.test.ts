import t from "tap";
import { STORAGE_STAGE, StorageRing } from "../../../../src/host/disk/storage-ring.ts";
import { StorageWorkers } from "../../../../src/vmm/control/storage-workers.ts";
import type { DiskSpec } from "../../../../src/vmm/spec/spec.ts";
import { withoutDescriptors } from "../../../support/host-descriptors.ts";

const disk = (id: string, isReadOnly: boolean): DiskSpec => ({ id, path: `/${id}`, isReadOnly, isDirect: false });

t.test("StorageWorkers starts one worker for each writable disk, once", async (t) => {
  const workers = new StorageWorkers([disk("a", false), disk("b", true), disk("c", false)]);
  workers.start();
  const { ports } = workers;
  t.same(Object.keys(ports), ["a", "c"]);
  workers.start();
  t.equal(workers.ports["a"]?.ring, ports["a"]?.ring);
  await workers.ready();
  const stages = Object.values(ports).map(({ ring }) => new StorageRing(ring).stage);
  t.same(stages, [STORAGE_STAGE.serving, STORAGE_STAGE.serving]);
  t.ok(workers.release());
  await workers.end();
  t.same(workers.ports, {});
});

t.test("StorageWorkers.start() that fails leaves what can be ended", async (t) => {
  const workers = new StorageWorkers([disk("a", false)]);
  withoutDescriptors(() => t.throws(() => workers.start(), { name: "SyscallError", errno: "EMFILE" }));
  t.same(workers.ports, {});
  t.ok(workers.release());
  await workers.end();
});
