import t from "tap";
import { RegisterBank, type RegisterHandler } from "../../../src/base/registers.ts";
import type { Width } from "../../../src/base/units.ts";

type Name = "wide" | "half" | "byte" | "status" | "command";

const BANK: RegisterBank<Name> = new RegisterBank("example", 0x10, [
  [0x0, 4, "wide", "rw"],
  [0x4, 2, "half", "rw"],
  [0x6, 1, "byte", "rw"],
  [0x8, 4, "status", "ro"],
  [0xc, 2, "command", "wo"],
]);

class Handler implements RegisterHandler<Name> {
  readonly values = new Map<Name, number>([
    ["wide", 0x8765_4321],
    ["half", 0xbeef],
    ["byte", 0x5a],
    ["status", 0xffff_fffe],
    ["command", 0x1111],
  ]);
  readonly writes: string[] = [];

  readRegister(name: Name): number {
    return this.values.get(name) ?? 0;
  }

  writeRegister(name: Name, value: number): void {
    this.writes.push(`${name}=${value.toString(16)}`);
    this.values.set(name, value);
  }
}

t.test("RegisterBank.read() answers whole registers and parts of them", async (t) => {
  const handler = new Handler();
  const read = (offset: number, width: Width): number => BANK.read(handler, offset, width);
  t.equal(read(0, 4), 0x8765_4321);
  t.equal(read(1, 2), 0x6543);
  t.equal(read(3, 1), 0x87);
  t.equal(read(8, 4), 0xffff_fffe);
});

t.test(
  "RegisterBank.read() gathers neighbours; holes, write-only registers and what lies outside are zero",
  async (t) => {
    const handler = new Handler();
    const read = (offset: number, width: Width): number => BANK.read(handler, offset, width);
    t.equal(read(4, 4), 0x005a_beef);
    t.equal(read(2, 4), 0xbeef_8765);
    t.equal(read(0xb, 4), 0x0000_00ff);
    t.equal(read(0xc, 2), 0);
    t.equal(read(0xe, 2), 0);
    t.equal(read(0x20, 4), 0);
  },
);

t.test("RegisterBank.write() keeps the untouched bytes of a wider register", async (t) => {
  const handler = new Handler();
  BANK.write(handler, 1, 1, 0xab);
  BANK.write(handler, 2, 2, 0xcdef);
  BANK.write(handler, 5, 1, 0x12);
  t.same(handler.writes, ["wide=8765ab21", "wide=cdefab21", "half=12ef"]);
});

t.test("RegisterBank.write() spreads a wide value over registers in address order", async (t) => {
  const handler = new Handler();
  BANK.write(handler, 4, 4, 0xff77_8899);
  BANK.write(handler, 3, 4, 0x1122_3344);
  t.same(handler.writes, ["half=8899", "byte=77", "wide=44654321", "half=2233", "byte=11"]);
});

t.test(
  "RegisterBank.write() leaves read-only registers alone and takes missing bytes of write-only ones as zero",
  async (t) => {
    const handler = new Handler();
    BANK.write(handler, 8, 4, 0);
    BANK.write(handler, 9, 1, 0);
    BANK.write(handler, 0xa, 4, 0xabcd_0000);
    BANK.write(handler, 0xd, 1, 0x99);
    BANK.write(handler, 0x20, 4, 0xffff_ffff);
    t.same(handler.writes, ["command=abcd", "command=9900"]);
  },
);

t.test("RegisterBank refuses registers that overlap or stick out", async (t) => {
  const build = (offset: number, width: Width) => () =>
    new RegisterBank("example", 8, [
      [2, 4, "a", "rw"],
      [offset, width, "b", "rw"],
    ]);
  t.throws(build(5, 1), { message: "Cannot build example: b overlaps a" });
  t.throws(build(0, 4), { message: "Cannot build example: b overlaps a" });
  t.throws(build(7, 2), { message: "Cannot build example: register b lies outside its 8 bytes" });
  t.throws(build(-1, 1), RangeError);
  t.doesNotThrow(build(6, 2));
});
