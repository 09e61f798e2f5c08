import type { Report } from "../../base/backends.ts";
import type { Gpa, Width } from "../../base/units.ts";
import type { PciIdentity } from "../../pci/config-space.ts";
import type { BarRequest } from "../../pci/function.ts";
import type { BarOffset } from "../../pci/msix.ts";
import type { MemoryBlock } from "./memory-block.ts";

/**
 * Guest RAM as a device reaches it by DMA. A transfer is done whole or not at all, and not at all while the guest has
 * bus mastering off.
 */
export interface DeviceMemory {
  /** @returns False outside what the client lets the device reach; `target` is undefined then. */
  read(address: Gpa, target: Uint8Array): boolean;
  write(address: Gpa, source: Uint8Array): boolean;
  readU32(address: Gpa): number | undefined;
  /** A single store where it is aligned, as queue entries need. */
  writeU32(address: Gpa, value: number): boolean;
}

/** What a device is handed of the machine it is in. */
export interface DeviceHost {
  readonly memory: DeviceMemory;
  readonly report: Report;
  /** True while the guest takes interrupts as messages (MSI, MSI-X): {@link signal} then, {@link setIntx} otherwise. */
  readonly usesMessages: boolean;
  /** Sends a vector's message; dropped while the guest does not use it. */
  signal(vector: number): void;
  /** Level of the interrupt pin. */
  setIntx(isHigh: boolean): void;
}

/**
 * Registers of a BAR. `value` and results are unsigned and fit in `width` bytes; offsets are multiples of the width.
 * Nothing throws.
 */
export interface BarRegisters {
  read(offset: number, width: Width): number;
  write(offset: number, width: Width, value: number): void;
}

/** One BAR: registers, memory that the client maps, or both. */
export interface DeviceBar {
  readonly request: Exclude<BarRequest, { readonly kind: "rom" }>;
  /** What answers where no memory is; zeroes when absent. */
  readonly registers?: BarRegisters;
  /** Memory that the guest reaches without any message. */
  readonly memory?: MemoryBlock;
}

/** Interrupts a device can send. The pin is in its identity. */
export interface DeviceInterrupts {
  /** 1, 2, 4, 8, 16 or 32 messages. */
  readonly msi?: number;
  /** The client keeps table and pending bits itself; their place in the BAR must be free of registers. */
  readonly msix?: { readonly vectors: number; readonly table: BarOffset; readonly pba: BarOffset };
}

/**
 * A PCI device in a process of its own. What is described is read once; then come register accesses. One machine uses
 * it at a time.
 */
export interface UserPciDevice {
  readonly name: string;
  readonly identity: PciIdentity;
  readonly bars: readonly DeviceBar[];
  readonly interrupts: DeviceInterrupts;
  /** Back to the state after power-on: at the guest's reset, and when a machine comes or goes. */
  reset(): void;
}
