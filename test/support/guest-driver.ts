import { gpa, type Width } from "../../src/base/units.ts";
import type { BarIndex, PciFunction } from "../../src/pci/function.ts";
import type { FakeDoorbells } from "./fake-doorbells.ts";
import type { FakeGuestMemory } from "./fake-memory.ts";
import type { FakeMsiRouter } from "./fake-msi-router.ts";

/** A buffer as a driver describes it. */
export interface DriverBuffer {
  readonly address: number;
  readonly sizeBytes: number;
  readonly isWritable?: boolean;
}

/** One entry of a descriptor table, field by field, for chains that no good driver would make. */
export interface RawDescriptor {
  readonly address: number;
  readonly sizeBytes: number;
  readonly flags: number;
  readonly next?: number;
}

/** What stands in the used ring for one chain. */
export interface UsedElement {
  readonly id: number;
  readonly writtenBytes: number;
}

/** A structure's place, from its capability. VIRTIO 1.2 §4.1.4 */
interface Place {
  readonly bar: BarIndex;
  readonly offset: number;
  readonly length: number;
}

/** The world around the function. */
export interface DriverWorld {
  readonly memory: FakeGuestMemory;
  readonly router: FakeMsiRouter;
  readonly doorbells: FakeDoorbells;
}

/** Where the driver lets BAR 0 answer. */
export const BAR_ADDRESS = 0x1_8000_0000;

/**
 * Plays the guest's virtio-pci driver: finds the structures by their capabilities, negotiates, lays queues out in fake
 * memory and counts interrupts. Everything goes through configuration space, BAR accesses and doorbells, as in a guest.
 * VIRTIO 1.2 §3.1, §4.1
 */
export class GuestDriver {
  readonly memory: FakeGuestMemory;
  readonly #function: PciFunction;
  readonly #router: FakeMsiRouter;
  readonly #doorbells: FakeDoorbells;
  readonly #places = new Map<number, Place>();
  #notifyMultiplier = 0;
  #nextFree = 0x1000;

  constructor(pciFunction: PciFunction, { memory, router, doorbells }: DriverWorld) {
    this.#function = pciFunction;
    this.memory = memory;
    this.#router = router;
    this.#doorbells = doorbells;
    for (const at of this.capabilities(0x09)) {
      const kind = this.config(at + 3, 1);
      // Cast: the register holds a BAR index; a wrong one makes the test fail.
      const bar = this.config(at + 4, 1) as BarIndex;
      this.#places.set(kind, { bar, offset: this.config(at + 8, 4), length: this.config(at + 12, 4) });
      if (kind === 2) this.#notifyMultiplier = this.config(at + 16, 4);
    }
    this.#function.barPlaced(0, gpa(BAR_ADDRESS));
  }

  // Configuration space and structures

  config(offset: number, width: Width): number {
    return this.#function.config.read(offset, width);
  }

  setConfig(offset: number, width: Width, value: number): void {
    this.#function.config.write(offset, width, value);
  }

  /** Offsets of the capabilities of one id, in list order. */
  capabilities(id: number): readonly number[] {
    const found: number[] = [];
    for (let at = this.config(0x34, 1); at !== 0; at = this.config(at + 1, 1)) {
      if (this.config(at, 1) === id) found.push(at);
    }
    return found;
  }

  /**
   * Where a structure is: 1 common, 2 notifications, 3 ISR, 4 device configuration. @throws Error when it is missing.
   */
  place(kind: number): Place {
    const place = this.#places.get(kind);
    if (place === undefined) throw new Error(`The function has no virtio structure ${kind}`);
    return place;
  }

  hasPlace(kind: number): boolean {
    return this.#places.has(kind);
  }

  read(kind: number, offset: number, width: Width): number {
    const place = this.place(kind);
    return this.#function.readBar(place.bar, place.offset + offset, width);
  }

  write(kind: number, offset: number, width: Width, value: number): void {
    const place = this.place(kind);
    this.#function.writeBar(place.bar, place.offset + offset, width, value);
  }

  get status(): number {
    return this.read(1, 0x14, 1);
  }

  set status(value: number) {
    this.write(1, 0x14, 1, value);
  }

  get isr(): number {
    return this.read(3, 0, 1);
  }

  // Negotiation

  offeredFeatures(): bigint {
    let features = 0n;
    for (const half of [0, 1]) {
      this.write(1, 0x00, 4, half);
      features |= BigInt(this.read(1, 0x04, 4)) << BigInt(32 * half);
    }
    return features;
  }

  /** Resets, says hello and accepts `features`; false when the device refuses them. */
  negotiate(features: bigint): boolean {
    this.status = 0;
    this.status = 1;
    this.status = 3;
    for (const half of [0, 1]) {
      this.write(1, 0x08, 4, half);
      this.write(1, 0x0c, 4, Number(BigInt.asUintN(32, features >> BigInt(32 * half))));
    }
    this.status = 0xb;
    return (this.status & 8) !== 0;
  }

  /** Switches MSI-X on with `count` vectors; vector `n` sends data 0x40 + n. */
  enableMsix(count: number): void {
    const at = this.capabilities(0x11)[0];
    if (at === undefined) throw new Error("The function has no MSI-X capability");
    const table = this.config(at + 4, 4);
    // Cast: as above.
    const bar = (table & 7) as BarIndex;
    for (let vector = 0; vector < count; vector++) {
      const entry = (table & ~7) + 16 * vector;
      this.#function.writeBar(bar, entry, 4, 0xfee0_0000);
      this.#function.writeBar(bar, entry + 4, 4, 0);
      this.#function.writeBar(bar, entry + 8, 4, 0x40 + vector);
      this.#function.writeBar(bar, entry + 12, 4, 0);
    }
    this.setConfig(at + 2, 2, 0x8000);
  }

  /** Messages that reached the guest for a vector of {@link enableMsix}. */
  interrupts(vector: number): number {
    return this.#router.deliveries.filter((delivery) => delivery.message.data === 0x40 + vector).length;
  }

  /** Lays queue `index` out and enables it. Vector `index + 1` is its own where MSI-X is on. */
  setUpQueue(index: number, options: { readonly size?: number; readonly hasEventIndex?: boolean } = {}): DriverQueue {
    this.write(1, 0x16, 2, index);
    if (options.size !== undefined) this.write(1, 0x18, 2, options.size);
    const size = this.read(1, 0x18, 2);
    const descriptors = this.allocate(16 * size, 16);
    const available = this.allocate(6 + 2 * size, 2);
    const used = this.allocate(6 + 8 * size, 4);
    this.write(1, 0x1a, 2, index + 1);
    this.setQueueAddresses(descriptors, available, used);
    this.write(1, 0x1c, 2, 1);
    const notifyOffset = this.read(1, 0x1e, 2) * this.#notifyMultiplier;
    return new DriverQueue(this, { size, descriptors, available, used, notifyOffset }, options.hasEventIndex === true);
  }

  /** Writes the three addresses of the selected queue. */
  setQueueAddresses(descriptors: number, available: number, used: number): void {
    [descriptors, available, used].forEach((address, part) => {
      this.write(1, 0x20 + 8 * part, 4, address >>> 0);
      this.write(1, 0x24 + 8 * part, 4, Math.floor(address / 2 ** 32));
    });
  }

  /**
   * The whole start: features (VERSION_1 is added), MSI-X, every queue, DRIVER_OK.
   *
   * @throws Error when the device refuses the features.
   */
  start(features = 0n, options: { readonly size?: number; readonly msix?: boolean } = {}): readonly DriverQueue[] {
    if (!this.negotiate(features | (1n << 32n))) throw new Error("The device refused the features");
    const count = this.read(1, 0x12, 2);
    if (options.msix !== false) this.enableMsix(count + 1);
    this.write(1, 0x10, 2, 0); // config_msix_vector
    const hasEventIndex = (features & (1n << 29n)) !== 0n;
    const queues = Array.from({ length: count }, (_, index) =>
      this.setUpQueue(index, { hasEventIndex, ...(options.size === undefined ? {} : { size: options.size }) }),
    );
    this.status = 0xf;
    return queues;
  }

  /** Zeroed memory for this caller alone; never released. */
  allocate(sizeBytes: number, alignment = 16): number {
    const address = Math.ceil(this.#nextFree / alignment) * alignment;
    this.#nextFree = address + sizeBytes;
    this.memory.bytes(address, sizeBytes).fill(0);
    return address;
  }

  /** The guest's write to a queue's notification address; traps when there is no doorbell. */
  ring(notifyOffset: number, value: number): void {
    const place = this.place(2);
    if (this.#doorbells.ring(BAR_ADDRESS + place.offset + notifyOffset, 2)) return;
    this.write(2, notifyOffset, 2, value);
  }
}

/** Where the driver put a queue. */
interface DriverQueueLayout {
  readonly size: number;
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
  readonly notifyOffset: number;
}

/** The driver's side of a split virtqueue. VIRTIO 1.2 §2.7 */
export class DriverQueue implements DriverQueueLayout {
  readonly size: number;
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
  readonly notifyOffset: number;
  readonly #driver: GuestDriver;
  readonly #hasEventIndex: boolean;
  readonly #free: number[];
  readonly #chains = new Map<number, readonly number[]>(); // descriptors by head
  #availableIndex = 0;
  #notifiedIndex = 0;
  #usedIndex = 0;

  constructor(driver: GuestDriver, layout: DriverQueueLayout, hasEventIndex: boolean) {
    this.size = layout.size;
    this.descriptors = layout.descriptors;
    this.available = layout.available;
    this.used = layout.used;
    this.notifyOffset = layout.notifyOffset;
    this.#driver = driver;
    this.#hasEventIndex = hasEventIndex;
    this.#free = Array.from({ length: layout.size }, (_, index) => layout.size - 1 - index);
  }

  /**
   * Makes a chain of buffers available without telling the device; its head. @throws Error when descriptors ran out.
   */
  add(buffers: readonly DriverBuffer[]): number {
    const indices = buffers.map(() => this.#takeFree());
    buffers.forEach((buffer, i) => {
      const next = indices[i + 1];
      const flags = (buffer.isWritable === true ? 2 : 0) | (next === undefined ? 0 : 1);
      this.describe(indices[i] ?? 0, { ...buffer, flags, next: next ?? 0 });
    });
    return this.#offerChain(indices);
  }

  /** The same through an indirect table. */
  addIndirect(buffers: readonly DriverBuffer[]): number {
    const table = this.#driver.allocate(16 * buffers.length);
    buffers.forEach((buffer, i) => {
      const flags = (buffer.isWritable === true ? 2 : 0) | (i + 1 < buffers.length ? 1 : 0);
      this.describe(i, { ...buffer, flags, next: i + 1 }, table);
    });
    const index = this.#takeFree();
    this.describe(index, { address: table, sizeBytes: 16 * buffers.length, flags: 4 });
    return this.#offerChain([index]);
  }

  /** Writes one descriptor as it is told, in the queue's table or another. */
  describe(
    index: number,
    { address, sizeBytes, flags, next = 0 }: RawDescriptor,
    table: number = this.descriptors,
  ): void {
    const { memory } = this.#driver;
    memory.writeU64(gpa(table + 16 * index), address);
    memory.writeU32(gpa(table + 16 * index + 8), sizeBytes);
    memory.writeU16(gpa(table + 16 * index + 12), flags);
    memory.writeU16(gpa(table + 16 * index + 14), next);
  }

  /** Puts a head in the available ring, whatever it is. */
  offer(head: number): void {
    this.#driver.memory.writeU16(gpa(this.available + 4 + 2 * (this.#availableIndex % this.size)), head);
    this.#availableIndex = (this.#availableIndex + 1) & 0xffff;
    this.setAvailableIndex(this.#availableIndex);
  }

  /** Writes the available ring's idx. */
  setAvailableIndex(index: number): void {
    this.#driver.memory.writeU16(gpa(this.available + 2), index);
  }

  /** Tells the device, whether or not it asked for it. */
  notify(): void {
    this.#notifiedIndex = this.#availableIndex;
    this.#driver.ring(this.notifyOffset, 0);
  }

  /** Tells the device if it asked to be told; whether it did. VIRTIO 1.2 §2.7.10 */
  kick(): boolean {
    const wants = this.wantsNotification();
    if (wants) this.notify();
    this.#notifiedIndex = this.#availableIndex;
    return wants;
  }

  wantsNotification(): boolean {
    const { memory } = this.#driver;
    if (this.#hasEventIndex) {
      const event = memory.readU16(gpa(this.used + 4 + 8 * this.size)) ?? 0;
      const added = (this.#availableIndex - this.#notifiedIndex) & 0xffff;
      return ((this.#availableIndex - event - 1) & 0xffff) < added;
    }
    return ((memory.readU16(gpa(this.used)) ?? 0) & 1) === 0;
  }

  /** Says after which completion to interrupt (VIRTIO_F_EVENT_IDX): when the used idx steps past `index`. */
  setUsedEvent(index: number): void {
    this.#driver.memory.writeU16(gpa(this.available + 4 + 2 * this.size), index);
  }

  /** Sets or clears VIRTQ_AVAIL_F_NO_INTERRUPT. */
  suppressInterrupts(isSuppressed: boolean): void {
    this.#driver.memory.writeU16(gpa(this.available), isSuppressed ? 1 : 0);
  }

  /** The used ring's idx, as the device shows it. */
  get usedIndex(): number {
    return this.#driver.memory.readU16(gpa(this.used + 2)) ?? 0;
  }

  /** Takes the next completion; `undefined` when there is none. */
  take(): UsedElement | undefined {
    const { memory } = this.#driver;
    if (this.usedIndex === this.#usedIndex) return undefined;
    const at = this.used + 4 + 8 * (this.#usedIndex % this.size);
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    const id = memory.readU32(gpa(at)) ?? 0;
    this.#free.push(...(this.#chains.get(id) ?? []));
    this.#chains.delete(id);
    return { id, writtenBytes: memory.readU32(gpa(at + 4)) ?? 0 };
  }

  #offerChain(indices: readonly number[]): number {
    const head = indices[0];
    if (head === undefined) throw new Error("A chain has at least one buffer");
    this.#chains.set(head, indices);
    this.offer(head);
    return head;
  }

  #takeFree(): number {
    const index = this.#free.pop();
    if (index === undefined) throw new Error("No descriptor is free");
    return index;
  }
}
