import t, { type Test } from "tap";
import type { BusDevice } from "../../../src/base/bus.ts";
import type { Width } from "../../../src/base/units.ts";
import { AcpiPm } from "../../../src/platform/acpi-pm.ts";
import { DebugConsolePort } from "../../../src/platform/debug-port.ts";
import { I8042 } from "../../../src/platform/i8042.ts";
import { RtcCmos } from "../../../src/platform/rtc-cmos.ts";
import { SerialPort } from "../../../src/platform/serial-port.ts";
import { FakeChar } from "../../support/fake-char.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { FakeLine } from "../../support/fake-line.ts";

/** xorshift32: the same numbers every time. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

const WIDTHS: readonly Width[] = [1, 2, 4];
const ACCESSES = 20_000;

function fuzz(t: Test, device: BusDevice, sizeBytes: number, between: (random: () => number) => void): void {
  const random = randomNumbers(0x7357_0001);
  let misfits = 0;
  for (let access = 0; access < ACCESSES; access++) {
    const width = WIDTHS[random() % 3] ?? 1;
    const offset = random() % sizeBytes;
    if (random() % 2 === 0) {
      device.write(offset, width, random() % 2 ** (8 * width));
    } else {
      const value = device.read(offset, width);
      if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * width)) misfits++;
    }
    if (access % 16 === 0) between(random);
  }
  t.equal(misfits, 0, "every read fits its width");
}

t.test("Uart16550 withstands random accesses and input, and loses no interrupt", async (t) => {
  const backend = new FakeChar();
  const line = new FakeLine(4);
  const port = new SerialPort("COM1", line, backend, () => undefined);
  fuzz(t, port.uart, 8, (random) => {
    if (backend.waitingBytes < 64) backend.type("x".repeat(random() % 20));
    port.flush();
    // The line is high exactly when IIR names a source and the gate is open; looking may take the transmitter's.
    const isGateOpen = (port.uart.read(4, 1) & 0x18) === 0x08;
    const wasHigh = line.isHigh;
    const hasSource = (port.uart.read(2, 1) & 0x01) === 0;
    if (wasHigh !== (isGateOpen && hasSource)) t.fail("line and IIR disagree");
  });
  port.uart.write(3, 1, 0x03);
  port.uart.write(4, 1, 0x00);
  port.uart.write(2, 1, 0x00);
  port.uart.reset();
  while ((port.uart.read(5, 1) & 0x01) !== 0) port.uart.read(0, 1);
  t.equal(backend.waitingBytes, 0, "input still flows");
});

t.test("RtcCmos withstands random accesses", async (t) => {
  const clock = new FakeClock("2026-02-28T23:59:58Z");
  fuzz(t, new RtcCmos(clock, { lowBytes: 2 ** 31, highBytes: 0 }), 2, (random) => clock.advanceMs(random() % 100_000));
});

t.test("AcpiPm, I8042 and DebugConsolePort withstand random accesses", async (t) => {
  const clock = new FakeClock("2026-01-01T00:00:00Z");
  const events = { powerOff: () => undefined, reset: () => undefined, ejectSlot: () => undefined };
  const pm = new AcpiPm(clock, new FakeLine(9), events);
  fuzz(t, pm, 16, (random) => {
    clock.advanceMs(random() % 1000);
    pm.pressPowerButton();
    pm.requestEject(random() % 32);
  });
  fuzz(t, new I8042(() => undefined), 5, () => undefined);
  const console = new DebugConsolePort(new FakeChar(), () => undefined);
  for (const width of WIDTHS) console.write(0, width, 0xffff_ffff);
  t.equal(console.read(0, 1), 0xe9);
});
