import { gpa } from "../../../src/base/units.ts";
import { DiskFile } from "../../../src/host/disk/disk-file.ts";
import { EpollLoop } from "../../../src/host/epoll.ts";
import { libc } from "../../../src/host/libc.ts";
import { VirtioBlock } from "../../../src/virtio/block.ts";
import { FakeGuestMemory } from "../../support/fake-memory.ts";
import type { DriverBuffer, DriverQueue } from "../../support/guest-driver.ts";
import { PlayedStorage } from "../../support/played-storage.ts";
import { plugVirtio, type VirtioBench } from "../../support/virtio-bench.ts";
import { MOST_SECTORS, type Operation } from "./operations.ts";

const SECTOR = 512;
const RAM_BYTES = 16 << 20;
/** Of guest RAM, for requests' data; each has a place of its own while it is under way. */
const DATA = 0x80_0000;
const DATA_BYTES = (MOST_SECTORS + 1) * SECTOR;
const MOST_IN_FLIGHT = 28;

const FLUSH = 1n << 9n;
const DISCARD = 1n << 13n;
const WRITE_ZEROES = 1n << 14n;
/** Request types. VIRTIO 1.2 §5.2.6 */
const TYPES = { read: 0, write: 1, flush: 4, discard: 11, zero: 13, unknown: 99 } as const;
/** Status bytes. VIRTIO 1.2 §5.2.6 */
const OK = 0;
const IOERR = 1;
const UNSUPP = 2;

interface Request {
  readonly first: number;
  readonly count: number;
  /** @param status -1 when it is never answered. @returns What is wrong. */
  readonly answer: (status: number) => string | undefined;
}

type DiskOperation = Extract<Operation, { op: "disk" }>;

/**
 * A guest's driver and its disk; the bench acts as the storage worker. A model has the disk's content: one value a
 * sector, and others that it may hold instead. Those are zero behind a discard, and what was there before a change that
 * a reset left unanswered.
 */
export class DiskBench {
  readonly #teardowns: (() => unknown)[] = [];
  readonly #loop = new EpollLoop();
  readonly #worker: PlayedStorage;
  readonly #disk: DiskFile;
  readonly #memory: FakeGuestMemory;
  readonly #isWriteThrough: boolean;
  readonly #sectors: number;
  readonly #blockSectors: number;
  readonly #values: Uint32Array;
  readonly #others = new Map<number, readonly number[]>();
  /** By the head of its chain. */
  readonly #underWay = new Map<number, Request>();
  #virtio: VirtioBench;
  #queue: DriverQueue;
  #nextValue = 0;
  #nextData = 0;
  #wrong: string | undefined;

  constructor(
    path: string,
    {
      isDirect,
      isWriteThrough,
      logicalBlockBytes,
    }: Pick<DiskOperation, "isDirect" | "isWriteThrough"> & { readonly logicalBlockBytes?: number },
  ) {
    this.#isWriteThrough = isWriteThrough;
    this.#worker = new PlayedStorage({ teardown: (work) => void this.#teardowns.push(work) });
    const reports = { report: () => undefined, watcher: this.#loop };
    const blocks = logicalBlockBytes === undefined ? {} : { logicalBlockBytes };
    this.#disk = new DiskFile({ path, isReadOnly: false, isDirect, storage: this.#worker.port, ...blocks, ...reports });
    this.#blockSectors = this.#disk.blockSizeBytes / SECTOR;
    this.#sectors = Math.floor(this.#disk.sizeBytes / this.#disk.blockSizeBytes) * this.#blockSectors;
    this.#values = new Uint32Array(this.#sectors);
    const bytes = new Uint8Array(RAM_BYTES);
    this.#memory = new FakeGuestMemory([{ gpa: 0, sizeBytes: RAM_BYTES }], { bytes, address: libc.addressOf(bytes) });
    [this.#virtio, this.#queue] = this.#boot();
  }

  /** @returns What is wrong. */
  run(operation: Operation): string | undefined {
    switch (operation.op) {
      case "disk":
        break;
      case "write":
      case "read":
        this.#transfer(operation);
        break;
      case "zero":
      case "discard":
        this.#clear(operation);
        break;
      case "flush":
        if (!this.#isWriteThrough)
          this.#request(TYPES.flush, 0, [], { first: 0, count: 0, answer: mustBe(OK, "flush") });
        break;
      case "wrong":
        this.#mistake(operation);
        break;
      case "turn":
        this.#turn();
        break;
      case "reset":
        this.#reset();
        break;
      default:
        operation satisfies never;
    }
    return this.#wrong;
  }

  /** Lets everything end, and reads the whole disk. @returns What is wrong. */
  finish(): string | undefined {
    this.#settle();
    for (let first = 0; first < this.#sectors; first += MOST_SECTORS) {
      const count = Math.min(MOST_SECTORS, this.#sectors - first);
      this.#transfer({ op: "read", sector: first, count, pieces: [1], odd: 0 });
      this.#settle();
    }
    return this.#wrong;
  }

  close(): void {
    this.#virtio.pci.close();
    while (this.#worker.job !== undefined) this.#worker.finish();
    this.#disk.close(0);
    for (const work of this.#teardowns.reverse()) work();
    this.#loop.close();
  }

  #boot(): [VirtioBench, DriverQueue] {
    const virtio = plugVirtio(() => new VirtioBlock("disk0", this.#disk, "serial"), this.#memory);
    const wanted = DISCARD | WRITE_ZEROES | (this.#isWriteThrough ? 0n : FLUSH);
    const [queue] = virtio.driver.start(wanted & virtio.driver.offeredFeatures());
    if (queue === undefined) throw new Error("The disk has no queue");
    return [virtio, queue];
  }

  /** The device goes, the disk stays, requests that are under way stay unanswered. */
  #reset(): void {
    this.#virtio.pci.close();
    for (const { answer } of this.#underWay.values()) answer(-1);
    this.#underWay.clear();
    [this.#virtio, this.#queue] = this.#boot();
  }

  #transfer({ op, sector, count, pieces, odd }: Extract<Operation, { op: "read" | "write" }>): void {
    const range = this.#range(sector, count);
    this.#waitFor(range);
    const address = DATA + (this.#nextData++ % 200) * DATA_BYTES + odd;
    const bytes = this.#memory.bytes(address, range.count * SECTOR);
    if (op === "write") {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      const undo = this.#change(range, () => ++this.#nextValue);
      for (let at = 0; at < bytes.length; at += 4) {
        view.setUint32(at, this.#values[range.first + Math.floor(at / SECTOR)] ?? 0, true);
      }
      const buffers = cut(address, bytes.length, pieces, false);
      return this.#request(TYPES.write, range.first, buffers, { ...range, answer: undo(mustBe(OK, "write")) });
    }
    bytes.fill(0xee);
    const answer = (status: number): string | undefined =>
      status < 0 ? undefined : (mustBe(OK, "read")(status) ?? this.#compare(range.first, bytes));
    this.#request(TYPES.read, range.first, cut(address, bytes.length, pieces, true), { ...range, answer });
  }

  #compare(first: number, bytes: Uint8Array): string | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0; at < bytes.length; at += 4) {
      const sector = first + Math.floor(at / SECTOR);
      const found = view.getUint32(at, true);
      if (found === this.#values[sector] || this.#others.get(sector)?.includes(found) === true) continue;
      return `sector ${sector} reads ${found} at ${at % SECTOR}, and not ${this.#values[sector]}`;
    }
    return undefined;
  }

  #clear(operation: Extract<Operation, { op: "zero" | "discard" }>): void {
    const { op } = operation;
    const wanted = op === "zero" ? WRITE_ZEROES : DISCARD;
    const isOffered = (this.#virtio.driver.offeredFeatures() & wanted) !== 0n;
    const range = this.#range(operation.sector, operation.count);
    this.#waitFor(range);
    const flags = op === "zero" && operation.mayUnmap ? 1 : 0;
    const expected = mustBe(isOffered ? OK : UNSUPP, op);
    const answer = isOffered && op === "zero" ? this.#change(range, () => 0)(expected) : expected;
    if (isOffered && op === "discard") {
      for (let sector = range.first; sector < range.first + range.count; sector++) {
        this.#others.set(sector, [...(this.#others.get(sector) ?? []), 0]);
      }
    }
    this.#request(TYPES[op], 0, [this.#rangeBuffer(range.first, range.count, flags)], { ...range, answer });
  }

  /**
   * Gives each sector of a range a new value.
   *
   * @returns Makes an answer of one: where a reset leaves the request unanswered, the old values are possible too.
   */
  #change(
    { first, count }: { readonly first: number; readonly count: number },
    next: () => number,
  ): (answer: Request["answer"]) => Request["answer"] {
    const changes = Array.from({ length: count }, (_, index) => {
      const sector = first + index;
      const before = [this.#values[sector] ?? 0, ...(this.#others.get(sector) ?? [])];
      const value = next();
      this.#values[sector] = value;
      this.#others.delete(sector);
      return { sector, before };
    });
    return (answer: Request["answer"]): Request["answer"] =>
      (status) => {
        if (status < 0) for (const { sector, before } of changes) this.#others.set(sector, before);
        return answer(status);
      };
  }

  /** A request that must be refused, and change nothing. */
  #mistake({ how, sector }: Extract<Operation, { op: "wrong" }>): void {
    const address = DATA + (this.#nextData++ % 200) * DATA_BYTES;
    this.#memory.bytes(address, DATA_BYTES).fill(0x77);
    const none = { first: 0, count: 0 };
    const refused = { ...none, answer: mustBe(IOERR, how) };
    const data = (sizeBytes: number): readonly DriverBuffer[] => [{ address, sizeBytes }];
    if (how === "beyond")
      this.#request(TYPES.write, this.#sectors - 1, data(SECTOR * (1 + this.#blockSectors)), refused);
    else if (how === "ragged") this.#request(TYPES.write, sector % this.#sectors, data(SECTOR - 1), refused);
    else if (how === "range") {
      this.#request(TYPES.zero, 0, [this.#rangeBuffer(this.#sectors - 1, 1 + this.#blockSectors, 0)], refused);
    } else this.#request(TYPES.unknown, sector, data(SECTOR), { ...none, answer: mustBe(UNSUPP, how) });
  }

  #request(type: number, sector: number, data: readonly DriverBuffer[], request: Request): void {
    if (this.#underWay.size >= MOST_IN_FLIGHT) this.#settle();
    const { driver } = this.#virtio;
    const header = driver.allocate(16);
    this.#memory.writeU32(gpa(header), type);
    this.#memory.writeU64(gpa(header + 8), sector);
    const status = driver.allocate(1, 1);
    this.#memory.writeU8(gpa(status), 0xee);
    const last = { address: status, sizeBytes: 1, isWritable: true };
    const head = this.#queue.add([{ address: header, sizeBytes: 16 }, ...data, last]);
    const answer = (used: number): string | undefined =>
      request.answer(used < 0 ? used : (this.#memory.readU8(gpa(status)) ?? 0xff));
    this.#underWay.set(head, { ...request, answer });
    this.#queue.notify();
    this.#takeAnswers();
  }

  /** The worker does one job, the device thread hears of it. */
  #turn(): void {
    if (this.#worker.job !== undefined) this.#worker.finish();
    while (this.#loop.wait(0) > 0);
    this.#virtio.turn();
    this.#takeAnswers();
  }

  #takeAnswers(): void {
    for (let used = this.#queue.take(); used !== undefined; used = this.#queue.take()) {
      const request = this.#underWay.get(used.id);
      this.#underWay.delete(used.id);
      this.#wrong ??= request === undefined ? `an answer to no request: ${used.id}` : request.answer(0);
    }
  }

  #settle(): void {
    for (let turns = 0; this.#underWay.size > 0; turns++) {
      if (turns > 1000) throw new Error(`${this.#underWay.size} requests are never answered`);
      this.#turn();
    }
  }

  /** A guest does not touch sectors that another request is about. */
  #waitFor({ first, count }: { readonly first: number; readonly count: number }): void {
    const overlaps = [...this.#underWay.values()].some(
      (other) => first < other.first + other.count && other.first < first + count,
    );
    if (overlaps) this.#settle();
  }

  /** Whole blocks of the disk, at least one. */
  #range(sector: number, count: number): { readonly first: number; readonly count: number } {
    const block = this.#blockSectors;
    const first = Math.min(Math.floor(Math.max(0, sector) / block) * block, this.#sectors - block);
    const wanted = Math.max(block, Math.floor(Math.min(count, MOST_SECTORS) / block) * block);
    return { first, count: Math.min(wanted, this.#sectors - first) };
  }

  /** struct virtio_blk_discard_write_zeroes */
  #rangeBuffer(sector: number, count: number, flags: number): DriverBuffer {
    const address = this.#virtio.driver.allocate(16);
    this.#memory.writeU64(gpa(address), sector);
    this.#memory.writeU32(gpa(address + 8), count);
    this.#memory.writeU32(gpa(address + 12), flags);
    return { address, sizeBytes: 16 };
  }
}

const mustBe =
  (expected: number, what: string) =>
  (status: number): string | undefined =>
    status < 0 || status === expected ? undefined : `${what} ends with status ${status}, and not ${expected}`;

/** A stretch of guest memory as descriptors of the given shares. */
function cut(
  address: number,
  sizeBytes: number,
  pieces: readonly number[],
  isWritable: boolean,
): readonly DriverBuffer[] {
  const whole = pieces.reduce((sum, piece) => sum + piece, 0);
  const buffers: DriverBuffer[] = [];
  let at = 0;
  pieces.forEach((piece, index) => {
    const share = index === pieces.length - 1 ? sizeBytes - at : Math.floor((sizeBytes * piece) / whole);
    if (share > 0) buffers.push({ address: address + at, sizeBytes: share, isWritable });
    at += share;
  });
  return buffers;
}
