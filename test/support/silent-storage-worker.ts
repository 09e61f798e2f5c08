import { workerData } from "node:worker_threads";
import { type StoragePort, StorageRing } from "../../src/host/disk/storage-ring.ts";

/*
 * A storage worker that never takes jobs: it waits to be told to stop, and says nothing. Cast: StorageWorker starts
 * this file too.
 */

new StorageRing((workerData as StoragePort).ring).next();
