import t from "tap";
import { formatBdf, parseBdf } from "../../../src/pci/bdf.ts";

t.test("parseBdf() reads the long and the short form", async (t) => {
  t.same(parseBdf("0000:01:00.0"), { segment: 0, bus: 1, device: 0, function: 0 });
  t.same(parseBdf("01:00.0"), { segment: 0, bus: 1, device: 0, function: 0 });
  t.same(parseBdf("abCD:fe:1f.7"), { segment: 0xabcd, bus: 0xfe, device: 31, function: 7 });
});

t.test("parseBdf() and formatBdf() take domains of more than four digits, as Linux numbers those of VMD", async (t) => {
  for (const text of ["10000:e1:00.0", "10001:80:05.0", "7fffffff:00:00.0"]) {
    const bdf = parseBdf(text);
    t.equal(bdf === undefined ? undefined : formatBdf(bdf), text);
  }
  t.equal(parseBdf("10000:e1:00.0")?.segment, 0x1_0000);
});

t.test("parseBdf() answers undefined for what is no address", async (t) => {
  for (const text of [
    "",
    "1:0.0",
    "00:20.0",
    "00:1f.8",
    "00:00",
    "0000:00:00.0 ",
    "000:00:00.0",
    "123456789:00:00.0",
    "g0:00.0",
    "00:00.00",
  ]) {
    t.equal(parseBdf(text), undefined, JSON.stringify(text));
  }
});

t.test("formatBdf() writes what sysfs writes", async (t) => {
  t.equal(formatBdf({ segment: 0, bus: 1, device: 0, function: 0 }), "0000:01:00.0");
  t.equal(formatBdf({ segment: 0x10, bus: 0xaf, device: 31, function: 7 }), "0010:af:1f.7");
});
