import { openSync, writeFileSync } from "node:fs";
import t from "tap";
import type { BlockStatus } from "../../../../src/base/backends.ts";
import { StorageThread } from "../../../../src/host/disk/storage-thread.ts";
import { HostBench } from "../../../support/host-bench.ts";
import { withoutDescriptors } from "../../../support/host-descriptors.ts";

t.test(
  "StorageThread fails a job when no descriptor is left for its worker, and tries again with the next",
  async (t) => {
    const bench = new HostBench(t);
    const path = bench.path("disk.img");
    writeFileSync(path, Buffer.alloc(65_536, 0x2e));
    const target = { fd: openSync(path, "r+"), isBlockDevice: false };
    const thread = new StorageThread("disk", target, bench.loop, bench.report);
    const statuses: BlockStatus[] = [];
    const submit = (): void =>
      thread.submit({ kind: "discard", offset: 0, sizeBytes: 4096 }, (one) => statuses.push(one));
    withoutDescriptors(submit);
    withoutDescriptors(submit);
    t.same(statuses, ["ioError", "ioError"]);
    t.match(bench.reported, [/^error: disk: Cannot make an eventfd: eventfd failed with EMFILE \(raise the limit/]);
    t.equal(bench.reported.length, 1, "a guest could ask for ever");
    submit();
    bench.turnUntil(() => statuses.length === 3);
    t.equal(statuses[2], "ok");
    t.ok(thread.close(10_000));
  },
);
