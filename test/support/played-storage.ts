import type { Test } from "tap";
import { runStorageJob } from "../../src/host/disk/storage-jobs.ts";
import { type StorageJob, type StoragePort, StorageRing, type StorageStage } from "../../src/host/disk/storage-ring.ts";
import { EventFd } from "../../src/host/eventfd.ts";

/**
 * A storage worker on the test's own thread. The test chooses when a job is done, and can record the system calls.
 * `storage-worker.ts` does the same in a loop.
 */
export class PlayedStorage {
  readonly port: StoragePort;
  readonly #ring: StorageRing = new StorageRing();
  readonly #completion: EventFd = EventFd.create();

  constructor(t: Pick<Test, "teardown">) {
    this.port = { ring: this.#ring.memory, completion: this.#completion.fd };
    this.#ring.enter("serving");
    t.teardown(() => this.#completion.close());
  }

  /** The job to be done next. */
  get job(): StorageJob | undefined {
    return this.#ring.peek();
  }

  /** Does the next job, or ends it with `errno` without doing it. */
  finish(errno?: number): void {
    const job = this.#ring.peek();
    if (job === undefined) throw new Error("The storage worker has no job");
    this.#ring.complete(errno ?? runStorageJob(this.#ring.target, job));
    this.#completion.signal();
  }

  enter(stage: StorageStage): void {
    this.#ring.enter(stage);
    this.#completion.signal();
  }
}
