import type { Report } from "../../base/backends.ts";
import { invariant } from "../../base/invariant.ts";
import type { FdWatcher } from "../../base/signals.ts";
import { DiskFile } from "../../host/disk/disk-file.ts";
import type { StoragePorts } from "../shared/requests.ts";
import type { DiskSpec } from "../spec/spec.ts";

/** How long {@link Disks.close} waits for the storage workers, all together. */
const CLOSE_TIMEOUT_MS = 10_000;

/**
 * The images behind the machine's disks. Like character devices they outlive a reset of the guest: each is opened and
 * locked once, and stays so until the machine ends. A path that leads to another file meanwhile changes nothing.
 */
export class Disks implements Disposable {
  readonly #files = new Map<string, DiskFile>();

  /**
   * @param storage Of the writable disks' storage workers, by the disk's id.
   * @throws HostError when an image cannot be had; none stays open then.
   */
  constructor(disks: readonly DiskSpec[], storage: StoragePorts, watcher: FdWatcher, report: Report) {
    try {
      for (const { id, path, isReadOnly, isDirect, logicalBlockBytes } of disks) {
        const blocks = logicalBlockBytes === undefined ? {} : { logicalBlockBytes };
        const image = { path, isReadOnly, isDirect, ...blocks, storage: storage[id] };
        this.#files.set(id, new DiskFile({ ...image, watcher, report }));
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The image of the disk with this id, for the device of one power cycle. */
  backend(id: string): DiskFile {
    const file = this.#files.get(id);
    invariant(file !== undefined, `disk ${id} has no image`);
    return file;
  }

  /** Waits for what the storage workers have in hand, and unlocks the images. */
  close(): void {
    const deadline = performance.now() + CLOSE_TIMEOUT_MS;
    for (const file of this.#files.values()) file.close(Math.max(0, deadline - performance.now()));
    this.#files.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
