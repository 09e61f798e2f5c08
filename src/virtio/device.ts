import type { Width } from "../base/units.ts";
import type { Virtqueue } from "./queue.ts";

/** Feature bits of the ring and the transport, as masks. VIRTIO 1.2 §6 */
export const VIRTIO_F_INDIRECT_DESC: bigint = 1n << 28n;
export const VIRTIO_F_EVENT_IDX: bigint = 1n << 29n;
export const VIRTIO_F_VERSION_1: bigint = 1n << 32n;

/** What a device may ask of the transport that carries it. */
export interface VirtioTransport {
  /**
   * Configuration space reads differently now: the generation counts up and a driver that runs is interrupted. VIRTIO
   * 1.2 §2.5
   */
  configChanged(): void;
  /**
   * Reports guest misbehaviour. Each text goes out once, so it holds no numbers of the guest's choosing; those go in
   * `details`.
   */
  misbehaved(text: string, details?: Readonly<Record<string, unknown>>): void;
  /** Runs work in the device thread's next turn, in order; at once where there are no turns. */
  defer(work: () => void): void;
}

/**
 * A virtio device without its transport: what it is, what it offers, what it does with queues. VIRTIO 1.2 §2
 *
 * Lifecycle: `attach` once, then pairs of `activate` (DRIVER_OK) and `reset`, then `close` at the end of a power cycle.
 * Queues belong to one activation and die with it, so a request that completes late finds its own queue dead and
 * touches nothing. Only the device thread calls it, and nothing here throws because of what the guest did.
 */
export interface VirtioDevice {
  readonly name: string;
  /** VIRTIO 1.2 §5: 2 block, 3 console, 4 entropy. */
  readonly deviceId: number;
  /** PCI class, subclass and programming interface, 24 bits. PCI Code and ID Assignment 1.11 §1 */
  readonly classCode: number;
  /** The device's own feature bits; the transport adds those of the ring. */
  readonly features: bigint;
  /** Most descriptors each queue may have, a power of two. */
  readonly queueSizes: readonly number[];
  /** Size of the device-specific configuration, in bytes; 0 for none. */
  readonly configSizeBytes: number;
  /** True while a backend works on requests, also on those of an activation that a reset has ended. */
  readonly isBusy: boolean;

  attach(transport: VirtioTransport): void;
  readConfig(offset: number, width: Width): number;
  writeConfig(offset: number, width: Width, value: number): void;
  /** @param queues By index; `undefined` where the driver left a queue disabled. */
  activate(queues: readonly (Virtqueue | undefined)[], driverFeatures: bigint): void;
  /** The driver may have made chains available in this queue. Not called between `reset` and `activate`. */
  queueNotified(index: number): void;
  reset(): void;
  close(): void;
}
