import { workerData } from "node:worker_threads";
import { fd } from "../../base/units.ts";
import { ERRNO } from "../errors.ts";
import { EventFd } from "../eventfd.ts";
import { setThreadName } from "../thread.ts";
import { runStorageJob, type StorageTarget } from "./storage-jobs.ts";
import { StorageRing, type StorageRingMemory } from "./storage-ring.ts";

/** What a storage worker starts with. */
export interface StorageWorkerData {
  readonly ring: StorageRingMemory;
  /** Eventfd that is signalled after each finished job. */
  readonly completion: number;
  readonly target: StorageTarget;
  /** At most 15 bytes; what ps shows. */
  readonly threadName: string;
}

/** Does jobs in order until it is told to stop. Between jobs it sleeps in Atomics.wait. */
function serve(data: StorageWorkerData): void {
  setThreadName(data.threadName);
  const ring = new StorageRing(data.ring);
  const completion = EventFd.attach(fd(data.completion));
  for (;;) {
    const job = ring.next();
    let errno: number;
    try {
      errno = runStorageJob(data.target, job);
    } catch {
      errno = ERRNO.EIO; // no memory for the zeroes: the guest sees a failed request, the others go on
    }
    ring.complete(errno);
    if (job.kind === "stop") return; // the other side may close the eventfd now
    completion.signal();
  }
}

serve(workerData as StorageWorkerData); // StorageThread is the only one who starts this file
