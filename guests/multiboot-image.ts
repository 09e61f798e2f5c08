import { Assembler } from "./assembler.ts";
import { elf32, multibootHeader } from "./kernel-images.ts";

/** Where the image is loaded unless said otherwise: the start of high memory. */
const LOAD_ADDRESS = 0x10_0000;

/** A guest that any multiboot loader boots. */
export interface MultibootImage {
  /** The ELF file. */
  readonly bytes: Uint8Array;
  readonly entry: number;
}

/**
 * Assembles a multiboot 1 kernel: an ELF32 file of one segment, whose first bytes are the multiboot header. The code is
 * entered behind the header, in flat 32-bit protected mode without paging. EAX holds 0x2badb002 and EBX the information
 * structure's address. There is no stack. Multiboot Specification 0.6.96 §3
 *
 * @param write Puts down code and data; the first byte it puts is the entry.
 * @param zeroedBytes Zeroed memory behind the image, for stacks and buffers.
 */
export function multibootImage(write: (assembler: Assembler) => void, zeroedBytes = 0): MultibootImage {
  const assembler = new Assembler(LOAD_ADDRESS, 32);
  assembler.db(...multibootHeader(0));
  const entry = assembler.here;
  write(assembler);
  const code = assembler.assemble();
  const segment = { paddr: LOAD_ADDRESS, bytes: code, memoryBytes: code.length + zeroedBytes };
  return { bytes: elf32([segment], { entry }).bytes, entry };
}
