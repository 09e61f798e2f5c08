import type { Assembler } from "./assembler.ts";
import { mem16, mem32 } from "./assembler-encoding.ts";
import { fresh, guestImage } from "./program.ts";
import { findVirtio, NOTIFY, startVirtio } from "./virtio-pci.ts";

/*
 * Guests that write output as fast as they can. One loop of them offers the console's whole transmit queue, a buffer of
 * 64 KiB in each descriptor, and writes a page to COM1.
 */

const VIRTIO_ID_CONSOLE = 3;
const TRANSMIT_QUEUE = 1;
/** Distance of the queues' doorbells in this program's devices. */
const NOTIFY_MULTIPLIER = 4;
const QUEUE_SIZE = 128;
const BUFFER_BYTES = 64 << 10;

const DESCRIPTORS = 0x40_0000;
const AVAILABLE = 0x41_0000;
const USED = 0x42_0000;
const BUFFER = 0x80_0000;
const COM1 = 0x3f8;
const PAGE = 4096;

/** Bytes of one loop on the console, and on COM1. */
export const FLOOD_BYTES: Readonly<Record<"console" | "serial", number>> = {
  console: QUEUE_SIZE * BUFFER_BYTES,
  serial: PAGE,
};

export interface FloodOptions {
  readonly serial: boolean;
  readonly console: boolean;
  /** How often; then the guest ends itself. Absent: without end. */
  readonly loops?: number;
}

/** The guest writes lines of 63 letters. */
export function floodGuest({ serial, console, loops }: FloodOptions): Uint8Array {
  return guestImage((a) => {
    fillBuffer(a);
    if (console) setUpConsole(a);
    const again = fresh("flood");
    a.mov("ebp", loops ?? 0).label(again);
    if (console) offerAll(a, loops !== undefined);
    if (serial) a.mov("esi", BUFFER).mov("ecx", PAGE).mov("edx", COM1).rep().outs(8);
    if (loops === undefined) a.jmp(again);
    else a.dec("ebp").j("ne", again);
  });
}

function fillBuffer(a: Assembler): void {
  a.mov("edi", BUFFER)
    .mov("eax", 0x6161_6161)
    .mov("ecx", BUFFER_BYTES / 4)
    .rep()
    .stos(32);
  const line = fresh("line");
  a.mov("edi", BUFFER + 60)
    .mov("ecx", BUFFER_BYTES / 64)
    .label(line);
  a.mov(mem32("edi"), 0x0a61_6161).add("edi", 64).dec("ecx").j("ne", line);
}

function setUpConsole(a: Assembler): void {
  const descriptor = fresh("descriptor");
  findVirtio(a, VIRTIO_ID_CONSOLE);
  a.mov("edi", DESCRIPTORS).mov("ecx", QUEUE_SIZE).label(descriptor);
  a.mov(mem32("edi"), BUFFER).mov(mem32("edi", 4), 0).mov(mem32("edi", 8), BUFFER_BYTES).mov(mem32("edi", 12), 0);
  a.add("edi", 16).dec("ecx").j("ne", descriptor);
  for (let index = 0; index < QUEUE_SIZE; index++) a.mov(mem16(AVAILABLE + 4 + 2 * index), index);
  const place = { size: QUEUE_SIZE, descriptors: DESCRIPTORS, available: AVAILABLE, used: USED, vector: 0xffff };
  startVirtio(a, 0, place, TRANSMIT_QUEUE);
}

/** The available ring's entries stay as they are: each descriptor is its own request. */
function offerAll(a: Assembler, waits: boolean): void {
  a.mov("ax", mem16(AVAILABLE + 2))
    .add("ax", QUEUE_SIZE)
    .mov(mem16(AVAILABLE + 2), "ax");
  a.mov("ebx", mem32(NOTIFY)).mov(mem16("ebx", TRANSMIT_QUEUE * NOTIFY_MULTIPLIER), TRANSMIT_QUEUE);
  if (!waits) return;
  const wait = fresh("wait");
  a.label(wait)
    .pause()
    .mov("bx", mem16(USED + 2))
    .cmp("ax", "bx")
    .j("ne", wait);
}
