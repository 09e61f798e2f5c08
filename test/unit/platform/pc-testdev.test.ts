import t from "tap";
import { TestdevFlush, TestdevLines, TestdevMemory, TestdevOutput } from "../../../src/platform/pc-testdev.ts";
import { FakeLine } from "../../support/fake-line.ts";

t.test(
  "TestdevMemory keeps what is written, little endian and at any offset, and shares it with its other place",
  async (t) => {
    const bytes = new Uint8Array(4);
    const wide = new TestdevMemory("testdev scratch", bytes);
    const narrow = new TestdevMemory("testdev scratch bytes", bytes);
    wide.write(0, 4, 0x8877_6655);
    t.equal(narrow.read(0, 4), 0x8877_6655);
    t.equal(narrow.read(3, 1), 0x88);
    t.equal(wide.read(1, 2), 0x7766);
    narrow.write(1, 1, 0x1aa);
    t.equal(wide.read(0, 4), 0x8877_aa55, "only the byte that was addressed");
    wide.write(2, 2, 0xbeef_cafe);
    t.equal(wide.read(0, 4), 0xcafe_aa55);
  },
);

t.test("TestdevFlush takes the page of an address of four bytes, and no other width", async (t) => {
  const pages: number[] = [];
  const port = new TestdevFlush((page) => pages.push(page));
  port.write(0, 4, 0xfee0_1fff);
  port.write(0, 1, 0x12);
  port.write(2, 2, 0x1000);
  port.write(0, 4, 0x123);
  t.same(pages, [0xfee0_1000, 0]);
  t.equal(port.read(), 0);
});

t.test(
  "TestdevLines sets a line for each byte of a write, so that four bytes at 0x200b lower three neighbours",
  async (t) => {
    const lines = Array.from({ length: 24 }, (_, pin) => new FakeLine(pin));
    const high = (): readonly number[] => lines.filter(({ isHigh }) => isHigh).map(({ gsi }) => gsi);
    const ports = new TestdevLines(lines);
    ports.write(12, 1, 0xff);
    ports.write(11, 4, 1);
    t.same(high(), [11]);
    ports.write(0, 2, 0x0100);
    t.same(high(), [1, 11]);
    ports.write(11, 1, 0);
    ports.write(23, 1, 0x80);
    t.same(high(), [1, 23]);
    t.equal(ports.read(), 0);
    t.equal(ports.describe(9), "GSI 9");
  },
);

t.test("TestdevOutput prints the low byte of a write", async (t) => {
  const bytes: number[] = [];
  const port = new TestdevOutput((byte) => bytes.push(byte));
  port.write(0, 1, 0x68);
  port.write(0, 4, 0x4142_4369);
  t.same(bytes, [0x68, 0x69]);
  t.equal(port.read(0, 1), 0xff);
});
