import type { BlockBackend, BlockStatus } from "../../src/base/backends.ts";
import type { HostSegment } from "../../src/base/guest-memory.ts";
import type { FakeGuestMemory } from "./fake-memory.ts";

type Done = (status: BlockStatus) => void;

/** A disk in an array. It completes at once, or, with `isDeferred`, when the test calls {@link completeNext}. */
export class FakeBlock implements BlockBackend {
  readonly sizeBytes: number;
  readonly isReadOnly: boolean;
  readonly blockSizeBytes: number;
  readonly supportsDiscard: boolean;
  readonly bytes: Uint8Array;
  /** What was asked, in order: "read 512+1024", "flush", …; a discarded range reads as 0xdd. */
  readonly log: string[] = [];
  /** The segments of the last read or write. */
  lastSegments: readonly HostSegment[] = [];
  isDeferred = false;
  /** What requests end with, for host failures. */
  status: BlockStatus = "ok";
  isDetached = false;
  readonly #memory: FakeGuestMemory;
  readonly #waiting: (() => void)[] = [];

  constructor(
    memory: FakeGuestMemory,
    options: {
      readonly sizeBytes?: number;
      readonly isReadOnly?: boolean;
      readonly blockSizeBytes?: number;
      readonly supportsDiscard?: boolean;
    } = {},
  ) {
    this.#memory = memory;
    this.sizeBytes = options.sizeBytes ?? 64 * 1024;
    this.isReadOnly = options.isReadOnly ?? false;
    this.blockSizeBytes = options.blockSizeBytes ?? 512;
    this.supportsDiscard = options.supportsDiscard ?? true;
    this.bytes = new Uint8Array(this.sizeBytes);
  }

  /** Requests that wait for {@link completeNext}. */
  get waitingCount(): number {
    return this.#waiting.length;
  }

  /** Ends a waiting request: the oldest, or the one at `index`. */
  completeNext(index = 0): void {
    const [next] = this.#waiting.splice(index, 1);
    next?.();
  }

  read(offset: number, segments: readonly HostSegment[], done: Done): void {
    this.#perform(`read ${offset}+${total(segments)}`, done, () => {
      let at = offset;
      for (const segment of segments) {
        this.#memory.atHost(segment).set(this.bytes.subarray(at, at + segment.sizeBytes));
        at += segment.sizeBytes;
      }
    });
    this.lastSegments = segments;
  }

  write(offset: number, segments: readonly HostSegment[], done: Done): void {
    this.#perform(`write ${offset}+${total(segments)}`, done, () => {
      let at = offset;
      for (const segment of segments) {
        this.bytes.set(this.#memory.atHost(segment), at);
        at += segment.sizeBytes;
      }
    });
    this.lastSegments = segments;
  }

  flush(done: Done): void {
    this.#perform("flush", done, () => {});
  }

  discard(offset: number, sizeBytes: number, done: Done): void {
    this.#perform(`discard ${offset}+${sizeBytes}`, done, () => this.bytes.fill(0xdd, offset, offset + sizeBytes));
  }

  writeZeroes(offset: number, sizeBytes: number, mayUnmap: boolean, done: Done): void {
    const text = `zero ${offset}+${sizeBytes}${mayUnmap ? " unmap" : ""}`;
    this.#perform(text, done, () => this.bytes.fill(0, offset, offset + sizeBytes));
  }

  detach(): void {
    this.isDetached = true;
  }

  #perform(text: string, done: Done, work: () => void): void {
    this.log.push(text);
    const finish = (): void => {
      if (this.status === "ok") work();
      done(this.status);
    };
    if (this.isDeferred) this.#waiting.push(finish);
    else finish();
  }
}

const total = (segments: readonly HostSegment[]): number =>
  segments.reduce((sum, segment) => sum + segment.sizeBytes, 0);
