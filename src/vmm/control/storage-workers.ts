import type { StoragePort } from "../../host/disk/storage-ring.ts";
import { StorageWorker } from "../../host/disk/storage-starter.ts";
import type { StoragePorts } from "../shared/requests.ts";
import type { DiskSpec } from "../spec/spec.ts";

/** How long a storage worker may take to start. */
const START_TIMEOUT_MS = 30_000;
/** How long an exiting process waits for all of them. */
const EXIT_TIMEOUT_MS = 2000;

/**
 * The storage workers of a machine: one for each writable disk, from the machine's start to its end. They are started
 * here and not by the device thread that gives them jobs. That thread runs no event loop, so it would get no event of
 * one that fails.
 */
export class StorageWorkers {
  readonly #disks: readonly DiskSpec[];
  readonly #workers = new Map<string, StorageWorker>();

  constructor(disks: readonly DiskSpec[]) {
    this.#disks = disks.filter(({ isReadOnly }) => !isReadOnly);
  }

  /** Starts those that are not there. @throws HostError when the host allows no more threads or descriptors. */
  start(): void {
    for (const { id, path } of this.#disks) {
      if (!this.#workers.has(id)) this.#workers.set(id, new StorageWorker(`the storage worker of ${path}`));
    }
  }

  get ports(): StoragePorts {
    const ports: Record<string, StoragePort> = {};
    for (const [id, { port }] of this.#workers) ports[id] = port;
    return ports;
  }

  /** Waits until all of them take jobs. @throws HostError when one cannot start. */
  async ready(): Promise<void> {
    await Promise.all([...this.#workers.values()].map((worker) => worker.ready(START_TIMEOUT_MS)));
  }

  /**
   * Ends those that are not inside a call; the others end with it, whenever that is. The device thread must be gone.
   */
  async end(): Promise<void> {
    const workers = [...this.#workers];
    for (const [, worker] of workers) worker.stop();
    const ends = workers.map(async ([id, worker]) => {
      if (worker.isBusy) return;
      await worker.ended;
      this.#workers.delete(id);
    });
    await Promise.all(ends);
  }

  /** Resolves when all have ended, also those that were inside a call. */
  async gone(): Promise<void> {
    await Promise.all([...this.#workers.values()].map(({ ended }) => ended));
  }

  /** Blocks until they have ended, for a process that exits. @returns False when one has not. */
  release(): boolean {
    const deadline = performance.now() + EXIT_TIMEOUT_MS;
    let haveEnded = true;
    for (const worker of this.#workers.values()) {
      haveEnded = worker.waitForEnd(Math.max(0, deadline - performance.now())) && haveEnded;
    }
    return haveEnded;
  }
}
