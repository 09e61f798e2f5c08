import { allOnes, type Halves, hex, type Width } from "./units.ts";

/**
 * Something that answers reads and writes at offsets from its own start. One type serves ports, MMIO and PCI
 * configuration space.
 *
 * `value` and results are unsigned and fit in `width` bytes. Neither method throws because of what the guest asked.
 */
export interface BusDevice {
  readonly name: string;
  read(offset: number, width: Width): number;
  write(offset: number, width: Width, value: number): void;
  /** Eight bytes in one piece. A device without this gets two accesses of four, the low half first. */
  readWide?(offset: number): Halves;
  writeWide?(offset: number, value: Halves): void;
  /**
   * What is at an offset, in the words of the specification: `LSR`. Text for logs and traces; `undefined` where it has
   * no name.
   */
  describe?(offset: number): string | undefined;
}

/** A device's claim on a range of a bus. */
export interface BusRange {
  readonly base: number;
  readonly sizeBytes: number;
  readonly device: BusDevice;
}

/** The same, with the count of its accesses so far. */
export interface CountedRange extends BusRange {
  readonly accesses: number;
}

interface MutableRange extends CountedRange {
  accesses: number;
}

/** Called for unclaimed accesses, so that a log or a trace can name them. */
export type UnclaimedAccess = (bus: string, address: number, width: Width, value: number | undefined) => void;

/**
 * Ranges of addresses and the devices behind them; the whole decoding a machine needs outside RAM.
 *
 * Ranges never overlap. An access that starts in one range and ends outside it is done byte by byte, as a bridge would
 * split it. Only the device thread may call it.
 */
export class Bus {
  readonly name: string;
  readonly #ranges: MutableRange[] = []; // sorted by base
  readonly #pastAccesses = new Map<string, number>(); // of ranges that were detached, by device
  readonly #unclaimed: UnclaimedAccess | undefined;
  #last: MutableRange | undefined; // accesses come in runs on one device

  constructor(name: string, unclaimed?: UnclaimedAccess) {
    this.name = name;
    this.#unclaimed = unclaimed;
  }

  /** The ranges in address order. */
  get ranges(): readonly CountedRange[] {
    return this.#ranges;
  }

  /** The range that overlaps `[base, base + sizeBytes)`, or `undefined` when it is free. */
  holder(base: number, sizeBytes: number): BusRange | undefined {
    return this.#ranges.find((range) => base < range.base + range.sizeBytes && range.base < base + sizeBytes);
  }

  /**
   * Puts a device on the bus.
   *
   * @throws RangeError when part of the range is taken or the range is empty. Ask {@link holder} first where the guest
   *   chose the address.
   */
  attach(base: number, sizeBytes: number, device: BusDevice): BusRange {
    if (!(sizeBytes > 0) || !(base >= 0)) {
      throw new RangeError(
        `Cannot attach ${device.name} to the ${this.name} bus: range ${hex(base)}+${hex(sizeBytes)} is empty`,
      );
    }
    const holder = this.holder(base, sizeBytes);
    if (holder !== undefined) {
      throw new RangeError(
        `Cannot attach ${device.name} to the ${this.name} bus at ${hex(base)}: ${holder.device.name} is there`,
      );
    }
    const range: MutableRange = { base, sizeBytes, device, accesses: 0 };
    const index = this.#ranges.findIndex((other) => other.base > base);
    this.#ranges.splice(index < 0 ? this.#ranges.length : index, 0, range);
    return range;
  }

  /** Takes a range off the bus; one that is not there is ignored. */
  detach(range: BusRange): void {
    const ranges: readonly BusRange[] = this.#ranges;
    const index = ranges.indexOf(range);
    const [held] = index >= 0 ? this.#ranges.splice(index, 1) : [];
    if (held !== undefined) addTo(this.#pastAccesses, held);
    if (this.#last === range) this.#last = undefined;
  }

  /** How often each device was accessed, by name, since the bus was made. */
  accesses(): ReadonlyMap<string, number> {
    const sum = new Map(this.#pastAccesses);
    for (const range of this.#ranges) addTo(sum, range);
    return sum;
  }

  /** What is at an address, as text: `COM1 LSR`, `nvme0 BAR 0 +0x1c`, `no device`. */
  describe(address: number): string {
    const range = this.#find(address);
    if (range === undefined) return "no device";
    const { device, base } = range;
    return `${device.name} ${device.describe?.(address - base) ?? `+${hex(address - base)}`}`;
  }

  /** The range that holds `address`. */
  find(address: number): BusRange | undefined {
    return this.#find(address);
  }

  #find(address: number): MutableRange | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.base && address < last.base + last.sizeBytes) return last;
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const range = this.#ranges[middle];
      if (range === undefined) return undefined;
      if (address < range.base) high = middle;
      else if (address >= range.base + range.sizeBytes) low = middle + 1;
      else {
        this.#last = range;
        return range;
      }
    }
    return undefined;
  }

  /** Reads; all ones where no device answers. */
  read(address: number, width: Width): number {
    const range = this.#find(address);
    if (range !== undefined && address + width <= range.base + range.sizeBytes) {
      range.accesses++;
      return range.device.read(address - range.base, width) >>> 0;
    }
    if (width === 1 || this.holder(address, width) === undefined) {
      this.#unclaimed?.(this.name, address, width, undefined);
      return allOnes(width);
    }
    let value = 0;
    for (let byte = 0; byte < width; byte++) value += this.read(address + byte, 1) * 2 ** (8 * byte);
    return value;
  }

  /** Writes; dropped where no device answers. */
  write(address: number, width: Width, value: number): void {
    const range = this.#find(address);
    if (range !== undefined && address + width <= range.base + range.sizeBytes) {
      range.accesses++;
      range.device.write(address - range.base, width, value);
      return;
    }
    if (width === 1 || this.holder(address, width) === undefined) {
      this.#unclaimed?.(this.name, address, width, value);
      return;
    }
    for (let byte = 0; byte < width; byte++) this.write(address + byte, 1, (value >>> (8 * byte)) & 0xff);
  }

  /** Reads eight bytes: in one piece where one device has them all and takes them so, else as two of four. */
  readWide(address: number): Halves {
    const range = this.#wideRange(address);
    if (range?.device.readWide === undefined) {
      const low = this.read(address, 4);
      return { low, high: this.read(address + 4, 4) };
    }
    range.accesses++;
    return range.device.readWide(address - range.base);
  }

  /** Writes eight bytes, as {@link readWide} reads them. */
  writeWide(address: number, value: Halves): void {
    const range = this.#wideRange(address);
    if (range?.device.writeWide === undefined) {
      this.write(address, 4, value.low);
      this.write(address + 4, 4, value.high);
      return;
    }
    range.accesses++;
    range.device.writeWide(address - range.base, value);
  }

  #wideRange(address: number): MutableRange | undefined {
    const range = this.#find(address);
    return range !== undefined && address + 8 <= range.base + range.sizeBytes ? range : undefined;
  }
}

function addTo(counts: Map<string, number>, range: MutableRange): void {
  const { name } = range.device;
  if (range.accesses > 0) counts.set(name, (counts.get(name) ?? 0) + range.accesses);
}
