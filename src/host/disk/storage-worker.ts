import { parentPort, workerData } from "node:worker_threads";
import { ERRNO } from "../errors.ts";
import { EventFd } from "../eventfd.ts";
import { setThreadName } from "../thread.ts";
import { runStorageJob } from "./storage-jobs.ts";
import { type StoragePort, StorageRing } from "./storage-ring.ts";

/*
 * Entry file of a storage worker. It does jobs in order until it is told to stop; between jobs it sleeps in
 * Atomics.wait. What it needs is imported above: nothing is loaded for a job, so the package's files may go while it
 * runs.
 */

// Cast: StorageWorker is the only one who starts this file.
const port = workerData as StoragePort;
const ring = new StorageRing(port.ring);
const completion = EventFd.attach(port.completion);

try {
  setThreadName("storage");
  ring.enter("serving");
  parentPort?.postMessage("serving");
  for (let job = ring.next(); job !== undefined; job = ring.next()) {
    let errno: number;
    try {
      errno = runStorageJob(ring.target, job);
    } catch {
      errno = ERRNO.EIO; // no memory for the zeroes: the guest sees a failed request, the others go on
    }
    ring.complete(errno);
    completion.signal();
  }
} finally {
  ring.enter("ended");
  completion.signal();
}
