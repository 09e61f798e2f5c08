import type { Assembler } from "./assembler.ts";
import { type Memory, mem8, mem16, mem32 } from "./assembler-encoding.ts";
import { enterLongMode, enterUserMode, setHandler } from "./long-mode.ts";
import { fresh, guestImage, mark, reportTime, SCRATCH } from "./program.ts";
import { COMMON, enableMsix, findVirtio, notifyQueue, startVirtio } from "./virtio-pci.ts";

/*
 * A virtio-blk driver in a few hundred instructions. It keeps a fixed number of requests in flight, as fio does. Each
 * completion is followed by the next request. The doorbell is rung once for all completions seen together.
 */

/** Request types. VIRTIO 1.2 §5.2.6 */
export const VIRTIO_BLK_T_IN = 0;
export const VIRTIO_BLK_T_OUT = 1;
export const VIRTIO_BLK_T_FLUSH = 4;
export const VIRTIO_BLK_T_GET_ID = 8;

/** A run of equal requests. */
export interface Phase {
  readonly type:
    | typeof VIRTIO_BLK_T_IN
    | typeof VIRTIO_BLK_T_OUT
    | typeof VIRTIO_BLK_T_FLUSH
    | typeof VIRTIO_BLK_T_GET_ID;
  /** Of data; 0 for a flush. */
  readonly sizeBytes: number;
  /** Requests in flight, 1 to 32. */
  readonly depth: number;
  readonly count: number;
  /** At random places, or one after the other from the disk's start. */
  readonly isRandom: boolean;
  /** Halt until the device interrupts, instead of looking at the used ring all the time. */
  readonly waits: boolean;
  /**
   * Every other request of an OUT phase of depth 1 is a flush. Its data buffer stays in the chain; devices ignore it.
   */
  readonly flushes?: boolean;
}

const VIRTIO_ID_BLOCK = 2;
const VIRTIO_BLK_F_FLUSH = 1 << 9;
const DESC_F_NEXT = 1;
const DESC_F_WRITE = 2;
const AVAIL_F_NO_INTERRUPT = 1;
const USED_F_NO_NOTIFY = 1;

const MAX_DEPTH = 32;
/** Descriptors a request has; three are used, but a power of two is divided by shifting. */
const PER_REQUEST = 4;
const QUEUE_SIZE: number = MAX_DEPTH * PER_REQUEST;
const SECTOR_BYTES = 512;

/** Where things are; buffers of 1 MiB each follow. */
const DESCRIPTORS = 0x40_0000;
const AVAILABLE = 0x41_0000;
const USED = 0x42_0000;
const HEADERS = 0x43_0000;
const STATUSES = 0x44_0000;
const BUFFERS = 0x100_0000;
const BUFFER_BYTES = 1 << 20;

/** Variables behind those of virtio-pci.ts. */
const REMAINING: Memory = mem32(SCRATCH + 0x40); // to be issued
const LEFT: Memory = mem32(SCRATCH + 0x44); // to be completed
const LAST_USED: Memory = mem16(SCRATCH + 0x48);
const SEED: Memory = mem32(SCRATCH + 0x4c);
const ISSUED: Memory = mem32(SCRATCH + 0x50); // since the last ring of the doorbell

const VECTOR = 0x40;
const LOCAL_APIC = 0xfee0_0000;
const APIC_EOI = 0xb0;
const APIC_SPURIOUS = 0xf0;

/**
 * A guest that runs the phases one after the other. For each it sends a `-` when it begins and the time stamp counter
 * before the first request and after the last. After the last phase it sends one more `-` and stays, so that the host
 * can still look at the process. Without interrupts the driver runs as user code, as a Linux guest's would not; see
 * long-mode.ts for why.
 *
 * @param diskBytes Size of the disk, a power of two.
 */
export function blockGuest(phases: readonly Phase[], diskBytes: number): Uint8Array {
  return guestImage((a) => {
    const waits = phases.some((phase) => phase.waits);
    findVirtio(a, VIRTIO_ID_BLOCK);
    enterLongMode(a);
    if (waits) {
      setUpInterrupts(a);
      enableMsix(a, VECTOR);
    } else enterUserMode(a);
    const place = { size: QUEUE_SIZE, descriptors: DESCRIPTORS, available: AVAILABLE, used: USED, vector: 0 };
    startVirtio(a, VIRTIO_BLK_F_FLUSH, place);
    a.mov(SEED, 0x2545_f491);
    for (const phase of phases) writePhase(a, phase, diskBytes / SECTOR_BYTES);
    mark(a, "-");
    // User code may not halt; it will not be there for long.
    const end = fresh("end");
    if (waits) a.label(end).hlt().jmp(end);
    else a.label(end).pause().jmp(end);
  });
}

function writePhase(a: Assembler, phase: Phase, sectors: number): void {
  const labels = { issue: fresh("issue"), over: fresh("over"), kick: fresh("kick") };
  for (let request = 0; request < phase.depth; request++) writeRequest(a, phase, request);
  a.mov(mem16(AVAILABLE), phase.waits ? 0 : AVAIL_F_NO_INTERRUPT);
  a.mov(REMAINING, phase.count - phase.depth)
    .mov(LEFT, phase.count)
    .mov(ISSUED, 0);
  if (!phase.isRandom) a.mov(SEED, 0);
  mark(a, "-");
  reportTime(a);
  for (let request = 0; request < phase.depth; request++) {
    a.mov("eax", request * PER_REQUEST).call(labels.issue);
  }
  a.call(labels.kick);
  writeWait(a, phase, labels);
  reportTime(a);
  a.jmp(labels.over);
  writeIssue(a, labels.issue, phase, sectors);
  writeKick(a, labels.kick);
  a.label(labels.over);
}

/** Header and descriptors of a request that does not change but for its sector. */
function writeRequest(a: Assembler, { type, sizeBytes, flushes = false }: Phase, request: number): void {
  const header = HEADERS + 16 * request;
  a.mov(mem32(header), flushes ? VIRTIO_BLK_T_FLUSH : type) // toggled before it is issued
    .mov(mem32(header + 4), 0)
    .mov(mem32(header + 8), 0)
    .mov(mem32(header + 12), 0);
  const first = request * PER_REQUEST;
  const describe = (index: number, address: number, length: number, flags: number, next: number): void => {
    const at = DESCRIPTORS + 16 * index;
    a.mov(mem32(at), address)
      .mov(mem32(at + 4), 0)
      .mov(mem32(at + 8), length);
    a.mov(mem32(at + 12), (next << 16) | flags);
  };
  describe(first, header, 16, DESC_F_NEXT, sizeBytes === 0 ? first + 2 : first + 1);
  if (sizeBytes > 0)
    describe(
      first + 1,
      BUFFERS + BUFFER_BYTES * request,
      sizeBytes,
      DESC_F_NEXT | (type === VIRTIO_BLK_T_OUT ? 0 : DESC_F_WRITE),
      first + 2,
    );
  describe(first + 2, STATUSES + request, 1, DESC_F_WRITE, 0);
}

/**
 * Subroutine: chooses a place for the request whose first descriptor is EAX and makes it available; EBX and ECX are
 * lost.
 */
function writeIssue(a: Assembler, label: string, phase: Phase, sectors: number): void {
  const { sizeBytes, isRandom, type, flushes = false } = phase;
  a.label(label);
  if (flushes)
    a.mov("ecx", mem32(HEADERS))
      .xor("ecx", VIRTIO_BLK_T_OUT ^ VIRTIO_BLK_T_FLUSH)
      .mov(mem32(HEADERS), "ecx");
  if (type === VIRTIO_BLK_T_IN || type === VIRTIO_BLK_T_OUT) {
    a.mov("ebx", "eax")
      .shl("ebx", 2)
      .add("ebx", HEADERS + 8); // 16 bytes of header for 4 descriptors
    const step = sizeBytes / SECTOR_BYTES;
    if (isRandom) {
      xorshift(a);
      a.and("ecx", sectors - 1)
        .and("ecx", -step)
        .mov(mem32("ebx"), "ecx");
    } else {
      a.mov("ecx", SEED).mov(mem32("ebx"), "ecx");
      a.add("ecx", step)
        .and("ecx", sectors - 1)
        .mov(SEED, "ecx");
    }
  }
  a.movzx("ecx", mem16(AVAILABLE + 2))
    .mov("ebx", "ecx")
    .and("ebx", QUEUE_SIZE - 1)
    .shl("ebx", 1);
  a.add("ebx", AVAILABLE + 4).mov(mem16("ebx"), "ax");
  a.inc("ecx")
    .mov(mem16(AVAILABLE + 2), "cx")
    .mov(ISSUED, 1)
    .ret();
}

/** The next random number, in ECX and SEED. Marsaglia, Xorshift RNGs, 2003 */
function xorshift(a: Assembler): void {
  a.mov("ecx", SEED).mov("edx", "ecx").shl("edx", 13).xor("ecx", "edx");
  a.mov("edx", "ecx").shr("edx", 17).xor("ecx", "edx");
  a.mov("edx", "ecx").shl("edx", 5).xor("ecx", "edx").mov(SEED, "ecx");
}

/** Subroutine: rings the doorbell when something new is there and the device wants to hear of it; EAX is lost. */
function writeKick(a: Assembler, label: string): void {
  const quiet = fresh("quiet");
  a.label(label).cmp(ISSUED, 0).j("e", quiet).mov(ISSUED, 0).mfence();
  a.test(mem8(USED), USED_F_NO_NOTIFY).j("ne", quiet);
  notifyQueue(a);
  a.label(quiet).ret();
}

/** Takes completions and issues what is left, until all are there. */
function writeWait(a: Assembler, phase: Phase, labels: { readonly issue: string; readonly kick: string }): void {
  const [wait, take, stay, done] = [fresh("wait"), fresh("take"), fresh("stay"), fresh("done")];
  a.label(wait);
  if (phase.waits) {
    // STI takes effect behind the instruction that follows it, so no interrupt can come between the look and the halt.
    a.cli()
      .mov("ax", mem16(USED + 2))
      .cmp("ax", LAST_USED)
      .j("ne", take)
      .sti()
      .hlt()
      .jmp(wait);
  } else
    a.pause()
      .mov("ax", mem16(USED + 2))
      .cmp("ax", LAST_USED)
      .j("e", wait);
  a.label(take)
    .movzx("ebx", LAST_USED)
    .inc(LAST_USED)
    .and("ebx", QUEUE_SIZE - 1)
    .shl("ebx", 3);
  a.mov("eax", mem32("ebx", USED + 4)).dec(LEFT);
  a.cmp(REMAINING, 0).j("e", stay).dec(REMAINING).call(labels.issue).label(stay);
  a.mov("ax", mem16(USED + 2))
    .cmp("ax", LAST_USED)
    .j("ne", take);
  a.cmp(LEFT, 0).j("e", done).call(labels.kick).jmp(wait).label(done);
}

/** The handler answers by reading a register of the device, then ends the interrupt. */
function setUpInterrupts(a: Assembler): void {
  setHandler(a, VECTOR, () => {
    a.push("rax").mov("eax", mem32(COMMON)).mov("eax", mem32("rax"));
    a.mov("eax", LOCAL_APIC).mov(mem32("rax", APIC_EOI), 0).pop("rax");
  });
  a.mov("eax", LOCAL_APIC).mov(mem32("eax", APIC_SPURIOUS), 0x1ff);
}
