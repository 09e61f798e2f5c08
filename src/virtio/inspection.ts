import type { QueueIndices, VirtqueueAddresses } from "./queue.ts";

/** One queue as the driver has set it up; plain data. */
export interface QueueInspection {
  readonly index: number;
  /** Descriptors. */
  readonly size: number;
  readonly maxSize: number;
  readonly isEnabled: boolean;
  /** MSI-X vector of its interrupts; absent for none. */
  readonly vector: number | undefined;
  /** Guest-physical addresses of the three parts; absent where one is beyond every address space. */
  readonly addresses?: VirtqueueAddresses;
  /** While the driver has the device running. */
  readonly indices?: QueueIndices;
}

/** How far the driver has come with a device; plain data. VIRTIO 1.2 §2.1, §2.2 */
export interface CommonInspection {
  /** Bits of the device status. */
  readonly status: number;
  /** Feature bits as a hexadecimal number of 64 bits, "0x130000000". */
  readonly offeredFeatures: string;
  readonly driverFeatures: string;
  /** MSI-X vector of configuration changes; absent for none. */
  readonly configVector: number | undefined;
  readonly queues: readonly QueueInspection[];
}

/** A virtio function as driver and device have it; plain data. */
export interface VirtioInspection extends CommonInspection {
  /** VIRTIO 1.2 §5: 2 block, 3 console, 4 entropy. */
  readonly deviceId: number;
  /** ISR status, which a read by the guest clears. */
  readonly isr: number;
}
