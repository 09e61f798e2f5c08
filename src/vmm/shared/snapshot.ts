import type { RouteState } from "../../kvm/irq-routing.ts";
import type { MemorySlot } from "../../kvm/memory-slots.ts";
import type { RoutingEntry } from "../../kvm/routing-table.ts";
import type { HiddenCapability } from "../../passthrough/config-policy.ts";
import type { FunctionVectors } from "../../pci/vectors.ts";
import type { VirtioInspection } from "../../virtio/inspection.ts";
import type { CharSpec, DiskSpec } from "../spec/spec.ts";
import type { PlanBar, PlanRange } from "./plan.ts";
import type { ExitKind } from "./vcpu-control.ts";

export type { VectorInspection, VectorsInspection } from "../../pci/vectors.ts";
export type { CommonInspection, QueueInspection } from "../../virtio/inspection.ts";
export type { QueueIndices, VirtqueueAddresses } from "../../virtio/queue.ts";
export type { FunctionVectors, HiddenCapability, MemorySlot, RouteState, RoutingEntry, VirtioInspection };

/*
 * A machine as it is at one moment, for inspectors: plain data, so that it crosses threads and can be stored. Taking it
 * changes nothing and asks no device. Addresses are guest-physical, or port numbers.
 */

/** A stretch of a BAR, in bytes from its start. */
export interface SnapshotArea {
  readonly offset: number;
  readonly sizeBytes: number;
}

/** One BAR as the guest has it. */
export interface BarSnapshot {
  /** 0 to 5; 6 is the expansion ROM. */
  readonly index: number;
  readonly kind: PlanBar["kind"];
  readonly sizeBytes: number;
  /** What the register says, decoded or not; absent above 2^53. */
  readonly address?: number;
  /** Whether the function answers there now: decode is on and the place is free. */
  readonly isDecoded: boolean;
  /** Pieces that are memory slots now: the guest reaches them without an exit. */
  readonly slots: readonly SnapshotArea[];
  /** Pieces that exit, wherever the BAR is, and why. */
  readonly trapped: readonly (SnapshotArea & { readonly reason: string })[];
}

/** One capability in a function's list. */
export interface CapabilitySnapshot {
  readonly id: number;
  /** "MSI-X"; "capability 0x1e" where it has no name here. */
  readonly name: string;
  readonly offset: number;
  /** Beyond the first 256 bytes. */
  readonly isExtended: boolean;
}

/** What the host does for a passed-through function, and what it has told of it. */
export interface PassthroughSnapshot {
  /** On the host: "0000:01:00.0"; "vfio-user /run/nic.sock" for a device of another process. */
  readonly name: string;
  readonly interrupts: {
    /** What is on at the host. */
    readonly kind: "intx" | "msi" | "msix" | "none";
    /** Vectors that can arrive now; 1 for INTx. */
    readonly armed: number;
    /**
     * Interrupts that were repeated in case one was lost. A host before Linux 6.5 disarms a function's vectors for a
     * moment when their number grows.
     */
    readonly repeated: number;
  };
  /** Vectors whose eventfd the host signals; empty for INTx. */
  readonly armedVectors: readonly number[];
  readonly hiddenCapabilities: readonly HiddenCapability[];
  /** Guest accesses to configuration space that went on to the device. */
  readonly forwardedConfigAccesses: number;
  /** ERR events of the host. */
  readonly errors: number;
  /** REQ events of the host. */
  readonly requests: number;
}

/** A PCI function in its slot. */
export interface FunctionSnapshot {
  /** As the guest sees it: "00:03.0". */
  readonly bdf: string;
  readonly name: string;
  /** Of a passed-through function or device of another process, in the specification. */
  readonly id?: string;
  readonly vendorId: number;
  readonly deviceId: number;
  /** 24 bits: base class, sub-class, programming interface. */
  readonly classCode: number;
  readonly revision: number;
  readonly bars: readonly BarSnapshot[];
  /**
   * Configuration space, 256 or 4096 bytes. Registers that live in a passed-through device are as the guest has read
   * them last; windows to other registers show nothing.
   */
  readonly config: Uint8Array;
  readonly capabilities: readonly CapabilitySnapshot[];
  /** The pin, 1 (INTA) to 4, and where it leads; absent for functions without one. */
  readonly intx?: { readonly pin: number; readonly gsi: number };
  /** A vector's `route` is the name of one of {@link WiresSnapshot.routes}. */
  readonly vectors: FunctionVectors;
  /** Status, features and queues of a virtio function. */
  readonly virtio?: VirtioInspection;
  /** What the host does for a passed-through function, its BARs left out. */
  readonly passthrough?: PassthroughSnapshot;
}

/** A range of a bus. */
export interface BusRangeSnapshot extends PlanRange {
  /** Accesses that it answered since it is there. */
  readonly accesses: number;
}

/** What KVM has been told of memory and interrupts. */
export interface WiresSnapshot {
  readonly slots: readonly MemorySlot[];
  /** Every vector's way to the guest, by name. */
  readonly routes: readonly RouteState[];
  /** KVM's table of interrupts. */
  readonly routing: readonly RoutingEntry[];
  /** Addresses whose writes do not exit. `width`: bytes a write must have, 0 for any. */
  readonly ioeventfds: readonly { readonly address: number; readonly width: number; readonly what: string }[];
  /** Ends of pins that devices of this program hold. */
  readonly lines: readonly { readonly name: string; readonly gsi: number; readonly isUp: boolean }[];
  /** Pins that passed-through devices drive without this program, an entry for each device. */
  readonly drivenPins: readonly number[];
}

/** A character device and where it goes. */
export interface CharSnapshot {
  readonly channel: "serial" | "console";
  readonly kind: CharSpec["kind"];
  /** Of a file, socket or pty. */
  readonly path?: string;
}

/** A disk. */
export interface DiskSnapshot extends DiskSpec {
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  readonly supportsDiscard: boolean;
}

/** What the device thread knows. */
export interface DeviceSnapshot extends WiresSnapshot {
  readonly functions: readonly FunctionSnapshot[];
  readonly ports: readonly BusRangeSnapshot[];
  readonly mmio: readonly BusRangeSnapshot[];
  readonly characters: readonly CharSnapshot[];
  readonly disks: readonly DiskSnapshot[];
}

/** A machine at one moment. vCPUs go on meanwhile: their counters are as of the answer's arrival. */
export interface MachineSnapshot extends DeviceSnapshot {
  /** By number: exits to this program since the start, over all resets, by kind. */
  readonly vcpus: readonly { readonly exits: Readonly<Record<ExitKind, number>> }[];
  readonly resets: number;
}
