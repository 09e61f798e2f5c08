import type { Test } from "tap";
import type { BlockStatus } from "../../src/base/backends.ts";
import { DiskFile } from "../../src/host/disk/disk-file.ts";
import type { DiskImageOptions } from "../../src/host/disk/disk-image.ts";
import { StorageWorker } from "../../src/host/disk/storage-starter.ts";
import type { HostBench } from "./host-bench.ts";

/** A disk with a storage worker of its own, as the machine makes it; closed at the end of the test. */
export function openTestDisk(
  t: Test,
  bench: HostBench,
  options: Pick<DiskImageOptions, "path" | "isReadOnly" | "isDirect" | "logicalBlockBytes">,
): DiskFile {
  const worker = options.isReadOnly ? undefined : new StorageWorker("the storage worker of the test");
  let disk: DiskFile | undefined;
  t.teardown(async () => {
    disk?.close(10_000);
    worker?.stop();
    await worker?.ended;
  });
  disk = new DiskFile({ ...options, storage: worker?.port, watcher: bench.loop, report: bench.report });
  return disk;
}

/** Runs one request to its end and answers its status; `done` must be called exactly once. */
export function finish(bench: HostBench, start: (done: (status: BlockStatus) => void) => void): BlockStatus {
  const statuses: BlockStatus[] = [];
  start((status) => statuses.push(status));
  bench.turnUntil(() => statuses.length > 0);
  bench.turnWhileReady();
  return statuses.length === 1 ? (statuses[0] ?? "ioError") : "ioError";
}
