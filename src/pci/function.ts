import type { Gpa, Halves, Width } from "../base/units.ts";
import type { ConfigSpace } from "./config-space.ts";
import type { FunctionVectors } from "./vectors.ts";

/** Index of a base address register, 0 to 5; {@link ROM_BAR} is the expansion ROM's. */
export type BarIndex = 0 | 1 | 2 | 3 | 4 | 5 | 6;
export const ROM_BAR = 6;

/**
 * What a function asks of the address space. `sizeBytes` is a power of two: at least 16 for memory, 4 for I/O, 2 KiB
 * for the ROM. A mem64 BAR takes its own index and the next one. PCI Local Bus 3.0 §6.2.5
 */
export type BarRequest =
  | { readonly kind: "io"; readonly index: BarIndex; readonly sizeBytes: number }
  | { readonly kind: "mem32"; readonly index: BarIndex; readonly sizeBytes: number; readonly isPrefetchable: boolean }
  | { readonly kind: "mem64"; readonly index: BarIndex; readonly sizeBytes: number; readonly isPrefetchable: boolean }
  | { readonly kind: "rom"; readonly index: typeof ROM_BAR; readonly sizeBytes: number };

/**
 * One PCI function as the bus sees it. The root owns decoding. It forwards config accesses to `config` and follows the
 * BARs as the guest moves them. It puts them on the port or MMIO bus, and calls `readBar`/`writeBar` for accesses that
 * trap. Only the device thread calls it; nothing here throws because of what the guest did.
 */
export interface PciFunction {
  readonly name: string;
  readonly config: ConfigSpace;
  readonly barRequests: readonly BarRequest[];

  readBar(index: BarIndex, offset: number, width: Width): number;
  writeBar(index: BarIndex, offset: number, width: Width, value: number): void;
  /** Eight bytes in one piece; a function without this gets two accesses of four, the low half first. */
  readBarWide?(index: BarIndex, offset: number): Halves;
  writeBarWide?(index: BarIndex, offset: number, value: Halves): void;

  /** What is at an offset of a BAR, where the function knows: text such as `MSI-X entry 3 data`. */
  describeBar?(index: BarIndex, offset: number): string | undefined;

  /** How its message-signalled interrupts are set up, where it has any; plain data, without any effect. */
  inspectVectors?(): FunctionVectors;

  /**
   * Says where a BAR answers now: `undefined` while its decode is off. Called after the bus range was attached and
   * before it is detached, so that memory slots and doorbells live strictly inside the range's life. For I/O BARs the
   * address is a port.
   */
  barPlaced(index: BarIndex, address: Gpa | undefined): void;

  /** Back to the state after power-on; BARs were taken off the bus before. */
  reset(): void;

  /** Gives back whatever it holds of the host. The machine calls it once, at its end, in reverse order of plugging. */
  close(): void;
}
