/**
 * A small AML assembler. Each function is one ASL operator, under its ASL name, and answers its encoded bytes. A table
 * written with it reads like ASL. ACPI 6.5 chapter 20.
 */

/** Encoded AML: one object, operator or argument. */
export type Aml = Uint8Array;

/** Something an operator takes: a plain number is an integer constant. */
export type AmlValue = Aml | number;

/** Joins encoded pieces and single bytes. */
export function join(...pieces: readonly (Uint8Array | number)[]): Uint8Array {
  let sizeBytes = 0;
  for (const piece of pieces) sizeBytes += typeof piece === "number" ? 1 : piece.length;
  const joined = new Uint8Array(sizeBytes);
  let at = 0;
  for (const piece of pieces) {
    if (typeof piece === "number") {
      joined[at++] = piece;
    } else {
      joined.set(piece, at);
      at += piece.length;
    }
  }
  return joined;
}

/** `value` in `count` bytes, low byte first; exact up to 2^53. */
export function littleEndian(value: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  for (let index = 0; index < count; index++) bytes[index] = Math.floor(value / 2 ** (8 * index)) % 256;
  return bytes;
}

/** The characters' codes; ASCII only. */
export function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** An integer constant in its shortest form. @throws RangeError unless it is a whole number from 0 to 2^53 − 1. */
export function Integer(value: number): Aml {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`Cannot encode ${value} as an AML integer`);
  if (value <= 1) return Uint8Array.of(value); // ZeroOp, OneOp
  if (value <= 0xff) return join(0x0a, value);
  if (value <= 0xffff) return join(0x0b, littleEndian(value, 2));
  if (value <= 0xffff_ffff) return join(0x0c, littleEndian(value, 4));
  return join(0x0e, littleEndian(value, 8));
}

const encode = (value: AmlValue): Aml => (typeof value === "number" ? Integer(value) : value);
const encodeAll = (values: readonly AmlValue[]): Aml => join(...values.map(encode));

/** PkgLength and what it covers, itself included. ACPI 6.5 §20.2.4 */
function sized(...pieces: readonly (Uint8Array | number)[]): Uint8Array {
  const body = join(...pieces);
  if (body.length + 1 <= 0x3f) return join(body.length + 1, body);
  for (let extraBytes = 1; extraBytes <= 3; extraBytes++) {
    const total = body.length + 1 + extraBytes;
    if (total >= 2 ** (4 + 8 * extraBytes)) continue;
    return join((extraBytes << 6) | (total & 0x0f), littleEndian(total >>> 4, extraBytes), body);
  }
  throw new RangeError(`Cannot encode an AML package of ${body.length} bytes: the limit is 256 MiB`);
}

/** A four-character name, padded with underscores. */
function segment(text: string): Uint8Array {
  if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(text)) throw new RangeError(`Cannot encode ${text} as an AML name`);
  return ascii(text.padEnd(4, "_"));
}

/** A name or a path, as ASL spells it: `_CRS`, `\_SB.PCI0`, `^PWRB`. ACPI 6.5 §20.2.2 */
export function Path(text: string): Aml {
  const [, prefix = "", rest = ""] = /^(\\|\^*)(.*)$/.exec(text) ?? [];
  const segments = rest === "" ? [] : rest.split(".").map(segment);
  const lead =
    segments.length === 0
      ? [0x00]
      : segments.length === 1
        ? []
        : segments.length === 2
          ? [0x2e]
          : [0x2f, segments.length];
  return join(ascii(prefix), ...lead, ...segments);
}

/** A string constant. */
export const Text = (text: string): Aml => join(0x0d, ascii(text), 0x00);

/** A compressed identifier such as `PNP0A08`. ACPI 6.5 §19.3.4 */
export function EisaId(id: string): Aml {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id)) throw new RangeError(`Cannot encode ${id} as an EISA id`);
  const letter = (index: number): number => id.charCodeAt(index) - 0x40;
  const letters = (letter(0) << 10) | (letter(1) << 5) | letter(2);
  const digits = Number.parseInt(id.slice(3), 16);
  return join(0x0c, letters >>> 8, letters & 0xff, digits >>> 8, digits & 0xff); // big-endian, unlike everything else
}

/** A UUID as a 16-byte buffer; its first three fields are little-endian. ACPI 6.5 §19.6.142 */
export function ToUUID(uuid: string): Aml {
  const digits = uuid.replaceAll("-", "");
  if (!/^[0-9a-fA-F]{32}$/.test(digits)) throw new RangeError(`Cannot encode ${uuid} as a UUID`);
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return Buffer(Uint8Array.from(order, (index) => Number.parseInt(digits.slice(2 * index, 2 * index + 2), 16)));
}

export const Buffer = (bytes: Uint8Array): Aml => join(0x11, sized(Integer(bytes.length), bytes));

export function Package(...elements: readonly AmlValue[]): Aml {
  if (elements.length > 255) throw new RangeError(`Cannot encode a package of ${elements.length} elements`);
  return join(0x12, sized(elements.length, encodeAll(elements)));
}

export const Name = (path: string, value: AmlValue): Aml => join(0x08, Path(path), encode(value));
export const Scope = (path: string, ...terms: readonly Aml[]): Aml => join(0x10, sized(Path(path), ...terms));
export const Device = (path: string, ...terms: readonly Aml[]): Aml => join(0x5b, 0x82, sized(Path(path), ...terms));

/** A serialized method: most of ours create named fields, which a second thread inside would trip over. */
export const Method = (path: string, argumentCount: number, ...terms: readonly Aml[]): Aml =>
  join(0x14, sized(Path(path), argumentCount | 0x08, ...terms));

export const Arg = (index: number): Aml => Uint8Array.of(0x68 + index);
export const Local = (index: number): Aml => Uint8Array.of(0x60 + index);

export const Store = (value: AmlValue, target: Aml): Aml => join(0x70, encode(value), target);
/** Without a target the result is only the operator's value. */
const NO_TARGET: Aml = Uint8Array.of(0x00);
export const And = (left: AmlValue, right: AmlValue, target: Aml = NO_TARGET): Aml =>
  join(0x7b, encode(left), encode(right), target);
export const Or = (left: AmlValue, right: AmlValue, target: Aml = NO_TARGET): Aml =>
  join(0x7d, encode(left), encode(right), target);
export const LAnd = (left: AmlValue, right: AmlValue): Aml => join(0x90, encode(left), encode(right));
export const LNot = (value: AmlValue): Aml => join(0x92, encode(value));
export const LEqual = (left: AmlValue, right: AmlValue): Aml => join(0x93, encode(left), encode(right));
export const LLess = (left: AmlValue, right: AmlValue): Aml => join(0x95, encode(left), encode(right));

export const If = (condition: AmlValue, ...terms: readonly Aml[]): Aml =>
  join(0xa0, sized(encode(condition), ...terms));
/** Follows its {@link If} directly. */
export const Else = (...terms: readonly Aml[]): Aml => join(0xa1, sized(...terms));
export const Return = (value: AmlValue): Aml => join(0xa4, encode(value));
export const Notify = (path: string, value: number): Aml => join(0x86, Path(path), Integer(value));

/** Names the four bytes at `offset` of a buffer. */
export const CreateDWordField = (buffer: Aml, offset: number, name: string): Aml =>
  join(0x8a, buffer, Integer(offset), segment(name));

/** Names a range of ports. */
export const SystemIoRegion = (name: string, port: number, sizeBytes: number): Aml =>
  join(0x5b, 0x80, segment(name), 0x01, Integer(port), Integer(sizeBytes));

/** Names whole dwords of a region, in order from its start; each is accessed alone. */
export const DWordFields = (region: string, ...names: readonly string[]): Aml =>
  // DWordAcc, NoLock, WriteAsZeros
  join(0x5b, 0x81, sized(segment(region), 0x43, ...names.flatMap((name) => [segment(name), 32])));
/** Names whole bytes of a region, in order from its start; each is accessed alone. */
export const ByteFields = (region: string, ...names: readonly string[]): Aml =>
  // ByteAcc, NoLock, WriteAsZeros
  join(0x5b, 0x81, sized(segment(region), 0x41, ...names.flatMap((name) => [segment(name), 8])));
