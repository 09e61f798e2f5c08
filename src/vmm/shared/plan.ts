/** A named stretch of guest-physical addresses or of ports. */
export interface PlanRange {
  readonly name: string;
  readonly address: number;
  readonly sizeBytes: number;
}

/** How the guest reaches a part of a BAR: directly (mapped), or through an exit and this program (trapped). */
export interface PlanBarPart {
  /** From the BAR's start. */
  readonly offset: number;
  readonly sizeBytes: number;
  readonly way: "mapped" | "trapped";
  /** Why it traps: "MSI-X table", "bars=trap", "smaller than a page". */
  readonly reason?: string;
}

/** One BAR of a function. */
export interface PlanBar {
  /** 0 to 5; 6 is the expansion ROM. */
  readonly index: number;
  readonly kind: "io" | "mem32" | "mem64" | "rom";
  readonly sizeBytes: number;
  /** Where it is at first; the guest may move it. Absent when the guest's firmware or kernel places it. */
  readonly address?: number;
  readonly parts: readonly PlanBarPart[];
}

/** One PCI function on the guest's bus. */
export interface PlanFunction {
  /** As the guest sees it: "00:03.0". */
  readonly bdf: string;
  /** The id in the spec, or the device's name where it has none. */
  readonly id: string;
  /** What it is: "virtio-blk disk.raw", "host 0000:01:00.0 [8086:10d3]". */
  readonly title: string;
  /** "MSI-X, 5 vectors", "INTx". */
  readonly interrupts: string;
  readonly bars: readonly PlanBar[];
}

/** Guest RAM in front of passed-through devices: the kernel pins every page, which takes most of such a start. */
export interface PlanDma {
  readonly sizeBytes: number;
  /** How long it took. */
  readonly ms: number;
}

/** One interrupt line. */
export interface PlanInterrupt {
  readonly gsi: number;
  readonly name: string;
}

/**
 * What a machine is made of, as plain data, for display and for programs. Lists are in the order of their addresses.
 */
export interface MachinePlan {
  readonly cpuCount: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly initramfs?: string;
  readonly cmdline: string;
  /** Known as soon as the kernel was read. */
  readonly bootProtocol?: string;
  /** Guest-physical: RAM, tables, windows, what is on the MMIO bus. */
  readonly memoryMap: readonly PlanRange[];
  readonly ports: readonly PlanRange[];
  readonly functions: readonly PlanFunction[];
  readonly interrupts: readonly PlanInterrupt[];
  /** Absent when no function is passed through. */
  readonly dma?: PlanDma;
  /** The functions' configuration spaces, as `lspci -F` reads them. */
  readonly configDump: string;
}
