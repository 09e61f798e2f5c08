import type { ImageFile } from "../src/base/load-plan.ts";

/** A file made of bytes in memory. */
export function imageFile(name: string, bytes: Uint8Array): ImageFile {
  return { name, sizeBytes: bytes.length, read: (offset, sizeBytes) => bytes.slice(offset, offset + sizeBytes) };
}

/** A view that grows: stores at any offset. */
export class ByteBuilder {
  #bytes: Uint8Array = new Uint8Array(0);

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  #view(offset: number, sizeBytes: number): DataView {
    if (offset + sizeBytes > this.#bytes.length) {
      const grown = new Uint8Array(offset + sizeBytes);
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    return new DataView(this.#bytes.buffer, offset, sizeBytes);
  }

  u8(offset: number, value: number): this {
    this.#view(offset, 1).setUint8(0, value);
    return this;
  }

  u16(offset: number, value: number): this {
    this.#view(offset, 2).setUint16(0, value, true);
    return this;
  }

  u32(offset: number, value: number): this {
    this.#view(offset, 4).setUint32(0, value, true);
    return this;
  }

  u64(offset: number, value: number | bigint): this {
    this.#view(offset, 8).setBigUint64(0, BigInt(value), true);
    return this;
  }

  put(offset: number, bytes: Uint8Array): this {
    this.#view(offset, bytes.length);
    this.#bytes.set(bytes, offset);
    return this;
  }

  text(offset: number, text: string): this {
    return this.put(offset, new TextEncoder().encode(text));
  }
}

export interface ElfSegment {
  readonly type?: number;
  readonly vaddr?: number | bigint;
  readonly paddr: number | bigint;
  readonly bytes: Uint8Array;
  readonly memoryBytes?: number;
  readonly align?: number;
}

export interface ElfOptions {
  readonly machine?: number;
  readonly type?: number;
  readonly data?: number;
  readonly entry?: number | bigint;
}

/** An ELF file: header, program headers, then the segments one after another from offset 0x1000. */
export function elf64(segments: readonly ElfSegment[], options: ElfOptions = {}): ByteBuilder {
  const file = new ByteBuilder().put(0, new Uint8Array([0x7f, 0x45, 0x4c, 0x46, 2, options.data ?? 1, 1]));
  file
    .u16(16, options.type ?? 2)
    .u16(18, options.machine ?? 62)
    .u32(20, 1);
  file
    .u64(24, options.entry ?? 0x100_0000)
    .u64(32, 64)
    .u16(52, 64)
    .u16(54, 56)
    .u16(56, segments.length);
  file.u32(60, 0);
  let offset = 0x1000;
  for (const [index, segment] of segments.entries()) {
    const at = 64 + 56 * index;
    file.u32(at, segment.type ?? 1).u64(at + 8, offset);
    file.u64(at + 16, segment.vaddr ?? segment.paddr).u64(at + 24, segment.paddr);
    file.u64(at + 32, segment.bytes.length).u64(at + 40, segment.memoryBytes ?? segment.bytes.length);
    file.u64(at + 48, segment.align ?? 4).put(offset, segment.bytes);
    offset += segment.bytes.length;
  }
  return file;
}

/** The same for 32 bits and i386. */
export function elf32(segments: readonly ElfSegment[], options: ElfOptions = {}): ByteBuilder {
  const file = new ByteBuilder().put(0, new Uint8Array([0x7f, 0x45, 0x4c, 0x46, 1, options.data ?? 1, 1]));
  file
    .u16(16, options.type ?? 2)
    .u16(18, options.machine ?? 3)
    .u32(20, 1);
  file
    .u32(24, Number(options.entry ?? 0x10_0000))
    .u32(28, 52)
    .u16(40, 52)
    .u16(42, 32)
    .u16(44, segments.length);
  file.u32(48, 0);
  let offset = 0x1000;
  for (const [index, segment] of segments.entries()) {
    const at = 52 + 32 * index;
    file.u32(at, segment.type ?? 1).u32(at + 4, offset);
    file.u32(at + 8, Number(segment.vaddr ?? segment.paddr)).u32(at + 12, Number(segment.paddr));
    file.u32(at + 16, segment.bytes.length).u32(at + 20, segment.memoryBytes ?? segment.bytes.length);
    file.u32(at + 28, segment.align ?? 4).put(offset, segment.bytes);
    offset += segment.bytes.length;
  }
  return file;
}

/** A note as PT_NOTE segments hold it. */
export function elfNote(name: string, type: number, description: Uint8Array, align = 4): Uint8Array {
  const padded = (size: number): number => Math.ceil(size / align) * align;
  const descriptionAt = padded(12 + name.length + 1);
  const note = new ByteBuilder()
    .u32(0, name.length + 1)
    .u32(4, description.length)
    .u32(8, type)
    .text(12, name);
  const filled = new Uint8Array(padded(description.length));
  filled.set(description);
  return note.put(descriptionAt, filled).bytes;
}

/** The note by which an ELF kernel says that it can be started by PVH, and where. */
export function pvhNote(entry: number, width: 4 | 8 = 8): Uint8Array {
  const description = new ByteBuilder().u32(0, entry);
  if (width === 8) description.u32(4, 0);
  return elfNote("Xen", 18, description.bytes);
}

export interface BzImageOptions {
  readonly version?: number;
  readonly setupSects?: number;
  readonly codeBytes?: number;
  readonly loadflags?: number;
  readonly code32Start?: number;
  readonly initrdAddrMax?: number;
  readonly cmdlineSize?: number;
  readonly prefAddress?: number;
  readonly initSize?: number;
}

/** A bzImage whose protected-mode part is filled with 0xc3. */
export function bzImage(options: BzImageOptions = {}): ByteBuilder {
  const setupSects = options.setupSects ?? 3;
  const setupBytes = ((setupSects === 0 ? 4 : setupSects) + 1) * 512;
  const codeBytes = options.codeBytes ?? 0x1000;
  const file = new ByteBuilder().put(0, new Uint8Array([0x4d, 0x5a])); // kernels with an EFI stub begin like this
  file
    .u8(0x1f1, setupSects)
    .u32(0x1f4, Math.ceil(codeBytes / 16))
    .u16(0x1fe, 0xaa55);
  file
    .u8(0x200, 0xeb)
    .u8(0x201, 0x6a)
    .text(0x202, "HdrS")
    .u16(0x206, options.version ?? 0x020f);
  file.u8(0x211, options.loadflags ?? 1).u32(0x214, options.code32Start ?? 0x10_0000);
  file.u32(0x22c, options.initrdAddrMax ?? 0x7fff_ffff).u32(0x238, options.cmdlineSize ?? 2047);
  file.u64(0x258, options.prefAddress ?? 0x100_0000).u32(0x260, options.initSize ?? 0x10_0000);
  file.u32(0x268, 0x1234_5678); // the header's last field, kernel_info_offset
  file.u32(0x26c, 0xdead_beef); // behind the header
  return file.put(setupBytes, new Uint8Array(codeBytes).fill(0xc3));
}

/** A multiboot 1 header; `addresses` are header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr. */
export function multibootHeader(flags: number, addresses: readonly number[] = []): Uint8Array {
  const header = new ByteBuilder()
    .u32(0, 0x1bad_b002)
    .u32(4, flags)
    .u32(8, (0x1_0000_0000 * 2 - 0x1bad_b002 - flags) >>> 0);
  for (const [index, address] of addresses.entries()) header.u32(12 + 4 * index, address);
  return header.bytes;
}
