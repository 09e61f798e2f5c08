import type { BusDevice } from "../base/bus.ts";
import type { InterruptLine } from "../base/signals.ts";
import { allOnes, type Width } from "../base/units.ts";

/*
 * QEMU's pc-testdev (hw/misc/pc-testdev.c), the device that kvm-unit-tests is written for, and the output port of
 * `testdev`, which qemu-kvm had before it (hw/testdev.c).
 */

/** Ports of the scratch register; one more set of the same size is the same register. */
export const TESTDEV_SCRATCH_SIZE = 4;
export const TESTDEV_FLUSH_SIZE = 4;
/** A port for each interrupt line. */
export const TESTDEV_LINES = 24;
/** `IOMEM_LEN`, in bytes. */
export const TESTDEV_MEMORY_SIZE = 0x1_0000;
const PAGE_MASK = 0xffff_f000;

/** Bytes that keep what is written, in any width: the scratch register at its two places, and the memory. */
export class TestdevMemory implements BusDevice {
  readonly name: string;
  readonly #bytes: DataView;

  /** @param bytes Shared by all devices that are the same memory. */
  constructor(name: string, bytes: Uint8Array) {
    this.name = name;
    this.#bytes = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  read(offset: number, width: Width): number {
    if (width === 1) return this.#bytes.getUint8(offset);
    return width === 2 ? this.#bytes.getUint16(offset, true) : this.#bytes.getUint32(offset, true);
  }

  write(offset: number, width: Width, value: number): void {
    if (width === 1) this.#bytes.setUint8(offset, value);
    else if (width === 2) this.#bytes.setUint16(offset, value, true);
    else this.#bytes.setUint32(offset, value, true);
  }
}

/**
 * A write of a guest-physical address makes the host forget how the guest reaches that page. Widths other than 4 do
 * nothing.
 */
export class TestdevFlush implements BusDevice {
  readonly name = "testdev flush";
  readonly #flush: (page: number) => void;

  /** @param flush Gets the page's address, a multiple of 4 KiB below 4 GiB, whatever is there. */
  constructor(flush: (page: number) => void) {
    this.#flush = flush;
  }

  read(): number {
    return 0; // a region of QEMU's without a read function answers this
  }

  write(_offset: number, width: Width, value: number): void {
    if (width === 4) this.#flush((value & PAGE_MASK) >>> 0);
  }
}

/**
 * The interrupt lines: a byte at port N is the level of line N, low when it is 0. A wider write is as many bytes. QEMU
 * ends at lines 16 to 23, which its ISA bus does not have; they are the GSIs of that number here.
 */
export class TestdevLines implements BusDevice {
  readonly name = "testdev lines";
  readonly #lines: readonly InterruptLine[];

  /** @param lines {@link TESTDEV_LINES} of them; all start low. */
  constructor(lines: readonly InterruptLine[]) {
    this.#lines = lines;
  }

  describe(offset: number): string | undefined {
    const line = this.#lines[offset];
    return line === undefined ? undefined : `GSI ${line.gsi}`;
  }

  read(): number {
    return 0; // as above
  }

  write(offset: number, width: Width, value: number): void {
    for (let byte = 0; byte < width; byte++) {
      this.#lines[offset + byte]?.setLevel(((value >>> (8 * byte)) & 0xff) !== 0);
    }
  }
}

/**
 * A byte written is a character of the output, as qemu-kvm's `testdev` had it; suites built without `USE_SERIAL` print
 * there.
 */
export class TestdevOutput implements BusDevice {
  readonly name = "testdev output";
  readonly #print: (byte: number) => void;

  constructor(print: (byte: number) => void) {
    this.#print = print;
  }

  read(_offset: number, width: Width): number {
    return allOnes(width);
  }

  write(_offset: number, _width: Width, value: number): void {
    this.#print(value & 0xff);
  }
}
