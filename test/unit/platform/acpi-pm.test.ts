import t from "tap";
import { AcpiPm } from "../../../src/platform/acpi-pm.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { FakeLine } from "../../support/fake-line.ts";

function build() {
  const clock = new FakeClock("2026-01-02T03:04:05Z");
  const line = new FakeLine(9);
  const asked: string[] = [];
  const reports: string[] = [];
  const pm = new AcpiPm(
    clock,
    line,
    {
      powerOff: () => asked.push("power off"),
      reset: () => asked.push("reset"),
      ejectSlot: (slot) => asked.push(`eject ${slot}`),
    },
    (level, text) => reports.push(`${level}: ${text}`),
  );
  return { pm, clock, line, asked, reports };
}

t.test("AcpiPm powers off when SLP_EN is written with type 5", async (t) => {
  const { pm, asked } = build();
  pm.write(0, 1, 0x14); // type 5 without SLP_EN
  t.same(asked, []);
  pm.write(0, 1, 0x34);
  t.same(asked, ["power off"]);
});

t.test("AcpiPm reports another sleep type once and goes on", async (t) => {
  const { pm, asked, reports } = build();
  pm.write(0, 1, 0x2c);
  pm.write(0, 1, 0x2c);
  t.same(asked, []);
  t.same(reports, ["warn: Guest asked for sleep type 3: only power off (5) exists"]);
});

t.test("AcpiPm resets on the FADT's reset value only", async (t) => {
  const { pm, asked, reports } = build();
  pm.write(2, 1, 0x02);
  t.same(asked, []);
  t.equal(reports.length, 1);
  pm.write(2, 1, 0x01);
  t.same(asked, ["reset"]);
});

t.test("AcpiPm.pressPowerButton() holds the line until the guest has cleared the status", async (t) => {
  const { pm, line } = build();
  t.equal(pm.read(3, 1), 0);
  pm.pressPowerButton();
  t.ok(line.isHigh);
  t.equal(pm.read(3, 1), 1);
  pm.write(3, 1, 0);
  t.ok(line.isHigh, "zeros clear nothing");
  pm.write(3, 1, 1);
  t.notOk(line.isHigh);
  t.equal(pm.read(3, 1), 0);
  pm.pressPowerButton();
  t.equal(line.rises, 2);
  pm.reset();
  t.notOk(line.isHigh);
});

t.test("AcpiPm counts 3.579545 MHz in 32 bits from its start", async (t) => {
  const { pm, clock } = build();
  t.equal(pm.read(8, 4), 0);
  clock.advanceMs(1000);
  t.equal(pm.read(8, 4), 3_579_545);
  clock.advanceMs(3_600_000 - 1000);
  t.equal(pm.read(8, 4), (3_579_545 * 3600) % 2 ** 32);
  pm.write(8, 4, 0);
  t.equal(pm.read(8, 4), (3_579_545 * 3600) % 2 ** 32, "read-only");
});

t.test("AcpiPm never wakes: the sleep status reads zero", async (t) => {
  const { pm } = build();
  pm.write(1, 1, 0x80);
  t.equal(pm.read(1, 1), 0);
  t.equal(pm.read(0, 1), 0);
});

t.test(
  "AcpiPm.requestEject() holds the line until the guest has cleared the event, and keeps the slots apart",
  async (t) => {
    const { pm, line } = build();
    pm.requestEject(3);
    pm.requestEject(31);
    t.ok(line.isHigh);
    t.equal(pm.read(3, 1), 2);
    t.equal(pm.read(4, 4), 0x8000_0008);
    pm.write(3, 1, 2);
    t.notOk(line.isHigh);
    pm.write(4, 4, 0x8000_0000);
    t.equal(pm.read(4, 4), 8, "the other request stands");
    pm.requestEject(3);
    t.ok(line.isHigh, "asked again");
    pm.reset();
    t.notOk(line.isHigh);
    t.equal(pm.read(4, 4), 0);
  },
);

t.test("AcpiPm clears requests in the bytes of a narrow write only", async (t) => {
  const { pm } = build();
  for (const slot of [0, 1, 9, 31]) pm.requestEject(slot);
  pm.write(4, 1, 0x02);
  t.equal(pm.read(4, 4), 0x8000_0201);
  pm.write(6, 2, 0x8000);
  t.equal(pm.read(4, 4), 0x0000_0201);
});

t.test("AcpiPm tells which slots a guest lets go of, asked or not", async (t) => {
  const { pm, asked } = build();
  pm.write(12, 4, 0x8000_0008);
  t.same(asked, ["eject 3", "eject 31"]);
  pm.write(12, 4, 0);
  t.equal(pm.read(12, 4), 0, "write-only");
  t.equal(asked.length, 2);
});
