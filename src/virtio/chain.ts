import type { GuestMemory, HostSegment } from "../base/guest-memory.ts";
import { type Gpa, gpa, gpaFromHalves, hva, TWO_POW_32 } from "../base/units.ts";

/** struct virtq_desc: le64 addr, le32 len, le16 flags, le16 next. VIRTIO 1.2 §2.7.5 */
export const VIRTQ_DESC_BYTES = 16;
export const VIRTQ_DESC_F_NEXT = 1;
export const VIRTQ_DESC_F_WRITE = 2;
export const VIRTQ_DESC_F_INDIRECT = 4;

/** A checked piece of guest RAM, under both of its addresses. */
export interface Segment extends HostSegment {
  readonly gpa: Gpa;
}

/** One request of the driver: what the device may read, then what it may write. Every range lies in RAM. */
export interface Chain {
  readonly kind: "chain";
  /** Index of the first descriptor; what the used ring names the request by. */
  readonly head: number;
  readonly readable: readonly Segment[];
  readonly writable: readonly Segment[];
  readonly readableBytes: number;
  readonly writableBytes: number;
}

/** A chain that breaks the rules, and which one; `reason` holds no numbers, so that it can be reported once. */
export interface MalformedChain {
  readonly kind: "malformed";
  readonly reason: string;
}

/** Where chains are read from. */
export interface DescriptorTable {
  readonly memory: GuestMemory;
  readonly address: Gpa;
  /** Descriptors in the table. */
  readonly size: number;
  /**
   * Most buffers of a chain that goes through an indirect table: the queue size the device offered. Linux fills
   * indirect tables up to it even where it asked for a smaller queue.
   */
  readonly maxChainLength: number;
  /** VIRTIO_F_INDIRECT_DESC was negotiated. */
  readonly hasIndirect: boolean;
}

const malformed = (reason: string): MalformedChain => ({ kind: "malformed", reason });

/**
 * Copies a descriptor chain out of guest memory, once, and checks it.
 *
 * Every byte of a descriptor is loaded exactly once and judged as loaded, so a guest that rewrites a descriptor
 * meanwhile gains nothing. The walk ends after `size` descriptors (a longer one has met some descriptor twice).
 *
 * @param head Index in the descriptor table, as the guest gave it (may be out of range).
 * @returns Malformed when an index or address is out of range, a buffer is empty, or a readable buffer follows a
 *   writable one. Also when the chain is longer than the queue or than 4 GiB. Also when an indirect table is not
 *   allowed, empty, ragged, nested or has a successor. VIRTIO 1.2 §2.7.4, §2.7.5
 */
export function readChain(table: DescriptorTable, head: number): Chain | MalformedChain {
  const { memory } = table;
  const readable: Segment[] = [];
  const writable: Segment[] = [];
  let readableBytes = 0;
  let writableBytes = 0;
  let tableAddress: number = table.address;
  let tableSize = table.size;
  let limit = table.size;
  let isIndirect = false;
  let index = head;

  for (let walked = 0; ; ) {
    if (index >= tableSize) return malformed("a descriptor index is out of range");
    if (walked >= limit) return malformed("a descriptor chain is a loop or longer than the queue");
    walked++;

    const at = tableAddress + VIRTQ_DESC_BYTES * index;
    const addressLow = memory.readU32(gpa(at));
    const addressHigh = memory.readU32(gpa(at + 4));
    const sizeBytes = memory.readU32(gpa(at + 8));
    const flagsAndNext = memory.readU32(gpa(at + 12));
    if (
      addressLow === undefined ||
      addressHigh === undefined ||
      sizeBytes === undefined ||
      flagsAndNext === undefined
    ) {
      return malformed("a descriptor lies outside RAM");
    }
    const flags = flagsAndNext & 0xffff;
    const address = gpaFromHalves(addressLow, addressHigh);

    if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
      if (!table.hasIndirect) return malformed("an indirect descriptor was not negotiated");
      if (isIndirect) return malformed("an indirect table holds an indirect descriptor");
      if ((flags & VIRTQ_DESC_F_NEXT) !== 0) return malformed("an indirect descriptor has a successor");
      if (sizeBytes === 0 || sizeBytes % VIRTQ_DESC_BYTES !== 0) {
        return malformed("the size of an indirect table is not a positive multiple of 16");
      }
      if (address === undefined || !memory.contains(address, sizeBytes)) {
        return malformed("an indirect table lies outside RAM");
      }
      // The write flag of the descriptor that leads to the table has no meaning (§2.7.5.3.2).
      isIndirect = true;
      tableAddress = address;
      tableSize = sizeBytes / VIRTQ_DESC_BYTES;
      walked--; // the descriptor that leads there is no buffer
      limit = Math.min(walked + tableSize, table.maxChainLength);
      index = 0;
      continue;
    }

    if (sizeBytes === 0) return malformed("a buffer is empty");
    const host = address === undefined ? undefined : memory.hostAddress(address, sizeBytes);
    if (address === undefined || host === undefined) return malformed("a buffer lies outside RAM");
    const segment: Segment = { address: host, sizeBytes, gpa: address };
    if ((flags & VIRTQ_DESC_F_WRITE) !== 0) {
      writable.push(segment);
      writableBytes += sizeBytes;
    } else {
      if (writable.length > 0) return malformed("a readable buffer follows a writable one");
      readable.push(segment);
      readableBytes += sizeBytes;
    }
    if (readableBytes + writableBytes > TWO_POW_32) return malformed("a descriptor chain is longer than 4 GiB");

    if ((flags & VIRTQ_DESC_F_NEXT) === 0)
      return { kind: "chain", head, readable, writable, readableBytes, writableBytes };
    index = flagsAndNext >>> 16;
  }
}

/**
 * The part of a run of segments from `offset` on, `sizeBytes` long; shorter where the run ends before. Drivers cut
 * requests into buffers as they like, so devices cut by bytes. VIRTIO 1.2 §2.7.4
 */
export function sliceSegments(segments: readonly Segment[], offset: number, sizeBytes: number): readonly Segment[] {
  const slice: Segment[] = [];
  let skip = offset;
  let left = sizeBytes;
  for (const segment of segments) {
    if (left <= 0) break;
    if (skip >= segment.sizeBytes) {
      skip -= segment.sizeBytes;
      continue;
    }
    const count = Math.min(segment.sizeBytes - skip, left);
    slice.push(
      count === segment.sizeBytes
        ? segment
        : { address: hva(segment.address + skip), sizeBytes: count, gpa: gpa(segment.gpa + skip) },
    );
    left -= count;
    skip = 0;
  }
  return slice;
}

/** Copies the start of a run of segments out of the guest; the number of bytes copied, at most `target.length`. */
export function gather(memory: GuestMemory, segments: readonly Segment[], target: Uint8Array): number {
  let copied = 0;
  for (const segment of segments) {
    const count = Math.min(segment.sizeBytes, target.length - copied);
    if (count === 0 || !memory.read(segment.gpa, target.subarray(copied, copied + count))) break;
    copied += count;
  }
  return copied;
}

/** Copies bytes into the start of a run of segments; the number of bytes copied, at most `source.length`. */
export function scatter(memory: GuestMemory, segments: readonly Segment[], source: Uint8Array): number {
  let copied = 0;
  for (const segment of segments) {
    const count = Math.min(segment.sizeBytes, source.length - copied);
    if (count === 0 || !memory.write(segment.gpa, source.subarray(copied, copied + count))) break;
    copied += count;
  }
  return copied;
}
