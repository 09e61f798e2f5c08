import {
  bitsOf,
  Encoder,
  type Immediate,
  isImmediate,
  isMemory,
  type Memory,
  type Place,
  type Register,
  type Register16,
  type Register32,
  type Register64,
  registerOf,
  SEGMENTS,
  type Segment,
  type Source,
} from "./assembler-encoding.ts";

/** Condition codes, in the order of their encoding; the names are the mnemonics after the j. */
const CONDITIONS = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"] as const;
export type Condition = (typeof CONDITIONS)[number];

/**
 * An assembler for the tiny guests of tests and benchmarks: a method an instruction, Intel operand order (destination
 * first). It knows what such guests need and no more. Intel SDM vol. 2.
 */
export class Assembler extends Encoder {
  // Moves

  mov(to: Place, from: Source | bigint): this {
    if (typeof from === "bigint") {
      const { number } = registerOf(this.asRegister(to));
      return this.db(number >= 8 ? 0x49 : 0x48, 0xb8 + (number & 7)).dq(from);
    }
    if (isImmediate(from)) return this.encodeWithImmediate([0xc6], 0, to, from);
    return isMemory(from)
      ? this.encodeRegisterAndPlace([0x8a], this.asRegister(to), from)
      : this.encodeRegisterAndPlace([0x88], from, to);
  }

  /** Zero-extends 8 or 16 bits into a 32-bit register. */
  movzx(to: Register32, from: Place): this {
    const opcode = bitsOf(from) === 8 ? 0xb6 : 0xb7;
    return this.encode([0x0f, opcode], registerOf(to).number, from, 32);
  }

  lea(to: Register32 | Register64, from: Memory): this {
    return this.encode([0x8d], registerOf(to).number, from, bitsOf(to));
  }

  xchg(place: Place, register: Register): this {
    return this.encodeRegisterAndPlace([0x86], register, place);
  }

  movToSegment(segment: Segment, from: Register16): this {
    return this.encode([0x8e], SEGMENTS.indexOf(segment), from, this.currentMode);
  }

  movToControl(number: 0 | 2 | 3 | 4, from: Register32 | Register64): this {
    return this.db(0x0f, 0x22, 0xc0 | (number << 3) | registerOf(from).number);
  }

  movFromControl(to: Register32 | Register64, number: 0 | 2 | 3 | 4): this {
    return this.db(0x0f, 0x20, 0xc0 | (number << 3) | registerOf(to).number);
  }

  push(what: Register | Immediate): this {
    if (typeof what !== "string") return this.db(0x68).immediate(what, this.currentMode === 16 ? 2 : 4);
    return this.shortForm(0x50, what);
  }

  pop(register: Register): this {
    return this.shortForm(0x58, register);
  }

  pushf(): this {
    return this.db(0x9c);
  }

  popf(): this {
    return this.db(0x9d);
  }

  // Arithmetic

  add(to: Place, from: Source): this {
    return this.encodeArithmetic(0, to, from);
  }

  or(to: Place, from: Source): this {
    return this.encodeArithmetic(1, to, from);
  }

  and(to: Place, from: Source): this {
    return this.encodeArithmetic(4, to, from);
  }

  sub(to: Place, from: Source): this {
    return this.encodeArithmetic(5, to, from);
  }

  xor(to: Place, from: Source): this {
    return this.encodeArithmetic(6, to, from);
  }

  cmp(to: Place, from: Source): this {
    return this.encodeArithmetic(7, to, from);
  }

  test(place: Place, with_: Register | Immediate): this {
    return typeof with_ === "string"
      ? this.encodeRegisterAndPlace([0x84], with_, place)
      : this.encodeWithImmediate([0xf6], 0, place, with_);
  }

  inc(place: Place): this {
    return this.encode([bitsOf(place) === 8 ? 0xfe : 0xff], 0, place, bitsOf(place));
  }

  dec(place: Place): this {
    return this.encode([bitsOf(place) === 8 ? 0xfe : 0xff], 1, place, bitsOf(place));
  }

  not(place: Place): this {
    return this.encode([bitsOf(place) === 8 ? 0xf6 : 0xf7], 2, place, bitsOf(place));
  }

  shl(place: Place, count: number): this {
    return this.encode([bitsOf(place) === 8 ? 0xc0 : 0xc1], 4, place, bitsOf(place)).db(count);
  }

  shr(place: Place, count: number): this {
    return this.encode([bitsOf(place) === 8 ? 0xc0 : 0xc1], 5, place, bitsOf(place)).db(count);
  }

  // Ports

  in(to: "al" | "ax" | "eax", port: number | "dx"): this {
    return this.encodePort(0xe4, to, port);
  }

  out(port: number | "dx", from: "al" | "ax" | "eax"): this {
    return this.encodePort(0xe6, from, port);
  }

  /** Repeats the string instruction that follows, ECX times. */
  rep(): this {
    return this.db(0xf3);
  }

  /** Port DX to memory at EDI. */
  ins(bits: 8 | 16 | 32): this {
    return this.encodeString(0x6c, bits);
  }

  /** Memory at ESI to port DX. */
  outs(bits: 8 | 16 | 32): this {
    return this.encodeString(0x6e, bits);
  }

  /** Memory at ESI to memory at EDI. */
  movs(bits: 8 | 16 | 32): this {
    return this.encodeString(0xa4, bits);
  }

  /** AL, AX or EAX to memory at EDI. */
  stos(bits: 8 | 16 | 32): this {
    return this.encodeString(0xaa, bits);
  }

  // Control flow

  jmp(label: string): this {
    return this.db(0xe9).relative(label);
  }

  /** Near conditional jump. */
  j(condition: Condition, label: string): this {
    return this.db(0x0f, 0x80 + CONDITIONS.indexOf(condition)).relative(label);
  }

  call(label: string): this {
    return this.db(0xe8).relative(label);
  }

  /** Near return; `drop` bytes go off the stack behind the return address. */
  ret(drop = 0): this {
    return drop === 0 ? this.db(0xc3) : this.db(0xc2).dw(drop);
  }

  /** Decrements CX, ECX or RCX, by the mode, and jumps unless it is zero; the label must be near. */
  loop(label: string): this {
    return this.db(0xe2).relative(label, 1);
  }

  /** Loads CS and a 32-bit offset; from 16-bit or 32-bit code. */
  jmpFar(selector: number, target: Immediate): this {
    if (this.currentMode === 16) this.db(0x66);
    return this.db(0xea).dd(target).dw(selector);
  }

  int(vector: number): this {
    return this.db(0xcd, vector);
  }

  /** Return from interrupt, of the mode's width. */
  iret(): this {
    return this.currentMode === 64 ? this.db(0x48, 0xcf) : this.db(0xcf);
  }

  // System

  hlt(): this {
    return this.db(0xf4);
  }

  cli(): this {
    return this.db(0xfa);
  }

  sti(): this {
    return this.db(0xfb);
  }

  cld(): this {
    return this.db(0xfc);
  }

  nop(): this {
    return this.db(0x90);
  }

  pause(): this {
    return this.db(0xf3, 0x90);
  }

  ud2(): this {
    return this.db(0x0f, 0x0b);
  }

  mfence(): this {
    return this.db(0x0f, 0xae, 0xf0);
  }

  cpuid(): this {
    return this.db(0x0f, 0xa2);
  }

  rdtsc(): this {
    return this.db(0x0f, 0x31);
  }

  rdmsr(): this {
    return this.db(0x0f, 0x32);
  }

  wrmsr(): this {
    return this.db(0x0f, 0x30);
  }

  /** Makes the read-modify-write that follows atomic. */
  lock(): this {
    return this.db(0xf0);
  }

  /** From memory of a 16-bit limit and a base of 32 bits (64 in long mode). */
  lgdt(table: Memory): this {
    return this.encode([0x0f, 0x01], 2, table, this.currentMode === 64 ? 8 : 32);
  }

  lidt(table: Memory): this {
    return this.encode([0x0f, 0x01], 3, table, this.currentMode === 64 ? 8 : 32);
  }
}
