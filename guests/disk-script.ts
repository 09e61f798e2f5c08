import type { Assembler } from "./assembler.ts";
import { mem8, mem16, mem32 } from "./assembler-encoding.ts";
import { exit, fresh, guestImage, SCRATCH } from "./program.ts";
import { findVirtio, notifyQueue, startVirtio } from "./virtio-pci.ts";

/*
 * A guest that does a list of block requests one after the other. It prints on COM1 how each ended: 0 for success, 1
 * for an I/O error, 2 for an unsupported request. VIRTIO 1.2 §5.2.6
 */

/** What the guest does next. Sectors have 512 bytes. */
export type DiskStep =
  | { readonly kind: "write"; readonly sector: number; readonly text: string } // a sector of this text and zeroes
  | { readonly kind: "read"; readonly sector: number; readonly show: number } // and sends so many of its bytes to COM1
  | { readonly kind: "flush" }
  | { readonly kind: "zero" | "discard"; readonly sector: number; readonly sectors: number }
  | { readonly kind: "say"; readonly text: string }
  | { readonly kind: "await" } // a byte typed at COM1
  | { readonly kind: "reset" }
  | { readonly kind: "powerOff" }
  | { readonly kind: "exit" };

const COM1 = 0x3f8;
/** ACPI sleep control: SLP_EN with the sleep type of S5. ACPI 6.5 §4.8.3.7 */
const SLEEP_CONTROL = 0x600;
const POWER_OFF = 0x34;
const VIRTIO_ID_BLOCK = 2;
const VIRTIO_BLK_F_FLUSH = 1 << 9;
const VIRTIO_BLK_F_DISCARD = 1 << 13;
const VIRTIO_BLK_F_WRITE_ZEROES = 1 << 14;
/** Request types. VIRTIO 1.2 §5.2.6 */
const TYPES = { read: 0, write: 1, flush: 4, discard: 11, zero: 13 } as const;
const DESC_F_NEXT = 1;
const DESC_F_WRITE = 2;

const QUEUE_SIZE = 16;
const DESCRIPTORS = 0x40_0000;
const AVAILABLE = 0x40_2000;
const USED = 0x40_4000;
const HEADER = 0x41_0000;
const STATUS = 0x41_1000;
const DATA = 0x41_2000;
const SECTOR_BYTES = 512;
/** Survives a reset; zero before the first one. */
const RUNS = mem32(SCRATCH + 0x80);

/**
 * @param runs What to do in each life of the guest: the first one, the one after its first reset, and so on. A life
 *   that does not end by `exit` or `reset` powers the machine off.
 */
export function diskScript(...runs: readonly (readonly DiskStep[])[]): Uint8Array {
  return guestImage((a) => {
    findVirtio(a, VIRTIO_ID_BLOCK);
    const place = { size: QUEUE_SIZE, descriptors: DESCRIPTORS, available: AVAILABLE, used: USED, vector: 0xffff };
    const features = VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES;
    // Rings of an earlier life are there still.
    a.mov(mem32(AVAILABLE), 0).mov(mem32(USED), 0);
    startVirtio(a, features, place);
    a.mov("ebp", 0); // requests so far
    runs.forEach((steps, run) => {
      const skip = fresh("skip");
      a.cmp(RUNS, run).j("ne", skip).inc(RUNS);
      for (const step of steps) writeStep(a, step);
      exit(a);
      a.label(skip);
    });
  });
}

function writeStep(a: Assembler, step: DiskStep): void {
  switch (step.kind) {
    case "write":
      fill(a, step.text);
      return request(a, TYPES.write, step.sector, { sizeBytes: SECTOR_BYTES, isWritable: false });
    case "read":
      request(a, TYPES.read, step.sector, { sizeBytes: SECTOR_BYTES, isWritable: true });
      a.mov("esi", DATA).mov("ecx", step.show).mov("edx", COM1).rep().outs(8);
      return undefined;
    case "flush":
      return request(a, TYPES.flush, 0, undefined);
    case "zero":
    case "discard":
      a.mov(mem32(DATA), step.sector)
        .mov(mem32(DATA + 4), 0)
        .mov(mem32(DATA + 8), step.sectors)
        .mov(mem32(DATA + 12), 0);
      return request(a, TYPES[step.kind], 0, { sizeBytes: 16, isWritable: false });
    case "say":
      for (const character of step.text) say(a, character);
      return undefined;
    case "await": {
      const wait = fresh("await");
      a.label(wait)
        .mov("edx", COM1 + 5)
        .in("al", "dx")
        .test("al", 1)
        .j("e", wait);
      a.mov("edx", COM1).in("al", "dx");
      return undefined;
    }
    case "reset": {
      const end = fresh("end");
      a.mov("al", 0xfe).out(0x64, "al").label(end).hlt().jmp(end);
      return undefined;
    }
    case "powerOff": {
      const end = fresh("end");
      a.mov("edx", SLEEP_CONTROL).mov("al", POWER_OFF).out("dx", "al").label(end).hlt().jmp(end);
      return undefined;
    }
    case "exit":
      return exit(a);
    default:
      return step satisfies never;
  }
}

function say(a: Assembler, character: string): void {
  a.mov("edx", COM1).mov("al", character.charCodeAt(0)).out("dx", "al");
}

/** A sector of text in the data buffer. */
function fill(a: Assembler, text: string): void {
  a.mov("edi", DATA)
    .mov("ecx", SECTOR_BYTES / 4)
    .xor("eax", "eax")
    .rep()
    .stos(32);
  for (const [index, character] of [...text].entries()) a.mov(mem8(DATA + index), character.charCodeAt(0));
}

/** One request, waited for by looking at the used ring; its status goes to COM1. */
function request(
  a: Assembler,
  type: number,
  sector: number,
  data: { readonly sizeBytes: number; readonly isWritable: boolean } | undefined,
): void {
  for (const [offset, value] of [type, 0, sector, 0].entries()) a.mov(mem32(HEADER + 4 * offset), value);
  a.mov(mem8(STATUS), 0xee);
  const describe = (index: number, address: number, length: number, flags: number, next: number): void => {
    const at = DESCRIPTORS + 16 * index;
    for (const [offset, value] of [address, 0, length, (next << 16) | flags].entries()) {
      a.mov(mem32(at + 4 * offset), value);
    }
  };
  describe(0, HEADER, 16, DESC_F_NEXT, data === undefined ? 2 : 1);
  if (data !== undefined) {
    describe(1, DATA, data.sizeBytes, DESC_F_NEXT | (data.isWritable ? DESC_F_WRITE : 0), 2);
  }
  describe(2, STATUS, 1, DESC_F_WRITE, 0);
  a.mov("eax", "ebp")
    .and("eax", QUEUE_SIZE - 1)
    .shl("eax", 1)
    .add("eax", AVAILABLE + 4);
  a.mov(mem16("eax"), 0)
    .inc("ebp")
    .mov("eax", "ebp")
    .mov(mem16(AVAILABLE + 2), "ax");
  notifyQueue(a);
  const wait = fresh("wait");
  a.label(wait)
    .pause()
    .mov("ax", mem16(USED + 2))
    .cmp("ax", "bp")
    .j("ne", wait);
  a.mov("al", mem8(STATUS)).add("al", 0x30).mov("edx", COM1).out("dx", "al");
}
