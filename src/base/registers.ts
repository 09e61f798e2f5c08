import type { BusDevice } from "./bus.ts";
import { allOnes, type Width } from "./units.ts";

/** `rw` read and write, `ro` writes are dropped, `wo` reads answer zero, `w1` written ones act and zeros do nothing. */
export type RegisterAccess = "rw" | "ro" | "wo" | "w1";

/** One register: offset in bytes, width, its name in the spec, access. */
export type RegisterRow<Name extends string> = readonly [
  offset: number,
  width: Width,
  name: Name,
  access: RegisterAccess,
];

/** What a device gives to have its registers decoded. A value is unsigned and fits the register's width. */
export interface RegisterHandler<Name extends string> {
  readRegister(name: Name): number;
  writeRegister(name: Name, value: number): void;
}

/**
 * The registers of a device as a table that a reader can lay beside the spec.
 *
 * Accesses of another width or between registers are split or gathered here, once for all devices: A narrow write keeps
 * the other bytes of the register, as `readRegister` gives them, or as zeros where only ones act. A wide write is done
 * register by register in address order. Holes read as zero.
 */
export class RegisterBank<Name extends string> {
  readonly name: string;
  readonly sizeBytes: number;
  readonly rows: readonly RegisterRow<Name>[];
  readonly #rowAt: readonly (RegisterRow<Name> | undefined)[];

  /** @throws RangeError when two rows overlap or one lies outside `sizeBytes`. */
  constructor(name: string, sizeBytes: number, rows: readonly RegisterRow<Name>[]) {
    const rowAt: (RegisterRow<Name> | undefined)[] = new Array(sizeBytes).fill(undefined);
    for (const row of rows) {
      const [offset, width, register] = row;
      if (offset < 0 || offset + width > sizeBytes) {
        throw new RangeError(`Cannot build ${name}: register ${register} lies outside its ${sizeBytes} bytes`);
      }
      for (let byte = offset; byte < offset + width; byte++) {
        const holder = rowAt[byte];
        if (holder !== undefined) throw new RangeError(`Cannot build ${name}: ${register} overlaps ${holder[2]}`);
        rowAt[byte] = row;
      }
    }
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.rows = rows;
    this.#rowAt = rowAt;
  }

  /** The register at an offset, as text: `LSR`, `BAR 0 byte 1`; `undefined` in a hole. */
  nameAt(offset: number): string | undefined {
    const row = this.#rowAt[offset];
    return row === undefined || row[0] === offset ? row?.[2] : `${row[2]} byte ${offset - row[0]}`;
  }

  read(handler: RegisterHandler<Name>, offset: number, width: Width): number {
    const exact = this.#rowAt[offset];
    if (exact !== undefined && exact[0] === offset && exact[1] === width) {
      return exact[3] === "wo" ? 0 : handler.readRegister(exact[2]) >>> 0;
    }
    let value = 0;
    for (let byte = 0; byte < width; ) {
      const row = this.#rowAt[offset + byte];
      if (row === undefined) {
        byte++;
        continue;
      }
      const start = offset + byte - row[0];
      const count = Math.min(row[1] - start, width - byte);
      const register = row[3] === "wo" ? 0 : handler.readRegister(row[2]) >>> 0;
      for (let i = 0; i < count; i++) value += ((register >>> (8 * (start + i))) & 0xff) * 2 ** (8 * (byte + i));
      byte += count;
    }
    return value;
  }

  write(handler: RegisterHandler<Name>, offset: number, width: Width, value: number): void {
    const exact = this.#rowAt[offset];
    if (exact !== undefined && exact[0] === offset && exact[1] === width) {
      if (exact[3] !== "ro") handler.writeRegister(exact[2], value >>> 0);
      return;
    }
    for (let byte = 0; byte < width; ) {
      const row = this.#rowAt[offset + byte];
      if (row === undefined) {
        byte++;
        continue;
      }
      const start = offset + byte - row[0];
      const count = Math.min(row[1] - start, width - byte);
      byte += count;
      if (row[3] === "ro") continue;
      const mask = count === 4 ? 0xffff_ffff : (allOnes(4) >>> (32 - 8 * count)) << (8 * start);
      const placed = count === 4 ? value : (value >>> (8 * (byte - count))) << (8 * start);
      const kept = count === row[1] || row[3] !== "rw" ? 0 : handler.readRegister(row[2]) & ~mask;
      handler.writeRegister(row[2], (kept | (placed & mask)) >>> 0);
    }
  }
}

/** A device of a bus that is a bank of registers and nothing else. */
export abstract class BankDevice<Name extends string> implements BusDevice, RegisterHandler<Name> {
  abstract readonly name: string;
  readonly #registers: RegisterBank<Name>;

  protected constructor(registers: RegisterBank<Name>) {
    this.#registers = registers;
  }

  describe(offset: number): string | undefined {
    return this.#registers.nameAt(offset);
  }

  read(offset: number, width: Width): number {
    return this.#registers.read(this, offset, width);
  }

  write(offset: number, width: Width, value: number): void {
    this.#registers.write(this, offset, width, value);
  }

  abstract readRegister(name: Name): number;

  abstract writeRegister(name: Name, value: number): void;
}
