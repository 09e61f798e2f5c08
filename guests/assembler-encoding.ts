/*
 * What the assembler's instructions are made of: operands, labels, data, and the encoding of prefixes, opcode and
 * ModRM. Memory operands always use 32-bit addressing (64-bit in long mode), in 16-bit code by a prefix. Intel SDM vol.
 * 2 §2.
 */

/** Operand size the CPU decodes by default, by the kind of code segment. */
export type Mode = 16 | 32 | 64;

const REGISTERS_8 = ["al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"] as const;
const REGISTERS_16 = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"] as const;
const REGISTERS_32 = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"] as const;
const REGISTERS_64 = [
  ...["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"],
  ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"],
] as const;
export const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs"] as const;

export type Register8 = (typeof REGISTERS_8)[number];
export type Register16 = (typeof REGISTERS_16)[number];
export type Register32 = (typeof REGISTERS_32)[number];
export type Register64 =
  | "rax"
  | "rcx"
  | "rdx"
  | "rbx"
  | "rsp"
  | "rbp"
  | "rsi"
  | "rdi"
  | `r${8 | 9 | 10 | 11 | 12 | 13 | 14 | 15}`;
export type Register = Register8 | Register16 | Register32 | Register64;
export type Segment = (typeof SEGMENTS)[number];
export type Bits = 8 | 16 | 32 | 64;

/** The address of a label, plus so many bytes; usable wherever a number is. */
export interface LabelAddress {
  readonly label: string;
  readonly addend: number;
}
export const at = (label: string, addend = 0): LabelAddress => ({ label, addend });

/** Bytes in memory: `[base + displacement]`, or an absolute address without a base. */
export interface Memory {
  readonly bits: Bits;
  readonly base: Register32 | Register64 | undefined;
  readonly displacement: number | LabelAddress;
}
type MemoryMaker = (base: Register32 | Register64 | number | LabelAddress, displacement?: number) => Memory;
const memoryOf =
  (bits: Bits): MemoryMaker =>
  (base, displacement = 0) =>
    typeof base === "string" ? { bits, base, displacement } : { bits, base: undefined, displacement: base };
export const mem8: MemoryMaker = memoryOf(8);
export const mem16: MemoryMaker = memoryOf(16);
export const mem32: MemoryMaker = memoryOf(32);
export const mem64: MemoryMaker = memoryOf(64);

export type Immediate = number | LabelAddress;
export type Place = Register | Memory;
export type Source = Place | Immediate;

interface Fixup {
  readonly offset: number;
  readonly bytes: 1 | 2 | 4 | 8;
  readonly target: LabelAddress;
  /** Relative to the address just behind the field. */
  readonly isRelative: boolean;
}

export function registerOf(name: Register): { readonly number: number; readonly bits: Bits } {
  const tables: readonly (readonly [readonly string[], Bits])[] = [
    [REGISTERS_8, 8],
    [REGISTERS_16, 16],
    [REGISTERS_32, 32],
    [REGISTERS_64, 64],
  ];
  for (const [names, bits] of tables) {
    const number = names.indexOf(name);
    if (number >= 0) return { number, bits };
  }
  throw new RangeError(`Cannot assemble: ${name} is no register`);
}

export const isMemory = (operand: Source): operand is Memory => typeof operand === "object" && "bits" in operand;
export const isImmediate = (operand: Source): operand is Immediate =>
  typeof operand === "number" || (typeof operand === "object" && "label" in operand);
export const bitsOf = (place: Place): Bits => (isMemory(place) ? place.bits : registerOf(place).bits);

/**
 * Collects bytes and labels; {@link assemble} resolves the labels. Every method answers the object, so calls can be
 * chained.
 */
export class Encoder {
  readonly origin: number;
  readonly #bytes: number[] = [];
  readonly #labels = new Map<string, number>();
  readonly #fixups: Fixup[] = [];
  #mode: Mode;

  /** @param origin Guest-physical address of the first byte. */
  constructor(origin: number, mode: Mode = 32) {
    this.origin = origin;
    this.#mode = mode;
  }

  /** Address of the next byte. */
  get here(): number {
    return this.origin + this.#bytes.length;
  }

  protected get currentMode(): Mode {
    return this.#mode;
  }

  /** What follows is run by a code segment of that size. */
  mode(mode: Mode): this {
    this.#mode = mode;
    return this;
  }

  /** @throws RangeError when the label exists. */
  label(name: string): this {
    if (this.#labels.has(name)) throw new RangeError(`Cannot assemble: label ${name} is there twice`);
    this.#labels.set(name, this.here);
    return this;
  }

  /** @throws RangeError when there is no such label (yet). */
  addressOf(name: string): number {
    const address = this.#labels.get(name);
    if (address === undefined) throw new RangeError(`Cannot assemble: there is no label ${name}`);
    return address;
  }

  /** The code and data from the origin on. @throws RangeError for an unknown label or a jump too far. */
  assemble(): Uint8Array {
    const bytes = Uint8Array.from(this.#bytes);
    for (const { offset, bytes: count, target, isRelative } of this.#fixups) {
      const address = this.addressOf(target.label) + target.addend;
      const value = isRelative ? address - (this.origin + offset + count) : address;
      if (isRelative && count === 1 && (value < -128 || value > 127)) {
        throw new RangeError(`Cannot assemble: ${target.label} is ${value} bytes away, too far for a short jump`);
      }
      for (let byte = 0; byte < count; byte++) bytes[offset + byte] = Math.floor(value / 2 ** (8 * byte)) & 0xff;
    }
    return bytes;
  }

  // Data

  db(...values: readonly number[]): this {
    for (const value of values) this.#bytes.push(value & 0xff);
    return this;
  }

  dw(...values: readonly Immediate[]): this {
    for (const value of values) this.immediate(value, 2);
    return this;
  }

  dd(...values: readonly Immediate[]): this {
    for (const value of values) this.immediate(value, 4);
    return this;
  }

  dq(...values: readonly (Immediate | bigint)[]): this {
    for (const value of values) this.immediate(value, 8);
    return this;
  }

  ascii(text: string): this {
    return this.db(...new TextEncoder().encode(text));
  }

  space(count: number, fill = 0): this {
    return this.db(...new Array<number>(count).fill(fill));
  }

  /** Fills with NOPs up to a multiple of `alignment`. */
  align(alignment: number): this {
    while (this.here % alignment !== 0) this.db(0x90);
    return this;
  }

  // Encoding

  /** One of the eight basic operations: op r/m, r; op r, r/m; op r/m, immediate. */
  protected encodeArithmetic(operation: number, to: Place, from: Source): this {
    if (isImmediate(from)) return this.encodeWithImmediate([0x80], operation, to, from);
    return isMemory(from)
      ? this.encodeRegisterAndPlace([operation * 8 + 2], this.asRegister(to), from)
      : this.encodeRegisterAndPlace([operation * 8], from, to);
  }

  /** The opcode is the 8-bit form; the next one is for all other widths. */
  protected encodeRegisterAndPlace(opcode: readonly number[], register: Register, place: Place): this {
    const { number, bits } = registerOf(register);
    return this.encode(widened(opcode, bits), number, place, bits);
  }

  protected encodeWithImmediate(opcode: readonly number[], extension: number, place: Place, value: Immediate): this {
    const bits = bitsOf(place);
    const bytes = bits === 8 ? 1 : bits === 16 ? 2 : 4; // 64-bit forms sign-extend 32 bits
    return this.encode(widened(opcode, bits), extension, place, bits).immediate(value, bytes);
  }

  /** Prefixes, opcode, ModRM and what belongs to it. */
  protected encode(opcode: readonly number[], field: number, place: Place, bits: Bits): this {
    const base = isMemory(place)
      ? place.base === undefined
        ? 0
        : registerOf(place.base).number
      : registerOf(place).number;
    this.operandSize(bits);
    if (isMemory(place) && this.#mode === 16) this.db(0x67);
    const rex = (bits === 64 ? 8 : 0) | (field >= 8 ? 4 : 0) | (base >= 8 ? 1 : 0);
    if (rex !== 0) {
      if (this.#mode !== 64) throw new RangeError("Cannot assemble: 64-bit operands need long mode");
      this.db(0x40 | rex);
    }
    this.db(...opcode);
    const reg = (field & 7) << 3;
    if (!isMemory(place)) return this.db(0xc0 | reg | (base & 7));
    if (place.base === undefined) {
      return (this.#mode === 64 ? this.db(reg | 4, 0x25) : this.db(reg | 5)).immediate(place.displacement, 4);
    }
    this.db(0x80 | reg | (base & 7)); // base and 32-bit displacement
    if ((base & 7) === 4) this.db(0x24); // esp and r12 need a SIB byte
    return this.immediate(place.displacement, 4);
  }

  protected operandSize(bits: Bits): void {
    if (bits === 16 ? this.#mode !== 16 : bits === 32 && this.#mode === 16) this.db(0x66);
  }

  protected shortForm(opcode: number, register: Register): this {
    const { number, bits } = registerOf(register);
    if (bits !== 64) this.operandSize(bits);
    if (number >= 8) this.db(0x41);
    return this.db(opcode + (number & 7));
  }

  protected encodePort(opcode: number, register: "al" | "ax" | "eax", port: number | "dx"): this {
    const { bits } = registerOf(register);
    this.operandSize(bits);
    const form = opcode + (bits === 8 ? 0 : 1);
    return port === "dx" ? this.db(form + 8) : this.db(form, port);
  }

  protected encodeString(opcode: number, bits: 8 | 16 | 32): this {
    this.operandSize(bits);
    return this.db(opcode + (bits === 8 ? 0 : 1));
  }

  /** A distance from the end of this field; of the mode's width unless said otherwise. */
  protected relative(label: string, bytes: 1 | 2 | 4 = this.#mode === 16 ? 2 : 4): this {
    this.#fixups.push({ offset: this.#bytes.length, bytes, target: at(label), isRelative: true });
    return this.space(bytes);
  }

  protected immediate(value: Immediate | bigint, bytes: 1 | 2 | 4 | 8): this {
    if (typeof value === "object") {
      this.#fixups.push({ offset: this.#bytes.length, bytes, target: value, isRelative: false });
      return this.space(bytes);
    }
    const bits = BigInt.asUintN(8 * bytes, BigInt(value));
    for (let byte = 0; byte < bytes; byte++) this.db(Number((bits >> BigInt(8 * byte)) & 0xffn));
    return this;
  }

  protected asRegister(place: Place): Register {
    if (isMemory(place)) throw new RangeError("Cannot assemble: one operand must be a register");
    return place;
  }
}

/** The opcode for 16 bits and more follows the one for 8 bits. */
export function widened(opcode: readonly number[], bits: Bits): readonly number[] {
  return bits === 8 ? opcode : opcode.map((byte, index) => (index === opcode.length - 1 ? byte + 1 : byte));
}
