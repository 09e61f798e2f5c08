import t from "tap";
import { ReportLimit } from "../../../src/base/report-limit.ts";

function setUp() {
  const lines: string[] = [];
  const clock = { now: 0 };
  const limit = new ReportLimit(
    (level, text) => lines.push(`${level} ${text}`),
    () => clock.now,
  );
  return { limit, clock, take: () => lines.splice(0) };
}

t.test("ReportLimit tells ten lines of a kind, then one in ten seconds with the number of the others", async (t) => {
  const { limit, clock, take } = setUp();
  for (let index = 0; index < 1000; index++) limit.report("warn", `no memory at 0x${index.toString(16)}`);
  t.same(take(), [
    ...Array.from({ length: 9 }, (_, index) => `warn no memory at 0x${index}`),
    "warn no memory at 0x9 (more like this are counted)",
  ]);
  clock.now = 9999;
  limit.report("warn", "no memory at 0x1");
  t.same(take(), []);
  clock.now = 10_000;
  limit.report("warn", "no memory at 0x2");
  limit.report("warn", "no memory at 0x3");
  t.same(take(), ["warn no memory at 0x2 (and 991 more like this before)"]);
  clock.now = 1_000_000;
  for (let index = 0; index < 20; index++) limit.report("warn", `no memory at 0x${index}`);
  t.equal(take().length, 10, "ten again after a quiet time");
});

t.test("ReportLimit.settle() tells what was only counted, once", async (t) => {
  const { limit, take } = setUp();
  for (let index = 0; index < 13; index++) limit.report("info", `the guest resets after ${index} ms`);
  for (let index = 0; index < 11; index++) limit.report("warn", "a queue is wrong");
  take();
  limit.settle();
  t.same(take(), ["info the guest resets after 12 ms (and 2 more like this before)", "warn a queue is wrong"]);
  limit.settle();
  t.same(take(), []);
});

t.test("ReportLimit takes names and levels for kinds of their own, numbers not", async (t) => {
  const { limit, take } = setUp();
  const texts = [
    "disk0: lost 5 bytes",
    "disk1: lost 5 bytes",
    "0000:01:00.0 is lost",
    "0000:02:00.0 is lost",
    "/tmp/1a",
  ];
  for (let round = 0; round < 10; round++) {
    for (const text of texts) {
      limit.report("warn", text);
      limit.report("error", text);
    }
  }
  t.equal(take().length, 10 * 2 * texts.length);
  for (const text of ["disk0: lost 4,096 bytes", "disk0: lost 0x40 bytes", "disk0: lost 18446744073709551615 bytes"]) {
    limit.report("warn", text);
  }
  t.same(take(), []);
});

t.test("ReportLimit bounds the kinds that it counts apart", async (t) => {
  const { limit, take } = setUp();
  for (let index = 0; index < 10_000; index++) limit.report("warn", `name${index}`);
  t.equal(take().length, 210, "200 kinds, and ten lines of all others");
});

t.test("ReportLimit passes details on", async (t) => {
  const seen: unknown[] = [];
  new ReportLimit((...line) => seen.push(line)).report("debug", "odd", { vcpu: 3 });
  t.same(seen, [["debug", "odd", { vcpu: 3 }]]);
});
