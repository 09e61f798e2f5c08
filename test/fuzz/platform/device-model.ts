import type { Width } from "../../../src/base/units.ts";

/** What must hold of a device's registers, written from its specification. It is told of every access in order. */
export interface DeviceModel {
  /** A read answered `found`: @returns what is wrong with it. */
  judgeRead(offset: number, width: Width, found: number): string | undefined;
  write(offset: number, width: Width, value: number): void;
}

/** A register of one byte: what it must read as; `undefined` where anything may be read, or it was judged already. */
export interface ByteRegisters {
  readByte(offset: number, found: number): number | string | undefined;
  writeByte(offset: number, value: number): void;
}

export const hex = (value: number): string => `0x${value.toString(16)}`;

/** A device whose registers are bytes: wider accesses are those of their bytes, in address order. */
export function bytewise(name: string, registers: ByteRegisters): DeviceModel {
  return {
    judgeRead(offset, width, found) {
      let wrong: string | undefined;
      for (let byte = 0; byte < width; byte++) {
        const part = Math.floor(found / 2 ** (8 * byte)) & 0xff;
        const expected = registers.readByte(offset + byte, part);
        if (typeof expected === "string") wrong ??= `${name} register ${hex(offset + byte)}: ${expected}`;
        else if (expected !== undefined && expected !== part)
          wrong ??= `${name} register ${hex(offset + byte)} reads ${hex(part)}, not ${hex(expected)}`;
      }
      return wrong;
    },
    write(offset, width, value) {
      for (let byte = 0; byte < width; byte++) registers.writeByte(offset + byte, (value >>> (8 * byte)) & 0xff);
    },
  };
}

/** What devices told the machine, and what they must have: compared and forgotten after each operation. */
export class Events {
  readonly expected: string[] = [];
  readonly seen: string[] = [];

  judge(): string | undefined {
    const [expected, seen] = [this.expected.splice(0).join(", "), this.seen.splice(0).join(", ")];
    return expected === seen ? undefined : `the machine was told "${seen}", not "${expected}"`;
  }
}
