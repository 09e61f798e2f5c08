import type { HostSegment } from "./guest-memory.ts";

/** How a block request ended; the values are virtio's. VIRTIO 1.2 §5.2.6 */
export type BlockStatus = "ok" | "ioError" | "unsupported";

/**
 * Where a disk's bytes are. Offsets and sizes are in bytes and multiples of 512; ranges were checked against
 * `sizeBytes` by the caller.
 *
 * `done` may be called before the method returns (page-cache I/O) or later on the device thread (a storage worker);
 * once in either case.
 */
export interface BlockBackend {
  readonly sizeBytes: number;
  readonly isReadOnly: boolean;
  /** The image's logical block size, which the guest is told. */
  readonly blockSizeBytes: number;
  readonly supportsDiscard: boolean;
  read(offset: number, segments: readonly HostSegment[], done: (status: BlockStatus) => void): void;
  write(offset: number, segments: readonly HostSegment[], done: (status: BlockStatus) => void): void;
  flush(done: (status: BlockStatus) => void): void;
  discard(offset: number, sizeBytes: number, done: (status: BlockStatus) => void): void;
  writeZeroes(offset: number, sizeBytes: number, mayUnmap: boolean, done: (status: BlockStatus) => void): void;
  /**
   * The device on this backend goes, at a guest's reset or at the end. From now on guest memory is not touched, not
   * even by requests under way. They may be dropped without an answer. The disk stays open for the next device.
   */
  detach(): void;
}

/**
 * Where a character device's bytes go and come from: a terminal, a file, a socket, a pty, nothing.
 *
 * Output never blocks the device thread: what cannot be written at once is kept up to a limit and then dropped, counted
 * and reported.
 */
export interface CharBackend {
  write(bytes: Uint8Array): void;
  /**
   * Sets who takes input. The device returns how many bytes it took; the rest is offered again after
   * {@link inputReady}.
   */
  onInput(take: (bytes: Uint8Array) => number): void;
  /** The device has room again. */
  inputReady(): void;
  close(): void;
}

/** Bytes that cannot be predicted. A source may be slow, and it may end. */
export interface EntropyBackend {
  /**
   * Moves bytes that are there to the start of `target`. Never blocks.
   *
   * @returns How many; 0 when none are there now.
   */
  take(target: Uint8Array): number;
  /** Sets what is called on the device thread when bytes have come after a {@link take} that got none. */
  onReady(ready: () => void): void;
}

/** Time and timers of the device thread, so that pure devices need no clock of their own. */
export interface Clock {
  /** Nanoseconds of a clock that never goes back. */
  monotonicNs(): bigint;
  /** Milliseconds since 1970-01-01 UTC. */
  wallMs(): number;
}

/** A line for the log, without a logger: pure folders report through it. */
export type Report = (
  level: "debug" | "info" | "warn" | "error",
  text: string,
  details?: Readonly<Record<string, unknown>>,
) => void;
