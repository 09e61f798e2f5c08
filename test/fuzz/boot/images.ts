import { ByteBuilder, bzImage, elf32, elf64, multibootHeader, pvhNote } from "../../../guests/kernel-images.ts";
import type { ImageFile } from "../../../src/base/load-plan.ts";
import type { Image, Operation, Segment } from "./operations.ts";

/** What a file is told to be longer than its bytes are: a hole. */
export interface CountedFile extends ImageFile {
  /** Bytes that were read so far. */
  readonly readBytes: () => number;
}

/** The damaged kernel. */
export function kernelFile(name: string, { image, patches, fileBytes }: Operation): CountedFile {
  const builder = build(image);
  for (const [at, width, value] of patches) {
    if (width === 1) builder.u8(at, value);
    else if (width === 2) builder.u16(at, value);
    else builder.u32(at, value);
  }
  return counted(name, builder.bytes, fileBytes ?? builder.bytes.length);
}

/** A file of zeros, or of bytes and a hole behind them. */
export function counted(name: string, bytes: Uint8Array, sizeBytes: number): CountedFile {
  let total = 0;
  return {
    name,
    sizeBytes,
    readBytes: () => total,
    read(offset, length) {
      const end = Math.min(offset + length, sizeBytes);
      const found = new Uint8Array(Math.max(0, end - offset));
      total += found.length;
      found.set(bytes.subarray(Math.min(offset, bytes.length), Math.min(end, bytes.length)));
      return found;
    },
  };
}

function build(image: Image): ByteBuilder {
  switch (image.kind) {
    case "bzImage":
      return bzImage(image).u32(0x230, image.alignment).u8(0x234, image.relocatable);
    case "multiboot": {
      const file = new ByteBuilder().put(0, new Uint8Array(image.sizeBytes));
      return file.put(image.headerAt, multibootHeader(image.flags, image.addresses));
    }
    case "elf32":
    case "elf64": {
      const make = image.kind === "elf32" ? elf32 : elf64;
      const segments = image.segments.map((segment, index) => ({
        ...{ type: segment.type, paddr: segment.address, memoryBytes: segment.memoryBytes },
        bytes: content(segment, index === 0 ? image.multiboot : undefined),
        ...(segment.align === undefined ? {} : { align: segment.align }),
      }));
      return make(segments, { entry: image.entry });
    }
    default:
      return image satisfies never;
  }
}

function content({ sizeBytes, pvh }: Segment, multiboot: number | undefined): Uint8Array {
  if (pvh !== undefined) return pvhNote(pvh.entry, pvh.width);
  const bytes = new Uint8Array(sizeBytes);
  if (multiboot !== undefined && sizeBytes >= 12) bytes.set(multibootHeader(multiboot));
  return bytes;
}
