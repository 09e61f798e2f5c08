import type { Fd, Gpa, Gsi, Width } from "./units.ts";

/**
 * A wire to the interrupt controller: a level that devices raise and lower. Edge-triggered pins see the rising edge.
 */
export interface InterruptLine {
  readonly name: string;
  readonly gsi: Gsi;
  setLevel(isHigh: boolean): void;
}

/** What a message-signalled interrupt writes, and where. PCI Local Bus 3.0 §6.8 */
export interface MsiMessage {
  readonly addressLow: number;
  readonly addressHigh: number;
  readonly data: number;
}

export function isSameMessage(a: MsiMessage | undefined, b: MsiMessage): boolean {
  return a?.data === b.data && a.addressLow === b.addressLow && a.addressHigh === b.addressHigh;
}

/**
 * One vector's way from an eventfd to a local APIC. It starts masked and without a message.
 *
 * Unmasked: a write to `eventFd`, ours by {@link signal} or the host kernel's, becomes an interrupt without any thread
 * of ours. Masked: the eventfd is ours to watch; a signal makes {@link isPending} true and is delivered once at
 * {@link unmask}. Only the device thread may call it.
 */
export interface MsiRoute {
  readonly name: string;
  readonly isMasked: boolean;
  readonly isPending: boolean;
  /**
   * The eventfd behind the route, for VFIO_DEVICE_SET_IRQS. It stays the same until {@link release}. -1 where the host
   * has none left.
   */
  readonly eventFd: Fd;
  setMessage(message: MsiMessage): void;
  mask(): void;
  unmask(): void;
  /** Signals `eventFd`; for our own devices, which share it with no other process. */
  signal(): void;
  /** Does the same past the eventfd: for one that another process holds, which can make a write to it block. */
  inject(): void;
  /** Gives the GSI and the eventfd back; the route may not be used afterwards. */
  release(): void;
}

/** An eventfd to hand on: a counter that a device, KVM or another process raises. */
export interface EventDescriptor extends Disposable {
  /** -1 after {@link close}. */
  readonly fd: Fd;
  /** Calling it twice is harmless. Close watches on it first. */
  close(): void;
}

/** Hands out routes; owns the table that KVM_SET_GSI_ROUTING replaces as a whole. */
export interface MsiRouter {
  /**
   * Routes take a GSI lazily, at the first unmask; a route that finds none left, or no eventfd, stays silent and is
   * reported once.
   */
  allocate(name: string): MsiRoute;
  /** Runs `work` and pushes the table once afterwards, however many routes it changed. Nests. */
  batch(work: () => void): void;
}

/** A guest write that becomes an event instead of an exit. */
export interface Doorbell {
  unregister(): void;
}

/** Registers doorbells: KVM ioeventfds in a machine, a bus range in tests. */
export interface Doorbells {
  /**
   * Calls `onRing` on the device thread after a guest write of any value to `address` (MMIO).
   *
   * @param width Bytes the write must have; 0 for any width.
   * @throws HostError when there is no room for more; the write traps then.
   */
  register(address: Gpa, width: Width | 0, onRing: () => void): Doorbell;
}

/** Level-triggered pins driven by eventfds, for INTx of passed-through functions. */
export interface ResampledLines {
  /**
   * A write to `trigger` raises the pin; when the guest has handled it (EOI) KVM lowers the pin and writes `resample`.
   *
   * @returns Undoes it.
   */
  connect(line: Gsi, trigger: Fd, resample: Fd): { disconnect(): void };
}

/** Watches descriptors on the device thread (epoll). */
export interface FdWatcher {
  /** Calls `onReady` on the device thread whenever `fd` is ready, level-triggered, until {@link FdWatch.close}. */
  watch(
    fd: Fd,
    interest: "input" | "output" | "both",
    onReady: (isReadable: boolean, isWritable: boolean) => void,
  ): FdWatch;
}

/**
 * The same, edge-triggered: for eventfds that are never read, and listening sockets whose connections are all taken in
 * one go.
 */
export interface RingWatcher {
  /** Calls `onRing` on the device thread once for all signals since the last call, until {@link FdWatch.close}. */
  watchRings(fd: Fd, onRing: () => void): FdWatch;
}

/**
 * Counts the turns of the device thread's loop: what finds the same figure twice has kept everything else waiting in
 * between.
 */
export interface TurnCounter {
  readonly turns: number;
}

/** One watched descriptor. Closing the watch does not close the descriptor. */
export interface FdWatch {
  setInterest(interest: "input" | "output" | "both" | "none"): void;
  close(): void;
}
