import type { BlockBackend, BlockStatus, Report } from "../../base/backends.ts";
import type { HostSegment } from "../../base/guest-memory.ts";
import { invariant } from "../../base/invariant.ts";
import type { FdWatcher } from "../../base/signals.ts";
import { hex } from "../../base/units.ts";
import { ERRNO, errnoName } from "../errors.ts";
import { libc } from "../libc.ts";
import { type DiskImage, type DiskImageOptions, openDiskImage } from "./disk-image.ts";
import { DiskTransfer } from "./disk-transfer.ts";
import type { StorageJob, StoragePort } from "./storage-ring.ts";
import { StorageThread } from "./storage-thread.ts";

type Done = (status: BlockStatus) => void;

export interface DiskFileOptions extends DiskImageOptions {
  readonly watcher: FdWatcher;
  /** Of a storage worker for this disk alone; a disk that is only read needs none. */
  readonly storage: StoragePort | undefined;
}

/**
 * A disk in a raw image file or a block device.
 *
 * Reads and writes are done at once, by the calling thread, between the file and the given memory. Flush, discard and
 * write-zeroes may take long: a storage worker does them, and `done` comes later through the watcher. All methods
 * belong to the device thread.
 */
export class DiskFile implements BlockBackend {
  readonly sizeBytes: number;
  readonly isReadOnly: boolean;
  readonly blockSizeBytes: number;
  readonly supportsDiscard: boolean;
  readonly #name: string;
  readonly #report: Report;
  readonly #image: DiskImage;
  readonly #transfer: DiskTransfer;
  readonly #thread: StorageThread | undefined;
  readonly #reported: Set<string> = new Set();
  /** Counts changes of the image; what was written before it was opened is one. */
  #changes = 1;
  /** How many of them are known to be on stable storage. */
  #flushedChanges = 0;
  readonly #isDirect: boolean;
  /** See {@link flush}. */
  #hasLostData = false;
  /** Discards and zeroes that the worker has not done. */
  #changesUnderWay = 0;
  /** What waits for those; `undefined` when nothing has to. */
  #held: (() => void)[] | undefined;
  #isClosed = false;

  /** @throws HostError with the path and what can be done about it. */
  constructor(options: DiskFileOptions) {
    const { storage, watcher, report } = options;
    invariant(storage !== undefined || options.isReadOnly, `${options.path} has no storage worker`);
    this.#image = openDiskImage(options);
    this.#name = options.path;
    this.#report = report;
    this.isReadOnly = options.isReadOnly;
    this.#isDirect = options.isDirect;
    this.sizeBytes = this.#image.sizeBytes;
    this.blockSizeBytes = this.#image.blockSizeBytes;
    this.supportsDiscard = this.#image.supportsDiscard;
    this.#transfer = new DiskTransfer(this.#image.fd, this.#image.transferBlockBytes, this.#image.fileBytes);
    this.#thread =
      storage === undefined ? undefined : new StorageThread(options.path, storage, this.#image, watcher, report);
  }

  read(offset: number, segments: readonly HostSegment[], done: Done): void {
    this.#afterHeld(() => done(this.#move("read", offset, segments)));
  }

  /**
   * Direct I/O of a part of a block writes the rest as it was: the storage worker must change nothing beside it
   * meanwhile.
   */
  write(offset: number, segments: readonly HostSegment[], done: Done): void {
    if (this.isReadOnly) return done("ioError");
    if (this.#changesUnderWay > 0 && this.#isPartial(offset, segments)) this.#held ??= [];
    if (this.#held === undefined) done(this.#move("write", offset, segments));
    else this.#held.push(() => this.write(offset, segments, done));
  }

  /**
   * Done at once where nothing has changed since the last flush, or through a read-only descriptor.
   *
   * After one that failed, every later flush fails. Linux reports a failed writeback once and marks its pages clean:
   * the next fdatasync would succeed without the data (fsync(2); Linux, mm/filemap.c, file_check_and_advance_wb_err).
   * Direct I/O leaves no pages behind.
   */
  flush(done: Done): void {
    if (this.#hasLostData) return done("ioError");
    const isClean = this.#flushedChanges === this.#changes && !this.#isClosed;
    if (this.isReadOnly || isClean) return done("ok");
    // The worker does jobs in order, so this one covers every change submitted so far, and none that comes meanwhile.
    const covered = this.#changes;
    this.#submit({ kind: "flush" }, (status) => {
      if (status !== "ok" && !this.#isDirect && !this.#isClosed) this.#loseData();
      // Another flush may have failed since this one was asked for.
      if (this.#hasLostData) return done("ioError");
      if (status === "ok") this.#flushedChanges = covered;
      done(status);
    });
  }

  discard(offset: number, sizeBytes: number, done: Done): void {
    if (!this.supportsDiscard) done("unsupported");
    else this.#change({ kind: "discard", offset, sizeBytes }, done);
  }

  writeZeroes(offset: number, sizeBytes: number, mayUnmap: boolean, done: Done): void {
    this.#change({ kind: "writeZeroes", offset, sizeBytes, mayUnmap }, done);
  }

  /**
   * Reads and writes are over when they return, and the storage worker knows no guest memory. It may still have
   * discards and zeroes of the old device, behind a long flush. Requests of the next device wait for them: they would
   * destroy its writes.
   */
  detach(): void {
    this.#held = this.#changesUnderWay > 0 ? [] : undefined;
  }

  /**
   * Waits for what the storage worker has in hand, delivers it, and unlocks the image. Calling it twice is harmless. An
   * image whose worker is inside a call after `timeoutMs` stays open and locked.
   */
  close(timeoutMs: number): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const isStopped = this.#thread?.close(timeoutMs) ?? true;
    this.#transfer.close();
    if (isStopped) libc.close(this.#image.fd);
  }

  #loseData(): void {
    if (this.#hasLostData) return;
    this.#hasLostData = true;
    const text = "a flush failed: data may be lost, so every later flush fails until the machine is started anew";
    this.#report("error", `${this.#name}: ${text}`);
  }

  #afterHeld(work: () => void): void {
    if (this.#held === undefined) work();
    else this.#held.push(work);
  }

  #isPartial(offset: number, segments: readonly HostSegment[]): boolean {
    const block = this.#image.transferBlockBytes;
    const sizeBytes = segments.reduce((sum, part) => sum + part.sizeBytes, 0);
    return offset % block !== 0 || sizeBytes % block !== 0;
  }

  #changeDone(): void {
    this.#changesUnderWay--;
    if (this.#changesUnderWay > 0) return;
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const work of held) work();
  }

  #move(direction: "read" | "write", offset: number, segments: readonly HostSegment[]): BlockStatus {
    if (this.#isClosed) return "ioError";
    const errno = this.#transfer.run(direction, offset, segments);
    // Counted when it is done: what comes after a flush began is not covered by it. A write that failed may have
    // changed a part.
    if (direction === "write") this.#changes++;
    if (errno === 0) return "ok";
    const kind = `${direction} ${errno}`;
    if (!this.#reported.has(kind)) {
      this.#reported.add(kind); // once each: a guest can repeat a request without end
      const advice = errno === ERRNO.ENOSPC ? ": its file system is full" : "";
      this.#report("warn", `${this.#name}: ${direction} at ${hex(offset)} failed with ${errnoName(errno)}${advice}`);
    }
    return "ioError";
  }

  #change(job: Extract<StorageJob, { readonly sizeBytes: number }>, done: Done): void {
    if (this.isReadOnly || job.offset + job.sizeBytes > this.sizeBytes) done("ioError");
    else if (job.sizeBytes === 0) done("ok");
    else this.#afterHeld(() => this.#submitChange(job, done));
  }

  #submitChange(job: StorageJob, done: Done): void {
    this.#changes++;
    this.#changesUnderWay++;
    this.#submit(job, (status) => {
      done(status);
      this.#changeDone();
    });
  }

  #submit(job: StorageJob, done: Done): void {
    if (this.#thread === undefined) done("ioError");
    else this.#thread.submit(job, done);
  }
}
