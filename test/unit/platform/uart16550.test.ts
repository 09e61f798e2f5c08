import t from "tap";
import { Uart16550 } from "../../../src/platform/uart16550.ts";
import { FakeLine } from "../../support/fake-line.ts";

// Offsets from the base port.
const DATA = 0;
const IER = 1;
const IIR = 2;
const FCR = 2;
const LCR = 3;
const MCR = 4;
const LSR = 5;
const MSR = 6;
const SCR = 7;

function build() {
  const line = new FakeLine(4);
  const sent: number[] = [];
  const state = { rooms: 0 };
  const uart = new Uart16550("COM1", {
    line,
    transmit: (byte) => sent.push(byte),
    onRoom: () => state.rooms++,
  });
  const read = (offset: number): number => uart.read(offset, 1);
  const write = (offset: number, value: number): void => uart.write(offset, 1, value);
  const drain = (): number[] => {
    const bytes: number[] = [];
    while ((read(LSR) & 0x01) !== 0) bytes.push(read(DATA));
    return bytes;
  };
  return { uart, line, sent, state, read, write, drain };
}

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const count = (length: number, first = 0): Uint8Array => Uint8Array.from({ length }, (_, index) => first + index);

t.test("Uart16550 passes the autodetection of Linux's 8250 driver as a 16550A", async (t) => {
  const { read, write, sent } = build();
  write(IER, 0x00);
  t.equal(read(IER) & 0x0f, 0x00);
  write(IER, 0x0f);
  t.equal(read(IER) & 0x0f, 0x0f, "the enable register is there");
  write(IER, 0x40);
  t.equal(read(IER), 0x00, "no XScale unit enable");
  write(MCR, 0x1a); // loop, OUT2, RTS
  t.equal(read(MSR) & 0xf0, 0x90, "OUT2 comes back as DCD, RTS as CTS");
  write(MCR, 0x00);
  write(LCR, 0xbf); // where later chips have their enhanced feature register
  write(FCR, 0x00);
  write(LCR, 0x00);
  write(FCR, 0x01);
  t.equal(read(IIR) >> 6, 3, "FIFOs that work");
  write(FCR, 0x21);
  t.equal(read(IIR) & 0x20, 0, "no 64-byte FIFO");
  write(SCR, 0x5a);
  t.equal(read(SCR), 0x5a);
  t.same(sent, []);
});

t.test("Uart16550 measures sixteen bytes of FIFO in loopback", async (t) => {
  const { read, write, drain, sent } = build();
  write(LCR, 0x83);
  write(DATA, 0x01);
  write(IER, 0x00);
  write(LCR, 0x03);
  write(FCR, 0x07);
  write(MCR, 0x10);
  for (let index = 0; index < 256; index++) write(DATA, index);
  t.equal(read(LSR) & 0x02, 0x02, "overrun");
  t.same(drain(), [...count(16)]);
  t.same(sent, [], "nothing leaves the chip");
});

t.test("Uart16550 keeps the divisor behind DLAB", async (t) => {
  const { read, write, sent } = build();
  write(LCR, 0x83);
  write(DATA, 0x34);
  write(IER, 0x12);
  t.same([read(DATA), read(IER), read(LCR)], [0x34, 0x12, 0x83]);
  write(LCR, 0x03);
  t.same([read(DATA), read(IER)], [0x00, 0x00], "data and enable register again");
  write(LCR, 0x83);
  t.same([read(DATA), read(IER)], [0x34, 0x12]);
  t.same(sent, []);
});

t.test("Uart16550 sends at once and is always ready for more", async (t) => {
  const { read, write, sent } = build();
  t.equal(read(LSR), 0x60);
  for (const byte of [0x68, 0x69]) {
    write(DATA, byte);
    t.equal(read(LSR), 0x60);
  }
  t.same(sent, [0x68, 0x69]);
});

t.test("Uart16550 raises the transmitter's interrupt whenever it is enabled, as Linux's THRE test wants", async (t) => {
  const { read, write } = build();
  write(IER, 0x02);
  t.equal(read(IIR), 0x02);
  t.equal(read(IIR), 0x01, "reading takes it");
  write(IER, 0x02);
  t.equal(read(IIR), 0x01, "it was enabled already");
  write(IER, 0x00);
  write(IER, 0x02);
  t.equal(read(IIR), 0x02);
});

t.test("Uart16550 transmits a long text through THRE interrupts, one edge for each sixteen bytes", async (t) => {
  const { read, write, line, sent } = build();
  const text = count(100);
  write(FCR, 0x01);
  write(MCR, 0x0b);
  let at = 0;
  let handled = 0;
  write(IER, 0x02);
  while (line.isHigh) {
    handled++;
    t.equal(read(IIR), 0xc2);
    t.notOk(line.isHigh, "identified: the line falls, so that the next byte makes an edge");
    if (at === text.length) write(IER, 0x00);
    for (let index = 0; index < 16 && at < text.length; index++) write(DATA, text[at++] ?? 0);
  }
  t.same(sent, [...text]);
  t.equal(handled, 8, "seven with something to send, one without");
  t.equal(line.rises, 8);
});

t.test("Uart16550 opens the interrupt line by OUT2 and shuts it in loopback", async (t) => {
  const { uart, write, line } = build();
  write(IER, 0x01);
  uart.receive(bytes(0x61));
  t.notOk(line.isHigh);
  write(MCR, 0x08);
  t.ok(line.isHigh);
  write(MCR, 0x18);
  t.notOk(line.isHigh);
  write(MCR, 0x00);
  t.notOk(line.isHigh);
});

t.test("Uart16550 says received data at the trigger level and timeout below it", async (t) => {
  for (const [control, level] of [
    [0x01, 1],
    [0x41, 4],
    [0x81, 8],
    [0xc1, 14],
  ] as const) {
    const { uart, read, write, line } = build();
    write(MCR, 0x08);
    write(IER, 0x01);
    write(FCR, control);
    uart.receive(count(level));
    t.equal(read(IIR), 0xc4, `level ${level}`);
    read(DATA);
    t.equal(read(IIR), level === 1 ? 0xc1 : 0xcc, `below level ${level}`);
    for (let index = 1; index < level; index++) read(DATA);
    t.equal(read(IIR), 0xc1, "empty");
    t.notOk(line.isHigh);
  }
});

t.test("Uart16550.receive() takes what fits and asks for the rest when the guest has read all", async (t) => {
  const { uart, state, read, write, drain } = build();
  write(FCR, 0x01);
  t.equal(uart.receive(count(10)), 10);
  t.equal(uart.receive(count(10, 10)), 6);
  t.equal(uart.receive(count(4, 16)), 0);
  for (let index = 0; index < 15; index++) read(DATA);
  t.equal(state.rooms, 0);
  t.equal(read(DATA), 15);
  t.equal(state.rooms, 1);
  t.equal(uart.receive(count(4, 16)), 4);
  t.same(drain(), [16, 17, 18, 19]);
  t.equal(state.rooms, 1, "nothing was refused since");
});

t.test("Uart16550.receive() holds one byte without FIFOs", async (t) => {
  const { uart, state, read } = build();
  t.equal(uart.receive(bytes(1, 2)), 1);
  t.equal(read(LSR) & 0x01, 0x01);
  t.equal(read(DATA), 1);
  t.equal(state.rooms, 1);
  t.equal(read(LSR) & 0x03, 0x00, "no overrun");
});

t.test("Uart16550.receive() takes nothing in loopback and asks again after it", async (t) => {
  const { uart, state, write } = build();
  write(MCR, 0x10);
  t.equal(uart.receive(bytes(1)), 0);
  write(DATA, 0x55);
  write(FCR, 0x01); // empties the receiver, still looped
  t.equal(state.rooms, 0);
  write(MCR, 0x00);
  t.equal(state.rooms, 1);
});

t.test("Uart16550 clears the receiver when FCR says so and when FIFOs go on or off", async (t) => {
  const { uart, write, read } = build();
  for (const control of [0x01, 0x03, 0x00]) {
    uart.receive(bytes(1));
    t.equal(read(LSR) & 0x01, 0x01);
    write(FCR, control);
    t.equal(read(LSR) & 0x01, 0x00, `FCR ${control}`);
  }
  uart.receive(bytes(1));
  write(FCR, 0x02);
  t.equal(read(LSR) & 0x01, 0x01, "without the enable bit it says nothing");
});

t.test("Uart16550 puts line status before data before transmitter before modem status", async (t) => {
  const { read, write } = build();
  write(FCR, 0x00);
  write(MCR, 0x10);
  write(IER, 0x0f);
  write(DATA, 0x01);
  write(DATA, 0x02);
  t.equal(read(IIR), 0x06);
  t.equal(read(LSR) & 0x02, 0x02);
  t.equal(read(LSR) & 0x02, 0x00, "reading clears the overrun");
  t.equal(read(IIR), 0x04);
  t.equal(read(DATA), 0x02, "without FIFOs the newer byte stays");
  t.equal(read(IIR), 0x02);
  t.equal(read(IIR), 0x00, "modem status");
  t.equal(read(MSR) & 0x0f, 0x0b, "CTS, DSR and DCD fell when the loop was closed");
  t.equal(read(IIR), 0x01);
});

t.test("Uart16550 shows a connected modem, and the trailing edge of RI in loopback", async (t) => {
  const { read, write } = build();
  t.equal(read(MSR), 0xb0);
  write(MCR, 0x14);
  t.equal(read(MSR) & 0x44, 0x40, "RI has risen: no change is flagged");
  write(MCR, 0x10);
  t.equal(read(MSR), 0x04);
});

t.test("Uart16550 takes a wide access as one for each register", async (t) => {
  const { uart, read, sent } = build();
  uart.write(DATA, 2, 0x0541);
  t.same(sent, [0x41]);
  t.equal(read(IER), 0x05);
  t.equal(uart.read(LCR, 4), 0xb060_0000);
});

t.test("Uart16550.reset() goes back to the state after power-on", async (t) => {
  const { uart, read, write, line, state } = build();
  write(FCR, 0xc1);
  write(MCR, 0x0f);
  write(IER, 0x0f);
  write(SCR, 0x77);
  uart.receive(count(20));
  t.ok(line.isHigh);
  uart.reset();
  t.notOk(line.isHigh);
  t.same([IER, IIR, LCR, MCR, LSR, MSR, SCR].map(read), [0x00, 0x01, 0x00, 0x00, 0x60, 0xb0, 0x00]);
  t.equal(state.rooms, 1, "input that waited comes now");
});
