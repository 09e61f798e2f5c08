import type { BlockBackend, BlockStatus } from "../base/backends.ts";
import { RegisterBank, type RegisterHandler } from "../base/registers.ts";
import { alignDown, gpa, highHalf, lowHalf, u64FromHalves, type Width } from "../base/units.ts";
import { type Chain, gather, type Segment, scatter, sliceSegments } from "./chain.ts";
import type { VirtioDevice, VirtioTransport } from "./device.ts";
import { type LongTransfer, LongTransfers, SLICE_BYTES } from "./long-transfers.ts";
import type { Virtqueue } from "./queue.ts";

// Feature bits, as masks. VIRTIO 1.2 §5.2.3
const VIRTIO_BLK_F_SEG_MAX = 1n << 2n;
const VIRTIO_BLK_F_RO = 1n << 5n;
const VIRTIO_BLK_F_BLK_SIZE = 1n << 6n;
const VIRTIO_BLK_F_FLUSH = 1n << 9n;
const VIRTIO_BLK_F_TOPOLOGY = 1n << 10n;
const VIRTIO_BLK_F_DISCARD = 1n << 13n;
const VIRTIO_BLK_F_WRITE_ZEROES = 1n << 14n;

// Request types and status. VIRTIO 1.2 §5.2.6
const VIRTIO_BLK_T_IN = 0;
const VIRTIO_BLK_T_OUT = 1;
const VIRTIO_BLK_T_FLUSH = 4;
const VIRTIO_BLK_T_GET_ID = 8;
const VIRTIO_BLK_T_DISCARD = 11;
const VIRTIO_BLK_T_WRITE_ZEROES = 13;
const STATUS_BYTE: Readonly<Record<BlockStatus, number>> = { ok: 0, ioError: 1, unsupported: 2 };

const SECTOR_BYTES = 512;
/** le32 type, le32 reserved, le64 sector */
const HEADER_BYTES = 16;
/** struct virtio_blk_discard_write_zeroes: le64 sector, le32 num_sectors, le32 flags (bit 0 unmap) */
const RANGE_BYTES = 16;
const RANGE_FLAG_UNMAP = 1;
const ID_BYTES = 20;
const QUEUE_SIZE = 256;
/** Bytes that requests of ordinary size move in one turn of the device thread. */
const BYTES_PER_TURN: number = 2 * SLICE_BYTES;
/** Punching a hole is quick: 1 GiB a request. */
const MAX_DISCARD_SECTORS = 1 << 21;
/** Zeroes may have to be written: 16 MiB a request. */
const MAX_WRITE_ZEROES_SECTORS = 1 << 15;
/** What the host's page cache moves; guests that align to it spare it the reading before a write. */
const PHYSICAL_BLOCK_BYTES = 4096;

type BlockRegister =
  | "capacity_low"
  | "capacity_high"
  | "seg_max"
  | "blk_size"
  | "physical_block_exp"
  | "min_io_size"
  | "num_queues"
  | "max_discard_sectors"
  | "max_discard_seg"
  | "discard_sector_alignment"
  | "max_write_zeroes_sectors"
  | "max_write_zeroes_seg"
  | "write_zeroes_may_unmap";

/** struct virtio_blk_config; fields of features that are not offered read as zero. VIRTIO 1.2 §5.2.4 */
export const BLOCK_CONFIG: RegisterBank<BlockRegister> = new RegisterBank("virtio_blk_config", 60, [
  [0x00, 4, "capacity_low", "ro"],
  [0x04, 4, "capacity_high", "ro"],
  [0x0c, 4, "seg_max", "ro"],
  [0x14, 4, "blk_size", "ro"],
  [0x18, 1, "physical_block_exp", "ro"],
  [0x1a, 2, "min_io_size", "ro"],
  [0x22, 2, "num_queues", "ro"],
  [0x24, 4, "max_discard_sectors", "ro"],
  [0x28, 4, "max_discard_seg", "ro"],
  [0x2c, 4, "discard_sector_alignment", "ro"],
  [0x30, 4, "max_write_zeroes_sectors", "ro"],
  [0x34, 4, "max_write_zeroes_seg", "ro"],
  [0x38, 1, "write_zeroes_may_unmap", "ro"],
]);

/** One request, cut by bytes: the driver may have laid it out in any buffers. VIRTIO 1.2 §5.2.6 */
interface Request {
  readonly queue: Virtqueue;
  readonly chain: Chain;
  /** In bytes; `undefined` when no disk reaches there. */
  readonly offset: number | undefined;
  /** After the header. */
  readonly dataOutBytes: number;
  /** Before the status byte. */
  readonly dataInBytes: number;
}

/**
 * A disk of one queue over a {@link BlockBackend}; data goes between guest RAM and the backend without a copy here.
 * VIRTIO 1.2 §5.2
 */
export class VirtioBlock implements VirtioDevice, RegisterHandler<BlockRegister>, Disposable {
  readonly name: string;
  readonly deviceId = 2;
  readonly classCode = 0x01_80_00; // mass storage controller, other
  readonly features: bigint;
  readonly queueSizes: readonly number[] = [QUEUE_SIZE];
  readonly configSizeBytes = 60;
  readonly #backend: BlockBackend;
  readonly #sizeBytes: number;
  readonly #serial: Uint8Array;
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #headerView = new DataView(this.#header.buffer);
  readonly #long = new LongTransfers((work) => this.#transport?.defer(work));
  #transport: VirtioTransport | undefined;
  #queue: Virtqueue | undefined;
  #features = 0n;
  #inFlight = 0;

  /** @param serial At most 20 bytes of ASCII; what is longer is cut. */
  constructor(name: string, backend: BlockBackend, serial: string) {
    this.name = name;
    this.#backend = backend;
    this.#sizeBytes = alignDown(backend.sizeBytes, backend.blockSizeBytes);
    this.#serial = new Uint8Array(ID_BYTES);
    this.#serial.set(new TextEncoder().encode(serial).subarray(0, ID_BYTES));
    let features = VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_TOPOLOGY;
    if (backend.isReadOnly) features |= VIRTIO_BLK_F_RO;
    else {
      features |= VIRTIO_BLK_F_WRITE_ZEROES;
      if (backend.supportsDiscard) features |= VIRTIO_BLK_F_DISCARD;
    }
    this.features = features;
  }

  get isBusy(): boolean {
    return this.#inFlight > 0;
  }

  attach(transport: VirtioTransport): void {
    this.#transport = transport;
  }

  readConfig(offset: number, width: Width): number {
    return BLOCK_CONFIG.read(this, offset, width);
  }

  writeConfig(): void {} // nothing is writable without VIRTIO_BLK_F_CONFIG_WCE

  readRegister(name: BlockRegister): number {
    const { blockSizeBytes } = this.#backend;
    const canDiscard = (this.features & VIRTIO_BLK_F_DISCARD) !== 0n;
    const canZero = (this.features & VIRTIO_BLK_F_WRITE_ZEROES) !== 0n;
    switch (name) {
      case "capacity_low":
        return lowHalf(this.#sizeBytes / SECTOR_BYTES);
      case "capacity_high":
        return highHalf(this.#sizeBytes / SECTOR_BYTES);
      case "seg_max":
        return QUEUE_SIZE - 2; // header and status take a descriptor each
      case "blk_size":
        return blockSizeBytes;
      case "physical_block_exp":
        return Math.max(0, Math.log2(PHYSICAL_BLOCK_BYTES / blockSizeBytes));
      case "min_io_size": // in blocks
        return Math.max(1, PHYSICAL_BLOCK_BYTES / blockSizeBytes);
      case "num_queues":
        return 1;
      case "max_discard_sectors":
        return canDiscard ? MAX_DISCARD_SECTORS : 0;
      case "max_discard_seg":
        return canDiscard ? 1 : 0;
      case "discard_sector_alignment":
        return canDiscard ? Math.max(blockSizeBytes, PHYSICAL_BLOCK_BYTES) / SECTOR_BYTES : 0;
      case "max_write_zeroes_sectors":
        return canZero ? MAX_WRITE_ZEROES_SECTORS : 0;
      case "max_write_zeroes_seg":
        return canZero ? 1 : 0;
      case "write_zeroes_may_unmap":
        return canZero && this.#backend.supportsDiscard ? 1 : 0;
      default:
        return name satisfies never;
    }
  }

  writeRegister(): void {}

  activate(queues: readonly (Virtqueue | undefined)[], driverFeatures: bigint): void {
    this.#queue = queues[0];
    this.#features = driverFeatures;
  }

  queueNotified(): void {
    const queue = this.#queue;
    queue?.drain(BYTES_PER_TURN, (chain) => this.#start(queue, chain));
  }

  reset(): void {
    this.#queue = undefined;
    this.#long.drop();
  }

  close(): void {
    this.reset();
    this.#backend.detach();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Answers how many bytes it has moved now. */
  #start(queue: Virtqueue, chain: Chain): number {
    if (chain.writableBytes === 0) {
      queue.fail("a block request has no room for its status");
      return 0;
    }
    if (gather(queue.memory, chain.readable, this.#header) < HEADER_BYTES) {
      queue.fail("a block request is shorter than its header");
      return 0;
    }
    const type = this.#headerView.getUint32(0, true);
    const sector = u64FromHalves(this.#headerView.getUint32(8, true), this.#headerView.getUint32(12, true));
    const request: Request = {
      queue,
      chain,
      offset: this.#offsetOf(sector),
      dataOutBytes: chain.readableBytes - HEADER_BYTES,
      dataInBytes: chain.writableBytes - 1,
    };
    this.#inFlight++;
    const refusal = this.#perform(type, request);
    if (refusal !== undefined) this.#finish(request, refusal);
    const dataBytes = request.dataInBytes + request.dataOutBytes;
    return dataBytes > SLICE_BYTES ? 0 : dataBytes; // a long one has turns of its own
  }

  /**
   * Starts a request; answers how it is refused, or `undefined` when {@link #finish} is called for it, now or later.
   */
  #perform(type: number, request: Request): BlockStatus | undefined {
    switch (type) {
      case VIRTIO_BLK_T_IN:
        return this.#read(request);
      case VIRTIO_BLK_T_OUT:
        return this.#write(request);
      case VIRTIO_BLK_T_FLUSH:
        this.#backend.flush((status) => this.#finish(request, status));
        return undefined;
      case VIRTIO_BLK_T_GET_ID:
        return this.#getId(request);
      case VIRTIO_BLK_T_DISCARD:
        return this.#discard(request);
      case VIRTIO_BLK_T_WRITE_ZEROES:
        return this.#writeZeroes(request);
      default:
        return "unsupported";
    }
  }

  #read(request: Request): BlockStatus | undefined {
    const { chain, offset, dataInBytes } = request;
    if (offset === undefined || !this.#isInside(offset, dataInBytes)) return "ioError";
    const segments = sliceSegments(chain.writable, 0, dataInBytes);
    const finished = (status: BlockStatus): void => this.#finish(request, status, dataInBytes);
    if (dataInBytes <= SLICE_BYTES) this.#backend.read(offset, segments, finished);
    else {
      const move: LongTransfer["move"] = (start, part, done) => this.#backend.read(offset + start, part, done);
      this.#long.add({ queue: request.queue, segments, sizeBytes: dataInBytes, move, finished });
    }
    return undefined;
  }

  #write(request: Request): BlockStatus | undefined {
    const { chain, offset, dataOutBytes } = request;
    if (this.#backend.isReadOnly) return "ioError"; // and not "unsupported": §5.2.6.2
    if (offset === undefined || !this.#isInside(offset, dataOutBytes)) return "ioError";
    const segments = sliceSegments(chain.readable, HEADER_BYTES, dataOutBytes);
    const finished = (status: BlockStatus): void => this.#finishChange(request, status);
    if (dataOutBytes <= SLICE_BYTES) this.#backend.write(offset, segments, finished);
    else {
      const move: LongTransfer["move"] = (start, part, done) => this.#backend.write(offset + start, part, done);
      this.#long.add({ queue: request.queue, segments, sizeBytes: dataOutBytes, move, finished });
    }
    return undefined;
  }

  #getId(request: Request): BlockStatus | undefined {
    const target = sliceSegments(request.chain.writable, 0, Math.min(request.dataInBytes, ID_BYTES));
    this.#finish(request, "ok", scatter(request.queue.memory, target, this.#serial));
    return undefined;
  }

  #discard(request: Request): BlockStatus | undefined {
    const range = this.#range(request, VIRTIO_BLK_F_DISCARD, MAX_DISCARD_SECTORS);
    if (typeof range === "string") return range;
    if (range.flags !== 0) return "unsupported";
    this.#backend.discard(range.offset, range.sizeBytes, (status) => this.#finishChange(request, status));
    return undefined;
  }

  #writeZeroes(request: Request): BlockStatus | undefined {
    const range = this.#range(request, VIRTIO_BLK_F_WRITE_ZEROES, MAX_WRITE_ZEROES_SECTORS);
    if (typeof range === "string") return range;
    if ((range.flags & ~RANGE_FLAG_UNMAP) !== 0) return "unsupported";
    const mayUnmap = (range.flags & RANGE_FLAG_UNMAP) !== 0;
    this.#backend.writeZeroes(range.offset, range.sizeBytes, mayUnmap, (status) => this.#finishChange(request, status));
    return undefined;
  }

  /** The one range of a discard or write zeroes request, checked; or how to refuse it. VIRTIO 1.2 §5.2.6 */
  #range(
    request: Request,
    feature: bigint,
    maxSectors: number,
  ): { readonly offset: number; readonly sizeBytes: number; readonly flags: number } | BlockStatus {
    if ((this.#features & feature) === 0n) return "unsupported";
    if (request.dataOutBytes !== RANGE_BYTES) return "ioError"; // max_…_seg is 1
    const bytes = new Uint8Array(RANGE_BYTES);
    gather(request.queue.memory, sliceSegments(request.chain.readable, HEADER_BYTES, RANGE_BYTES), bytes);
    const view = new DataView(bytes.buffer);
    const offset = this.#offsetOf(u64FromHalves(view.getUint32(0, true), view.getUint32(4, true)));
    const sectors = view.getUint32(8, true);
    if (sectors > maxSectors || offset === undefined || !this.#isInside(offset, sectors * SECTOR_BYTES)) {
      return "ioError";
    }
    return { offset, sizeBytes: sectors * SECTOR_BYTES, flags: view.getUint32(12, true) };
  }

  #offsetOf(sector: number | undefined): number | undefined {
    return sector !== undefined && sector <= this.#sizeBytes / SECTOR_BYTES ? sector * SECTOR_BYTES : undefined;
  }

  /** Inside the disk, not empty, and in whole blocks as the host file needs them. */
  #isInside(offset: number, sizeBytes: number): boolean {
    const block = this.#backend.blockSizeBytes;
    return sizeBytes > 0 && offset % block === 0 && sizeBytes % block === 0 && offset + sizeBytes <= this.#sizeBytes;
  }

  /** A driver that does not know FLUSH takes a finished change of the disk for a durable one. VIRTIO 1.2 §5.2.6.2 */
  #finishChange(request: Request, status: BlockStatus): void {
    const isWriteThrough = (this.#features & VIRTIO_BLK_F_FLUSH) === 0n;
    if (status === "ok" && isWriteThrough) this.#backend.flush((flushed) => this.#finish(request, flushed));
    else this.#finish(request, status);
  }

  /**
   * Writes the status byte, the last one of the writable part, and gives the chain back; nothing when a reset came
   * first.
   */
  #finish({ queue, chain }: Request, status: BlockStatus, dataBytes = 0): void {
    this.#inFlight--;
    if (!queue.isLive) return;
    const last: Segment | undefined = chain.writable.at(-1);
    if (last !== undefined) queue.memory.writeU8(gpa(last.gpa + last.sizeBytes - 1), STATUS_BYTE[status]);
    queue.complete(chain, status === "ok" ? dataBytes + 1 : 1);
  }
}
