import { mem16, mem32 } from "./assembler-encoding.ts";
import { fresh, guestImage, mark } from "./program.ts";
import { findVirtio, notifyQueue, startVirtio } from "./virtio-pci.ts";

const VIRTIO_ID_BLOCK = 2;
const DESC_F_NEXT = 1;
const DESC_F_WRITE = 2;
const QUEUE_SIZE = 256;

const DESCRIPTORS = 0x40_0000;
const AVAILABLE = 0x40_2000;
const USED = 0x40_4000;
/** Of zeroes: type VIRTIO_BLK_T_IN, sector 0. */
const HEADER = 0x50_0000;
const STATUS = 0x50_0020;
/** Where all data goes. */
export const LARGE_READS_BUFFER = 0x100_0000;

/** What a guest asks of its disk at once. */
export interface LargeReads {
  /** Requests, at most the queue's 256: all the same one, from the disk's start. */
  readonly count: number;
  /** Buffers of a request, one upon the other. */
  readonly buffers: number;
  readonly bufferBytes: number;
}

/**
 * A guest that says `-` and asks for all reads by one notification; then it halts. Nothing stops a driver from
 * overlapping its buffers.
 */
export const largeReadsGuest = ({ count, buffers, bufferBytes }: LargeReads): Uint8Array =>
  guestImage((a) => {
    findVirtio(a, VIRTIO_ID_BLOCK);
    const describe = (index: number, address: number, length: number, flags: number): void => {
      const at = DESCRIPTORS + 16 * index;
      a.mov(mem32(at), address)
        .mov(mem32(at + 4), 0)
        .mov(mem32(at + 8), length)
        .mov(mem32(at + 12), ((index + 1) << 16) | flags);
    };
    for (let word = 0; word < 4; word++) a.mov(mem32(HEADER + 4 * word), 0);
    describe(0, HEADER, 16, DESC_F_NEXT);
    for (let buffer = 1; buffer <= buffers; buffer++)
      describe(buffer, LARGE_READS_BUFFER, bufferBytes, DESC_F_NEXT | DESC_F_WRITE);
    describe(buffers + 1, STATUS, 1, DESC_F_WRITE);
    a.mov("edi", AVAILABLE + 4)
      .mov("ecx", QUEUE_SIZE)
      .mov("eax", 0)
      .rep()
      .stos(16);
    const place = { size: QUEUE_SIZE, descriptors: DESCRIPTORS, available: AVAILABLE, used: USED, vector: 0xffff };
    startVirtio(a, 0, place);
    a.mov(mem16(AVAILABLE + 2), count);
    mark(a, "-");
    notifyQueue(a);
    const end = fresh("end");
    a.label(end).hlt().jmp(end);
  });
