import { type Aml, Buffer, join, littleEndian } from "./aml.ts";

/**
 * Resource descriptors, as `_CRS` lists them: what a device occupies, or what a bridge hands on to the devices behind
 * it. ACPI 6.5 §6.4
 */

/** One encoded descriptor. */
export type Descriptor = Uint8Array;

/** A stretch of an address space, in bytes. */
export interface AddressWindow {
  readonly base: number;
  readonly sizeBytes: number;
}

/** The list behind a `_CRS`, closed by its end tag (whose checksum 0 means "not computed"). */
export const ResourceTemplate = (...descriptors: readonly Descriptor[]): Aml =>
  Buffer(join(...descriptors, 0x79, 0x00));

/** Ports a device decodes with all 16 address bits. ACPI 6.5 §6.4.2.5 */
export const IO = (base: number, sizeBytes: number): Descriptor =>
  join(0x47, 0x01, littleEndian(base, 2), littleEndian(base, 2), 0x01, sizeBytes);

/** Memory a device decodes, writable. ACPI 6.5 §6.4.3.4 */
export const Memory32Fixed = (window: AddressWindow): Descriptor =>
  join(0x86, littleEndian(9, 2), 0x01, littleEndian(window.base, 4), littleEndian(window.sizeBytes, 4));

/** One interrupt, active high, not shared, by its GSI. ACPI 6.5 §6.4.3.6 */
export function Interrupt(gsi: number, trigger: "edge" | "level"): Descriptor {
  const consumer = 0x01;
  return join(0x89, littleEndian(6, 2), consumer | (trigger === "edge" ? 0x02 : 0x00), 1, littleEndian(gsi, 4));
}

const MEMORY_RANGE = 0;
const IO_RANGE = 1;
const BUS_NUMBER_RANGE = 2;
/** Handed on by the bridge, decoded positively, both ends fixed. */
const PRODUCED_FIXED = 0x0c;

/** Address space descriptor of `count`-byte numbers. ACPI 6.5 §6.4.3.5 */
function addressSpace(tag: number, count: number, type: number, typeFlags: number, window: AddressWindow): Descriptor {
  const last = window.base + window.sizeBytes - 1;
  if (!(window.sizeBytes > 0) || window.base < 0 || Math.max(last, window.sizeBytes) >= 2 ** (8 * count)) {
    throw new RangeError(`Cannot describe ${window.sizeBytes} bytes at ${window.base} in ${count}-byte numbers`);
  }
  const numbers = [0, window.base, last, 0, window.sizeBytes]; // granularity, first, last, translation, length
  const body = join(type, PRODUCED_FIXED, typeFlags, ...numbers.map((number) => littleEndian(number, count)));
  return join(tag, littleEndian(body.length, 2), body);
}

/** Bus numbers below a host bridge. */
export const WordBusNumber = (first: number, count: number): Descriptor =>
  addressSpace(0x88, 2, BUS_NUMBER_RANGE, 0x00, { base: first, sizeBytes: count });

/** Ports below a host bridge: the entire range, not only ISA aliases. */
export const WordIO = (window: AddressWindow): Descriptor => addressSpace(0x88, 2, IO_RANGE, 0x03, window);

/**
 * Memory below a host bridge: writable, not cacheable, and not marked prefetchable, so that BARs of both kinds may live
 * there.
 */
export const DWordMemory = (window: AddressWindow): Descriptor => addressSpace(0x87, 4, MEMORY_RANGE, 0x01, window);
/** {@link DWordMemory} with 64-bit addresses. */
export const QWordMemory = (window: AddressWindow): Descriptor => addressSpace(0x8a, 8, MEMORY_RANGE, 0x01, window);
