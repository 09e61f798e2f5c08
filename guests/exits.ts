import type { Assembler } from "./assembler.ts";
import { mem32 } from "./assembler-encoding.ts";
import { guestImage, repeat, reportTime } from "./program.ts";
import { COMMON, findVirtio } from "./virtio-pci.ts";

/** Kinds of trapped accesses, in the order the guest does them. */
export const EXITS = ["PIO write", "PIO read", "MMIO write", "MMIO read"] as const;
export type ExitName = (typeof EXITS)[number];

/** COM1's scratch register: a byte that every UART keeps. */
const UART_SCRATCH = 0x3ff;
/** VIRTIO_ID_RNG. */
const RNG = 4;

/** Accesses between two jumps: where a KVM in software emulates the loop, its instructions should not weigh. */
const UNROLLED = 20;

/** How often the guest does it. */
export interface ExitsShape {
  /** Accesses of a block, a multiple of 20. */
  readonly count: number;
  /** Blocks of each kind. */
  readonly blocks: number;
}

/**
 * A guest that does nothing but trapped accesses, in blocks, and reports the time stamp counter before and after each.
 *
 * The ports are those of the UART's scratch register. The memory is the first register (device_feature_select) of a
 * virtio RNG, or a fixed address for a VMM without devices.
 *
 * @param mmio Where the memory accesses go.
 */
export function exitsGuest(shape: ExitsShape, mmio: "virtio" | number): Uint8Array {
  return guestImage((a) => {
    if (mmio === "virtio") {
      findVirtio(a, RNG);
      a.mov("edi", mem32(COMMON));
    } else a.mov("edi", mmio);
    const access: Readonly<Record<ExitName, () => Assembler>> = {
      "PIO write": () => a.out("dx", "al"),
      "PIO read": () => a.in("al", "dx"),
      "MMIO write": () => a.mov(mem32("edi"), "eax"),
      "MMIO read": () => a.mov("eax", mem32("edi")),
    };
    for (const kind of EXITS) {
      // One copy of the loop for each block: a benchmark of exits has no use for a small image.
      for (let block = 0; block < shape.blocks; block++) {
        reportTime(a);
        a.mov("edx", UART_SCRATCH).mov("eax", 0);
        repeat(a, shape.count / UNROLLED, () => {
          for (let i = 0; i < UNROLLED; i++) access[kind]();
        });
        reportTime(a);
      }
    }
  });
}
