import t from "tap";
import { SerialPort } from "../../../src/platform/serial-port.ts";
import { FakeChar } from "../../support/fake-char.ts";
import { FakeLine } from "../../support/fake-line.ts";

const DATA = 0;
const FCR = 2;
const MCR = 4;
const LSR = 5;

const send = (port: SerialPort, text: string): void => {
  for (const byte of new TextEncoder().encode(text)) port.uart.write(DATA, 1, byte);
};

function drain(port: SerialPort): string {
  let text = "";
  while ((port.uart.read(LSR, 1) & 0x01) !== 0) text += String.fromCharCode(port.uart.read(DATA, 1));
  return text;
}

t.test("SerialPort writes to its backend once for each flush()", async (t) => {
  const backend = new FakeChar();
  let wishes = 0;
  const port = new SerialPort("COM1", new FakeLine(4), backend, () => wishes++);
  send(port, "hello");
  t.same(backend.writes, []);
  t.equal(wishes, 1, "asked at the first byte only");
  port.flush();
  t.same(backend.writes, ["hello"]);
  port.flush();
  t.equal(backend.writes.length, 1, "nothing left to flush");
  send(port, "again");
  t.equal(wishes, 2);
  port.flush();
  t.same(backend.writes, ["hello", "again"]);
});

t.test("SerialPort does not collect without end", async (t) => {
  const backend = new FakeChar();
  const port = new SerialPort("COM1", new FakeLine(4), backend, () => undefined);
  const text = "0123456789abcdef".repeat(1000);
  send(port, text);
  t.ok(backend.writes.length >= 3);
  port.flush();
  t.equal(backend.text, text);
});

t.test("SerialPort writes each byte at once without a flush", async (t) => {
  const backend = new FakeChar();
  send(new SerialPort("COM1", new FakeLine(4), backend), "ab");
  t.same(backend.writes, ["a", "b"]);
});

t.test("SerialPort delivers more input than the FIFO holds, in order and without loss", async (t) => {
  const backend = new FakeChar();
  const port = new SerialPort("COM1", new FakeLine(4), backend);
  const text = "0123456789abcdefghijklmnopqrstuvwxyz".repeat(3);
  backend.type(text); // before the guest has set anything up: one byte fits
  t.equal(backend.waitingBytes, text.length - 1);
  t.equal(drain(port), text);
  port.uart.write(FCR, 1, 0x01);
  backend.type(text);
  t.equal(backend.waitingBytes, text.length - 16);
  t.equal(drain(port), text);
  t.equal(backend.waitingBytes, 0);
});

t.test("SerialPort keeps input that comes during loopback", async (t) => {
  const backend = new FakeChar();
  const port = new SerialPort("COM1", new FakeLine(4), backend);
  port.uart.write(MCR, 1, 0x10);
  backend.type("x");
  t.equal(drain(port), "");
  port.uart.write(MCR, 1, 0x00);
  t.equal(drain(port), "x");
});
