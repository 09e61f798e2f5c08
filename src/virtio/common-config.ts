import type { GuestMemory } from "../base/guest-memory.ts";
import { RegisterBank, type RegisterHandler } from "../base/registers.ts";
import { type Gpa, gpaFromHalves, hex, TWO_POW_32 } from "../base/units.ts";
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_VERSION_1,
  type VirtioDevice,
  type VirtioTransport,
} from "./device.ts";
import type { CommonInspection, QueueInspection } from "./inspection.ts";
import { checkQueueAddresses, Virtqueue, type VirtqueueAddresses } from "./queue.ts";

// Device status, as masks. VIRTIO 1.2 §2.1
const STATUS_ACKNOWLEDGE = 0x01;
const STATUS_DRIVER = 0x02;
const STATUS_DRIVER_OK = 0x04;
const STATUS_FEATURES_OK = 0x08;
const STATUS_NEEDS_RESET = 0x40;
const STATUS_FAILED = 0x80;
const STATUS_OF_DRIVER = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK | STATUS_FEATURES_OK | STATUS_FAILED;

/** What a vector register holds when events are not to interrupt. VIRTIO 1.2 §4.1.5.1.2 */
export const VIRTIO_MSI_NO_VECTOR = 0xffff;

type CommonRegister =
  | "device_feature_select"
  | "device_feature"
  | "driver_feature_select"
  | "driver_feature"
  | "config_msix_vector"
  | "num_queues"
  | "device_status"
  | "config_generation"
  | "queue_select"
  | "queue_size"
  | "queue_msix_vector"
  | "queue_enable"
  | "queue_notify_off"
  | QueueAddressRegister;
type QueueAddressRegister =
  | "queue_desc_lo"
  | "queue_desc_hi"
  | "queue_driver_lo"
  | "queue_driver_hi"
  | "queue_device_lo"
  | "queue_device_hi";

/** struct virtio_pci_common_cfg; its last two fields belong to features that are not offered. VIRTIO 1.2 §4.1.4.3 */
export const COMMON_CONFIG: RegisterBank<CommonRegister> = new RegisterBank("virtio_pci_common_cfg", 0x38, [
  [0x00, 4, "device_feature_select", "rw"],
  [0x04, 4, "device_feature", "ro"],
  [0x08, 4, "driver_feature_select", "rw"],
  [0x0c, 4, "driver_feature", "rw"],
  [0x10, 2, "config_msix_vector", "rw"],
  [0x12, 2, "num_queues", "ro"],
  [0x14, 1, "device_status", "rw"],
  [0x15, 1, "config_generation", "ro"],
  [0x16, 2, "queue_select", "rw"],
  [0x18, 2, "queue_size", "rw"],
  [0x1a, 2, "queue_msix_vector", "rw"],
  [0x1c, 2, "queue_enable", "rw"],
  [0x1e, 2, "queue_notify_off", "ro"],
  [0x20, 4, "queue_desc_lo", "rw"],
  [0x24, 4, "queue_desc_hi", "rw"],
  [0x28, 4, "queue_driver_lo", "rw"],
  [0x2c, 4, "queue_driver_hi", "rw"],
  [0x30, 4, "queue_device_lo", "rw"],
  [0x34, 4, "queue_device_hi", "rw"],
]);

/** What the driver wrote about one queue. */
interface QueueRegisters {
  readonly maxSize: number;
  size: number;
  vector: number;
  isEnabled: boolean;
  readonly addresses: Record<QueueAddressRegister, number>;
}

function newQueueRegisters(maxSize: number): QueueRegisters {
  return {
    maxSize,
    size: maxSize,
    vector: VIRTIO_MSI_NO_VECTOR,
    isEnabled: false,
    addresses: {
      queue_desc_lo: 0,
      queue_desc_hi: 0,
      queue_driver_lo: 0,
      queue_driver_hi: 0,
      queue_device_lo: 0,
      queue_device_hi: 0,
    },
  };
}

const vectorOf = (register: number): number | undefined => (register === VIRTIO_MSI_NO_VECTOR ? undefined : register);

/** What the negotiation needs of the function around it. */
export interface CommonConfigOptions {
  readonly device: VirtioDevice;
  readonly memory: GuestMemory;
  /** Vectors there are; a driver that asks for another gets {@link VIRTIO_MSI_NO_VECTOR}. */
  readonly vectorCount: number;
  readonly interrupt: (kind: "queue" | "config", vector: number) => void;
  /** The driver reset the device: nothing is to interrupt it any more. */
  readonly wasReset: () => void;
  readonly misbehaved: (text: string, details?: Readonly<Record<string, unknown>>) => void;
  readonly defer?: ((work: () => void) => void) | undefined;
}

/**
 * The driver's side of a device: status, features, queues. VIRTIO 1.2 §3.1
 *
 * - 0 → ACKNOWLEDGE → DRIVER → FEATURES_OK (refused if the features do not fit) → DRIVER_OK: queues start
 * - any → write 0 → 0: queues stop
 * - a broken rule → NEEDS_RESET: queues stop, with a configuration interrupt
 */
export class CommonConfig implements RegisterHandler<CommonRegister>, VirtioTransport {
  readonly #options: CommonConfigOptions;
  readonly #device: VirtioDevice;
  readonly #offered: bigint;
  #deviceFeatureSelect = 0;
  #driverFeatureSelect = 0;
  readonly #driverFeatures: [low: number, high: number] = [0, 0];
  #configVector = VIRTIO_MSI_NO_VECTOR;
  #status = 0;
  #statusBeforeReset = 0;
  #generation = 0;
  #queueSelect = 0;
  #registers: readonly QueueRegisters[];
  #queues: readonly (Virtqueue | undefined)[] = [];

  constructor(options: CommonConfigOptions) {
    this.#options = options;
    this.#device = options.device;
    this.#offered = options.device.features | VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC;
    this.#registers = options.device.queueSizes.map(newQueueRegisters);
    options.device.attach(this);
  }

  /** A guest's notification of a queue; one that comes too early or for no queue is dropped. */
  notify(index: number): void {
    if (this.#queues[index]?.isLive === true) this.#device.queueNotified(index);
  }

  configChanged(): void {
    this.#generation = (this.#generation + 1) & 0xff;
    if ((this.#status & STATUS_DRIVER_OK) !== 0) this.#options.interrupt("config", this.#configVector);
  }

  misbehaved(text: string, details?: Readonly<Record<string, unknown>>): void {
    this.#options.misbehaved(text, details);
  }

  defer(work: () => void): void {
    if (this.#options.defer === undefined) work();
    else this.#options.defer(work);
  }

  /** What the driver's write of 0 to the status does, and the function's own reset. VIRTIO 1.2 §2.4 */
  reset(): void {
    if (this.#status !== 0) this.#statusBeforeReset = this.#status;
    this.#closeQueues();
    this.#device.reset();
    this.#deviceFeatureSelect = 0;
    this.#driverFeatureSelect = 0;
    this.#driverFeatures.fill(0);
    this.#configVector = VIRTIO_MSI_NO_VECTOR;
    this.#status = 0;
    this.#queueSelect = 0;
    this.#registers = this.#device.queueSizes.map(newQueueRegisters);
    this.#options.wasReset();
  }

  /** How far driver and device have come; plain data. */
  inspect(): CommonInspection {
    return {
      status: this.#status,
      offeredFeatures: hex(this.#offered),
      driverFeatures: hex(this.#features),
      configVector: vectorOf(this.#configVector),
      queues: this.#registers.map((registers, index): QueueInspection => {
        const addresses = addressesOf(registers);
        const indices = this.#queues[index]?.inspect();
        return {
          index,
          size: registers.size,
          maxSize: registers.maxSize,
          isEnabled: registers.isEnabled,
          vector: vectorOf(registers.vector),
          ...(addresses === undefined ? {} : { addresses }),
          ...(indices === undefined ? {} : { indices }),
        };
      }),
    };
  }

  readRegister(name: CommonRegister): number {
    const queue = this.#registers[this.#queueSelect];
    switch (name) {
      case "device_feature_select":
        return this.#deviceFeatureSelect;
      case "device_feature":
        if (this.#deviceFeatureSelect > 1) return 0;
        return Number(BigInt.asUintN(32, this.#offered >> BigInt(32 * this.#deviceFeatureSelect)));
      case "driver_feature_select":
        return this.#driverFeatureSelect;
      case "driver_feature":
        return this.#driverFeatures[this.#driverFeatureSelect] ?? 0;
      case "config_msix_vector":
        return this.#configVector;
      case "num_queues":
        return this.#registers.length;
      case "device_status":
        // Not 0 while a backend still works on requests from before the reset: it may be writing to their memory. The
        // driver waits for 0 before it takes its memory back (§4.1.4.3.2). A driver that does not wait and goes on sees
        // its own bits.
        return this.#status === 0 && this.#device.isBusy ? this.#statusBeforeReset : this.#status;
      case "config_generation":
        return this.#generation;
      case "queue_select":
        return this.#queueSelect;
      case "queue_size": // 0: there is no such queue
        return queue?.size ?? 0;
      case "queue_msix_vector":
        return queue?.vector ?? VIRTIO_MSI_NO_VECTOR;
      case "queue_enable":
        return queue?.isEnabled === true ? 1 : 0;
      case "queue_notify_off":
        return queue === undefined ? 0 : this.#queueSelect;
      default:
        return queue?.addresses[name] ?? 0;
    }
  }

  writeRegister(name: CommonRegister, value: number): void {
    switch (name) {
      case "device_feature_select":
        this.#deviceFeatureSelect = value;
        return;
      case "driver_feature_select":
        this.#driverFeatureSelect = value;
        return;
      case "driver_feature":
        if ((this.#status & STATUS_FEATURES_OK) === 0 && this.#driverFeatureSelect <= 1) {
          this.#driverFeatures[this.#driverFeatureSelect] = value;
        }
        return;
      case "config_msix_vector":
        this.#configVector = this.#vector(value);
        return;
      case "device_status":
        this.#writeStatus(value);
        return;
      case "queue_select":
        this.#queueSelect = value;
        return;
      default:
        this.#writeQueueRegister(name, value);
    }
  }

  #writeQueueRegister(name: CommonRegister, value: number): void {
    const queue = this.#registers[this.#queueSelect];
    if (queue === undefined) return;
    if (name === "queue_msix_vector") {
      queue.vector = this.#vector(value);
      return;
    }
    if (queue.isEnabled) return; // the rest is settled until a reset
    switch (name) {
      case "queue_size":
        // Powers of two up to what was offered (§2.7); anything else is not a size.
        if (value > 0 && value <= queue.maxSize && (value & (value - 1)) === 0) queue.size = value;
        return;
      case "queue_enable":
        if (value === 1) this.#enable(queue);
        return;
      case "queue_desc_lo":
      case "queue_desc_hi":
      case "queue_driver_lo":
      case "queue_driver_hi":
      case "queue_device_lo":
      case "queue_device_hi":
        queue.addresses[name] = value;
        return;
    }
  }

  #enable(queue: QueueRegisters): void {
    if ((this.#status & STATUS_DRIVER_OK) !== 0) {
      this.#options.misbehaved("a queue was enabled after DRIVER_OK");
      return;
    }
    const addresses = addressesOf(queue);
    const trouble =
      addresses === undefined
        ? "a queue address is beyond every address space"
        : checkQueueAddresses(this.#options.memory, queue.size, addresses);
    if (trouble === undefined) queue.isEnabled = true;
    else this.#needsReset(trouble);
  }

  /** A vector that is not there is answered by NO_VECTOR, which the driver reads back. VIRTIO 1.2 §4.1.5.1.2.1 */
  #vector(value: number): number {
    return value < this.#options.vectorCount ? value : VIRTIO_MSI_NO_VECTOR;
  }

  #writeStatus(value: number): void {
    if (value === 0) {
      this.reset();
      return;
    }
    // Bits are only added; NEEDS_RESET is ours (§2.1.1).
    let added = value & STATUS_OF_DRIVER & ~this.#status;
    if ((added & STATUS_FEATURES_OK) !== 0 && !this.#areFeaturesFine()) added &= ~STATUS_FEATURES_OK;
    if ((added & STATUS_DRIVER_OK) !== 0) {
      const isReady = ((this.#status | added) & STATUS_FEATURES_OK) !== 0;
      if (!isReady) this.#options.misbehaved("the driver set DRIVER_OK without FEATURES_OK");
      if (!isReady || (this.#status & STATUS_NEEDS_RESET) !== 0) added &= ~STATUS_DRIVER_OK;
    }
    this.#status |= added;
    if ((added & STATUS_DRIVER_OK) !== 0) this.#activate();
  }

  #areFeaturesFine(): boolean {
    const features = this.#features;
    if ((features & VIRTIO_F_VERSION_1) === 0n) {
      this.#options.misbehaved("the driver does not accept VIRTIO_F_VERSION_1");
      return false;
    }
    if ((features & ~this.#offered) !== 0n) {
      this.#options.misbehaved("the driver accepts features that were not offered", {
        features: hex(features),
        offered: hex(this.#offered),
      });
      return false;
    }
    return true;
  }

  get #features(): bigint {
    const [low, high] = this.#driverFeatures;
    return BigInt(high) * BigInt(TWO_POW_32) + BigInt(low);
  }

  #activate(): void {
    const features = this.#features;
    this.#queues = this.#registers.map((registers) => {
      const addresses = addressesOf(registers);
      if (!registers.isEnabled || addresses === undefined) return undefined;
      return new Virtqueue({
        memory: this.#options.memory,
        size: registers.size,
        maxChainLength: registers.maxSize,
        addresses,
        hasEventIndex: (features & VIRTIO_F_EVENT_IDX) !== 0n,
        hasIndirect: (features & VIRTIO_F_INDIRECT_DESC) !== 0n,
        interrupt: () => this.#options.interrupt("queue", registers.vector),
        failed: (reason) => this.#needsReset(reason),
        defer: this.#options.defer,
      });
    });
    this.#device.activate(this.#queues, features);
    // Chains made available before DRIVER_OK come without a notification.
    for (let index = 0; index < this.#queues.length; index++) this.notify(index);
  }

  /** Stops the device until the driver resets it. VIRTIO 1.2 §2.1.2 */
  #needsReset(reason: string): void {
    this.#options.misbehaved(`it needs a reset: ${reason}`);
    this.#closeQueues();
    this.#status |= STATUS_NEEDS_RESET;
    if ((this.#status & STATUS_DRIVER_OK) !== 0) this.#options.interrupt("config", this.#configVector);
  }

  #closeQueues(): void {
    for (const queue of this.#queues) queue?.close();
    this.#queues = [];
  }
}

function addressesOf({ addresses }: QueueRegisters): VirtqueueAddresses | undefined {
  const descriptors: Gpa | undefined = gpaFromHalves(addresses.queue_desc_lo, addresses.queue_desc_hi);
  const available: Gpa | undefined = gpaFromHalves(addresses.queue_driver_lo, addresses.queue_driver_hi);
  const used: Gpa | undefined = gpaFromHalves(addresses.queue_device_lo, addresses.queue_device_hi);
  if (descriptors === undefined || available === undefined || used === undefined) return undefined;
  return { descriptors, available, used };
}
