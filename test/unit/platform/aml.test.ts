import t from "tap";
import * as aml from "../../../src/platform/aml.ts";
import { DWordMemory, WordIO } from "../../../src/platform/aml-resources.ts";

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

t.test("Integer() takes the shortest form", async (t) => {
  t.equal(hexOf(aml.Integer(0)), "00");
  t.equal(hexOf(aml.Integer(1)), "01");
  t.equal(hexOf(aml.Integer(2)), "0a02");
  t.equal(hexOf(aml.Integer(0xff)), "0aff");
  t.equal(hexOf(aml.Integer(0x100)), "0b0001");
  t.equal(hexOf(aml.Integer(0x1_0000)), "0c00000100");
  t.equal(hexOf(aml.Integer(0x1_2345_6789)), "0e8967452301000000");
});

t.test("Integer() refuses what is not a whole number of at most 53 bits", async (t) => {
  for (const value of [-1, 1.5, 2 ** 53, Number.NaN]) t.throws(() => aml.Integer(value), RangeError, String(value));
});

t.test("Path() encodes roots, parents and one, two or more segments", async (t) => {
  const text = (path: string): string => Buffer.from(aml.Path(path)).toString("latin1");
  t.equal(text("_CRS"), "_CRS");
  t.equal(text("GED"), "GED_");
  t.equal(text("\\_SB"), "\\_SB_");
  t.equal(text("\\_SB.PCI0"), "\\._SB_PCI0");
  t.equal(text("^^A.B.C"), "^^/\u0003A___B___C___");
  t.equal(text("\\"), "\\\0");
});

t.test("Path() refuses names AML cannot have", async (t) => {
  for (const path of ["toolong", "ABCDE", "1ABC", "A..B", "A B"]) t.throws(() => aml.Path(path), RangeError, path);
});

t.test("EisaId() packs five-bit letters and hexadecimal digits", async (t) => {
  t.equal(hexOf(aml.EisaId("PNP0A08")), "0c41d00a08");
  t.throws(() => aml.EisaId("ACPI0013"), RangeError);
});

t.test("ToUUID() swaps the first three fields", async (t) => {
  const encoded = hexOf(aml.ToUUID("00112233-4455-6677-8899-aabbccddeeff"));
  t.equal(encoded, "11130a10" + "33221100554477668899aabbccddeeff");
  t.throws(() => aml.ToUUID("0011"), RangeError);
});

t.test("Package lengths grow from one to four bytes where the specification says", async (t) => {
  // A buffer of n bytes: opcode, PkgLength, size constant, n bytes.
  const head = (count: number): string => hexOf(aml.Buffer(new Uint8Array(count)).subarray(0, 5));
  t.equal(head(60), "113f0a3c00", "63 with itself: one byte");
  t.equal(head(61), "1141040a3d", "65 with itself: two bytes, low nibble first");
  t.ok(head(4090).startsWith("114fff"), "4095: the most two bytes say");
  t.ok(head(4091).startsWith("11810001"), "4097: three bytes");
  t.ok(hexOf(aml.Buffer(new Uint8Array(1 << 20)).subarray(0, 5)).startsWith("11c9000001"), "four bytes");
});

t.test("Address space descriptors refuse windows their numbers cannot hold", async (t) => {
  t.throws(() => WordIO({ base: 0, sizeBytes: 0x1_0000 }), RangeError);
  t.throws(() => DWordMemory({ base: 0xffff_f000, sizeBytes: 0x2000 }), RangeError);
  t.throws(() => DWordMemory({ base: 0x1000, sizeBytes: 0 }), RangeError);
  t.equal(DWordMemory({ base: 0xffff_f000, sizeBytes: 0x1000 }).length, 26);
});
