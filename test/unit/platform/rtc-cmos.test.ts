import t from "tap";
import { RtcCmos } from "../../../src/platform/rtc-cmos.ts";
import { FakeClock } from "../../support/fake-clock.ts";

const GIB = 2 ** 30;

function build(utc = "2026-11-23T14:05:59.250Z", lowBytes = 2 * GIB, highBytes = 0) {
  const clock = new FakeClock(utc);
  const chip = new RtcCmos(clock, { lowBytes, highBytes });
  const read = (index: number): number => {
    chip.write(0, 1, index);
    return chip.read(1, 1);
  };
  const write = (index: number, value: number): void => {
    chip.write(0, 1, index);
    chip.write(1, 1, value);
  };
  /** Century, year, month, day, hours, minutes, seconds, day of the week. */
  const time = (): readonly number[] => [0x32, 9, 8, 7, 4, 2, 0, 6].map(read);
  return { clock, chip, read, write, time };
}

t.test("RtcCmos shows the host's UTC in BCD and 24 hours after power-on", async (t) => {
  const { time, read } = build();
  t.equal(read(0x0b), 0x02);
  t.same(time(), [0x20, 0x26, 0x11, 0x23, 0x14, 0x05, 0x59, 0x02]); // a Monday
});

t.test("RtcCmos goes with the host's clock", async (t) => {
  const { clock, time } = build();
  clock.advanceMs(750);
  t.same(time().slice(4, 7), [0x14, 0x06, 0x00]);
});

t.test("RtcCmos shows binary numbers and 12 hours when register B says so", async (t) => {
  const afternoon = build();
  afternoon.write(0x0b, 0x04);
  t.same(afternoon.time(), [20, 26, 11, 23, 0x82, 5, 59, 2]);
  const midnight = build("2026-01-01T00:30:00Z");
  midnight.write(0x0b, 0x00);
  t.equal(midnight.read(4), 0x12);
  const noon = build("2026-01-01T12:30:00Z");
  noon.write(0x0b, 0x00);
  t.equal(noon.read(4), 0x92);
});

t.test("RtcCmos is set field by field while SET is on, whatever the old date was", async (t) => {
  const { clock, read, write, time } = build("2026-01-31T23:59:59.900Z");
  write(0x0b, 0x82);
  write(9, 0x30);
  write(8, 0x02); // the 31st of February, until the day follows
  write(7, 0x10);
  write(4, 0x08);
  write(2, 0x09);
  write(0, 0x10);
  clock.advanceMs(5000);
  t.same(time(), [0x20, 0x30, 0x02, 0x10, 0x08, 0x09, 0x10, 0x01], "stopped");
  write(0x0b, 0x02);
  t.equal(read(0), 0x10);
  clock.advanceMs(3000);
  t.equal(read(0), 0x13, "running again");
});

t.test("RtcCmos takes a single field while it runs", async (t) => {
  const { read, write, time } = build();
  write(2, 0x30);
  t.same(time().slice(4, 7), [0x14, 0x30, 0x59]);
  write(0x32, 0x19);
  write(0x09, 0x99);
  t.same([read(0x32), read(0x09)], [0x19, 0x99]);
});

t.test("RtcCmos understands 12-hour times", async (t) => {
  const { write, read } = build();
  write(0x0b, 0x00);
  write(4, 0x12); // midnight
  write(0x0b, 0x02);
  t.equal(read(4), 0x00);
  write(0x0b, 0x00);
  write(4, 0x91); // 11 in the evening
  write(0x0b, 0x02);
  t.equal(read(4), 0x23);
});

t.test("RtcCmos is never in an update and always valid", async (t) => {
  const { read, write } = build();
  t.equal(read(0x0a), 0x26);
  write(0x0a, 0xaf);
  t.equal(read(0x0a), 0x2f);
  write(0x0d, 0);
  t.equal(read(0x0d), 0x80);
});

t.test("RtcCmos flags an ended update once a second", async (t) => {
  const { clock, read, write } = build("2026-01-01T00:00:00.500Z");
  t.equal(read(0x0c), 0);
  clock.advanceMs(400);
  t.equal(read(0x0c), 0);
  clock.advanceMs(200);
  t.equal(read(0x0c), 0x10);
  t.equal(read(0x0c), 0, "reading clears it");
  write(0x0b, 0x12);
  clock.advanceMs(1000);
  t.equal(read(0x0c), 0x90, "with the interrupt enabled");
});

t.test("RtcCmos tells RAM sizes where PC firmware leaves them", async (t) => {
  const sizes = (lowBytes: number, highBytes: number) => {
    const { read } = build(undefined, lowBytes, highBytes);
    const pair = (index: number): number => read(index) + 256 * read(index + 1);
    return [pair(0x15), pair(0x17), pair(0x30), pair(0x34), read(0x5b) + 256 * pair(0x5c)];
  };
  t.same(sizes(3 * GIB, 5 * GIB), [640, 0xffff, 0xffff, (3 * GIB - 16 * 2 ** 20) / 65536, (5 * GIB) / 65536]);
  t.same(sizes(2 ** 20 * 8, 0), [640, 7 * 1024, 7 * 1024, 0, 0]);
});

t.test("RtcCmos keeps the other bytes and ignores the NMI bit of the index", async (t) => {
  const { read, write, chip } = build();
  write(0x8f, 0x0a);
  t.equal(read(0x0f), 0x0a);
  write(0x7f, 0x55);
  t.equal(read(0x7f), 0x55);
  t.equal(chip.read(0, 1), 0xff, "the index cannot be read");
});

t.test("RtcCmos counts from 9999-12-31 on to 0000-01-01, and back", async (t) => {
  const { clock, write, time } = build("2026-06-01T23:59:59.500Z");
  write(0x32, 0x99);
  write(9, 0x99);
  write(8, 0x12);
  write(7, 0x31);
  t.same(time(), [0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59, 0x06], "a Friday");
  clock.advanceMs(500);
  t.same(time(), [0x00, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x07], "a Saturday");
  write(8, 0x00); // the month before January
  t.same(time(), [0x99, 0x99, 0x12, 0x01, 0x00, 0x00, 0x00, 0x04], "a Wednesday");
});

t.test("RtcCmos can be set after any number of impossible years, with SET and without", async (t) => {
  const { write, read, time } = build();
  for (let count = 0; count < 3000; count++) {
    write(9, 0xff);
    if (read(8) !== 0x11) t.fail(`month ${read(8)} after ${count} writes`);
  }
  const newYear = [0x20, 0x26, 0x01, 0x01, 0x00, 0x00, 0x00];
  const set = (): void => {
    for (const [place, index] of [0x32, 9, 8, 7, 4, 2, 0].entries()) write(index, newYear[place] ?? 0);
  };
  set();
  t.same(time(), [...newYear, 0x05], "running");
  write(0x0b, 0x82);
  for (let count = 0; count < 3000; count++) write(9, 0xff);
  t.same(time().slice(0, 3), [0x20, 0xff, 0x01], "the century stays what it was");
  write(0x0b, 0x02);
  write(0x0b, 0x82);
  set();
  write(0x0b, 0x02);
  t.same(time(), [...newYear, 0x05], "with SET");
});

t.test("RtcCmos shows what was written while SET is on, and ends no update", async (t) => {
  const { clock, write, read } = build();
  read(0x0c);
  write(0x0b, 0x82);
  for (const index of [0, 2, 4, 7, 8, 9, 0x32]) write(index, 0x9f + (index & 0x0f));
  t.same([0, 2, 4, 7, 8, 9, 0x32].map(read), [0x9f, 0xa1, 0xa3, 0xa6, 0xa7, 0xa8, 0xa1]);
  clock.advanceMs(3000);
  t.equal(read(0x0c), 0);
});

t.test("RtcCmos takes the time in the mode that it was written in", async (t) => {
  const { write, time } = build();
  write(0x0b, 0x80 | 0x04 | 0x02); // stopped, and binary from here on
  for (const [index, value] of [
    [0x32, 20],
    [9, 31],
    [8, 12],
    [7, 25],
    [4, 18],
    [2, 45],
    [0, 58],
  ] as const) {
    write(index, value);
  }
  write(0x0b, 0x02);
  t.same(time(), [0x20, 0x31, 0x12, 0x25, 0x18, 0x45, 0x58, 0x05], "and shown in BCD");
});

t.test("RtcCmos answers numbers whatever the guest sets", async (t) => {
  const { clock, read, write } = build();
  const wrong: string[] = [];
  for (const mode of [0x80, 0x82, 0x84, 0x86, 0x00, 0x06]) {
    write(0x0b, mode);
    for (const index of [0, 2, 4, 7, 8, 9, 0x32]) {
      write(index, 0xff);
      clock.advanceMs(1);
    }
    write(0x0b, mode & 0x7f);
    for (let index = 0; index < 128; index++) {
      const value = read(index);
      if (!Number.isInteger(value) || value < 0 || value > 255) wrong.push(`register ${index} reads ${value}`);
    }
  }
  t.same(wrong, [], "every register is a byte");
});
