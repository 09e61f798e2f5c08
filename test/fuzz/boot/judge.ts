import type { LoadPlan } from "../../../src/base/load-plan.ts";
import type { BootRequest } from "../../../src/boot/boot-request.ts";

const FOUR_GIB = 2 ** 32;

interface Piece {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/** What is wrong with a plan: pieces outside RAM or over each other, bytes that no file has, a start that cannot be. */
export function judgePlan(plan: LoadPlan, request: BootRequest): string | undefined {
  const pieces: Piece[] = [];
  for (const { file, fileOffset, sizeBytes, address, memoryBytes } of plan.segments) {
    const numbers = [fileOffset, sizeBytes, address, memoryBytes];
    if (!numbers.every((value) => Number.isSafeInteger(value) && value >= 0)) return `a segment of ${numbers.join()}`;
    if (fileOffset + sizeBytes > file.sizeBytes || sizeBytes > memoryBytes) return `a segment beyond ${file.name}`;
    pieces.push({ name: `a segment of ${file.name}`, start: address, end: address + memoryBytes });
  }
  for (const { name, address, bytes } of plan.writes)
    pieces.push({ name, start: address, end: address + bytes.length });
  return (
    outsideRam(pieces, request) ??
    overlap(pieces) ??
    judgeStart(plan, request) ??
    judgeStructures(plan, request) ??
    (plan.protocol.startsWith("Linux") ? judgeLinux(plan, request) : undefined)
  );
}

/**
 * What a bzImage says of itself is kept: the longest command line, and room to unpack. Linux x86 boot protocol,
 * cmdline_size, init_size
 */
function judgeLinux({ segments }: LoadPlan, { kernel, initramfs, cmdline }: BootRequest): string | undefined {
  const bytes = kernel.read(0, 0x290);
  const header = new DataView(bytes.buffer, bytes.byteOffset);
  const version = header.getUint16(0x206, true);
  const limit = version >= 0x0206 ? header.getUint32(0x238, true) : 255;
  if (cmdline.length > limit) return `a command line of ${cmdline.length} bytes for a kernel that takes ${limit}`;
  const loaded = segments.find(({ file }) => file === initramfs);
  if (loaded === undefined) return undefined;
  const end = loaded.address + loaded.sizeBytes;
  const highest = version >= 0x0203 ? header.getUint32(0x22c, true) : 0x37ff_ffff;
  if (end - 1 > highest)
    return `an initramfs to 0x${end.toString(16)} for a kernel that reaches 0x${highest.toString(16)}`;
  const room = header.getUint32(0x260, true);
  if (version < 0x020a || room === 0) return undefined;
  const preferred = Number(header.getBigUint64(0x258, true));
  const alignment = header.getUint32(0x230, true) || 1;
  const loadedAt = Math.ceil(header.getUint32(0x214, true) / alignment) * alignment;
  const start = header.getUint8(0x234) === 0 ? preferred : Math.max(preferred, loadedAt);
  const isApart = end <= start || loaded.address >= start + room;
  return isApart ? undefined : "the initramfs is where the kernel unpacks itself";
}

function outsideRam(pieces: readonly Piece[], { ramRegions, memoryMap }: BootRequest): string | undefined {
  const maps = [
    ramRegions.map(({ gpa, sizeBytes }) => ({ start: gpa as number, end: gpa + sizeBytes })),
    memoryMap.flatMap(({ address, sizeBytes, kind }) =>
      kind === "ram" ? [{ start: address as number, end: address + sizeBytes }] : [],
    ),
  ];
  for (const { name, start, end } of pieces) {
    // Stretches that touch are one: the map has holes where the RAM has none.
    for (const map of maps)
      if (start < end && !covers(map, start, end)) return `${name} at 0x${start.toString(16)} is outside RAM`;
  }
  return undefined;
}

function covers(map: readonly Omit<Piece, "name">[], start: number, end: number): boolean {
  let reached = start;
  for (const stretch of [...map].sort((a, b) => a.start - b.start))
    if (stretch.start <= reached && stretch.end > reached) reached = stretch.end;
  return reached >= end;
}

function overlap(pieces: readonly Piece[]): string | undefined {
  const ordered = pieces.filter(({ start, end }) => start < end).sort((a, b) => a.start - b.start);
  const index = ordered.findIndex((piece, at) => at > 0 && piece.start < (ordered[at - 1]?.end ?? 0));
  return index < 0 ? undefined : `${ordered[index]?.name} lies over ${ordered[index - 1]?.name}`;
}

/** All protocols enter the kernel in 32-bit protected mode, inside what was loaded. */
function judgeStart({ segments, start }: LoadPlan, { kernel }: BootRequest): string | undefined {
  const rip = start.registers.rip ?? Number.NaN;
  const isInside = segments.some(
    ({ file, address, memoryBytes }) => file === kernel && rip >= address && rip < address + memoryBytes,
  );
  if (!isInside) return `the entry 0x${rip.toString(16)} is in no segment`;
  return rip < FOUR_GIB ? undefined : `the entry 0x${rip.toString(16)} is beyond 32 bits`;
}

/** What the kernel reads: its command line, its initramfs and the memory map, by the protocol's own structures. */
function judgeStructures(plan: LoadPlan, request: BootRequest): string | undefined {
  const { protocol, start, segments } = plan;
  const initramfs = segments.find(({ file }) => file === request.initramfs);
  if ((initramfs === undefined) !== (request.initramfs === undefined)) return "the initramfs is not loaded";
  const [wantedAt, wantedSize] = [initramfs?.address ?? 0, initramfs?.sizeBytes ?? 0];
  const told = protocol === "PVH" ? readPvh(plan) : protocol === "multiboot" ? readMultiboot(plan) : readLinux(plan);
  if (told.cmdline !== request.cmdline) return `the command line is told as ${told.cmdline.slice(0, 100)}`;
  if (told.initramfsAt !== wantedAt || told.initramfsBytes !== wantedSize)
    return `the initramfs at ${wantedAt}+${wantedSize} is told to be at ${told.initramfsAt}+${told.initramfsBytes}`;
  const types = { ram: 1, reserved: 2, acpi: 3 } as const;
  const map = request.memoryMap.map(({ address, sizeBytes, kind }) => [address, sizeBytes, types[kind]].join());
  if (told.map.join(" ") !== map.join(" ")) return `the memory map is told as ${told.map.join(" ")}`;
  return start.cs.l === 0 && start.cs.db === 1 && start.cr0 === 1 ? undefined : "it does not start in 32-bit mode";
}

interface Told {
  readonly cmdline: string;
  readonly initramfsAt: number;
  readonly initramfsBytes: number;
  readonly map: readonly string[];
}

/** Guest memory as far as the plan writes it. */
function memoryOf({ writes }: LoadPlan): {
  u32(at: number): number;
  u64(at: number): number;
  text(at: number): string;
} {
  const view = (at: number, sizeBytes: number): DataView => {
    const write = writes.find(({ address, bytes }) => at >= address && at + sizeBytes <= address + bytes.length);
    if (write === undefined) throw new Error(`nothing was written at 0x${at.toString(16)}`);
    return new DataView(write.bytes.buffer, write.bytes.byteOffset + at - write.address, sizeBytes);
  };
  return {
    u32: (at) => view(at, 4).getUint32(0, true),
    u64: (at) => Number(view(at, 8).getBigUint64(0, true)),
    text: (at) => {
      const write = writes.find(({ address, bytes }) => at >= address && at < address + bytes.length);
      const bytes = write?.bytes.subarray(at - write.address) ?? new Uint8Array(0);
      const end = bytes.indexOf(0);
      if (end < 0) throw new Error(`no text ends that begins at 0x${at.toString(16)}`);
      return new TextDecoder().decode(bytes.subarray(0, end));
    },
  };
}

/** struct hvm_start_info, at ebx. */
function readPvh(plan: LoadPlan): Told {
  const memory = memoryOf(plan);
  const at = plan.start.registers.rbx ?? 0;
  const count = memory.u32(at + 12);
  const modules = memory.u64(at + 16);
  const map = memory.u64(at + 40);
  return {
    cmdline: memory.text(memory.u64(at + 24)),
    initramfsAt: count === 0 ? 0 : memory.u64(modules),
    initramfsBytes: count === 0 ? 0 : memory.u64(modules + 8),
    map: Array.from({ length: memory.u32(at + 48) }, (_, index) => {
      const entry = map + 24 * index;
      return [memory.u64(entry), memory.u64(entry + 8), memory.u32(entry + 16)].join();
    }),
  };
}

/** The multiboot information structure, at ebx. Multiboot 0.6.96 §3.3 */
function readMultiboot(plan: LoadPlan): Told {
  const memory = memoryOf(plan);
  const at = plan.start.registers.rbx ?? 0;
  const count = memory.u32(at + 20);
  const module = memory.u32(at + 24);
  const map = memory.u32(at + 48);
  const line = memory.text(memory.u32(at + 16));
  return {
    // Behind the kernel's name, which has no space.
    cmdline: line.includes(" ") ? line.slice(line.indexOf(" ") + 1) : "",
    initramfsAt: count === 0 ? 0 : memory.u32(module),
    initramfsBytes: count === 0 ? 0 : memory.u32(module + 4) - memory.u32(module),
    map: Array.from({ length: memory.u32(at + 44) / 24 }, (_, index) => {
      const entry = map + 24 * index;
      return [memory.u64(entry + 4), memory.u64(entry + 12), memory.u32(entry + 20)].join();
    }),
  };
}

/** The zero page, at esi. Linux x86 boot protocol; asm/bootparam.h */
function readLinux(plan: LoadPlan): Told {
  const memory = memoryOf(plan);
  const at = plan.start.registers.rsi ?? 0;
  return {
    cmdline: memory.text(memory.u32(at + 0x228)),
    initramfsAt: memory.u32(at + 0x218),
    initramfsBytes: memory.u32(at + 0x21c),
    map: Array.from({ length: memory.u32(at + 0x1e8) & 0xff }, (_, index) => {
      const entry = at + 0x2d0 + 20 * index;
      return [memory.u64(entry), memory.u64(entry + 8), memory.u32(entry + 16)].join();
    }),
  };
}
