import type { Gpa } from "../base/units.ts";
import type { BarIndex, BarRequest } from "../pci/function.ts";
import type { RegionArea } from "./backend.ts";
import type { TrappedArea } from "./bar-areas.ts";
import type { HiddenCapability } from "./config-policy.ts";

/** One BAR of a passed-through function. */
export interface BarSummary {
  readonly index: BarIndex;
  readonly kind: BarRequest["kind"];
  readonly sizeBytes: number;
  /** Where it answers now; a port for I/O BARs. */
  readonly address: Gpa | undefined;
  /** Bytes that the guest reaches without an exit now. */
  readonly slotBytes: number;
  /** The pieces that those bytes are, from the BAR's start. */
  readonly slots: readonly RegionArea[];
  /** The pieces that exit however it is placed, and why; empty for I/O BARs and the ROM, which always do. */
  readonly trapped: readonly TrappedArea[];
  /** Accesses that exited. */
  readonly reads: number;
  readonly writes: number;
}

/** How a passed-through function is set up and what it has done; plain data. */
export interface PassthroughSummary {
  readonly name: string;
  readonly bars: readonly BarSummary[];
  readonly interrupts: {
    readonly kind: "intx" | "msi" | "msix" | "none";
    readonly armed: number;
    /** Interrupts that the guest was given in case one was lost while the host armed its vectors anew. */
    readonly repeated: number;
  };
  /** Vectors whose eventfd the host signals; empty for INTx. */
  readonly armedVectors: readonly number[];
  readonly hiddenCapabilities: readonly HiddenCapability[];
  /** Guest accesses to configuration space that went on to the device; all others cost no system call. */
  readonly forwardedConfigAccesses: number;
  /** ERR events of the host. */
  readonly errors: number;
  /** REQ events of the host. */
  readonly requests: number;
}
