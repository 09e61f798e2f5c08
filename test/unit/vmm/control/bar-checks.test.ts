import t from "tap";
import { HostError } from "../../../../src/base/errors.ts";
import { type HostFunction, readFunction } from "../../../../src/host-pci/functions.ts";
import { checkBarPlaces } from "../../../../src/vmm/control/bar-checks.ts";
import { layoutMemory } from "../../../../src/vmm/control/memory-layout.ts";
import { fakeSysfs } from "../../../support/fake-sysfs.ts";

const GIB = 2 ** 30;
const CLIENT = { bits: 39, isAmd: false };

const word = (value: number): string => `0x${value.toString(16).padStart(16, "0")}`;
/** A line of sysfs `resource`, with the flags as the kernel shows them. */
const line = (start: number, sizeBytes: number, flags: number): string =>
  [start, start + sizeBytes - 1, flags].map(word).join(" ");
const NONE = [0, 0, 0].map(word).join(" ");
const PREFETCHABLE_64 = 0x14_220c;
const MEMORY_32 = 0x4_0200;
const PORTS = 0x4_0101;

function gpus(directory: string, count: number, barBytes: number): readonly HostFunction[] {
  const bdfs = Array.from({ length: count }, (_, index) => `0000:0${index + 1}:00.0`);
  const host = fakeSysfs(
    directory,
    bdfs.map((bdf, index) => ({
      bdf,
      resource: [
        line(0xd000_0000 + 0x100_0000 * index, 0x100_0000, MEMORY_32),
        line(2 ** 44 + index * barBytes, barBytes, PREFETCHABLE_64),
        NONE,
        NONE,
        NONE,
        line(0xe000, 0x80, PORTS),
        line(0xdf00_0000, 0x8_0000, 0x4_6200),
      ],
    })),
  );
  return bdfs.map((bdf) => readFunction(host.path(bdf))).filter((found) => found !== undefined);
}

t.test("checkBarPlaces() reads BARs of each kind from sysfs and finds places for them", async (t) => {
  const bars = checkBarPlaces(gpus(t.testdir(), 1, 64 * GIB), layoutMemory(GIB, CLIENT), false);
  t.same(bars, [
    { owner: "0000:01:00.0", request: { kind: "mem32", index: 0, sizeBytes: 0x100_0000, isPrefetchable: false } },
    { owner: "0000:01:00.0", request: { kind: "mem64", index: 1, sizeBytes: 64 * GIB, isPrefetchable: true } },
    { owner: "0000:01:00.0", request: { kind: "io", index: 5, sizeBytes: 0x80 } },
    { owner: "0000:01:00.0", request: { kind: "rom", index: 6, sizeBytes: 0x8_0000 } },
  ]);
});

t.test("checkBarPlaces() refuses a 64-bit BAR with device, BAR, sizes and what to do", async (t) => {
  const functions = gpus(t.testdir(), 4, 128 * GIB);
  t.throws(
    () => checkBarPlaces(functions, layoutMemory(4 * GIB, CLIENT), false),
    new HostError(
      "TSVMM_BAR_NO_ROOM",
      "Cannot place BAR 1 of 0000:04:00.0: 64-bit memory of 128 GiB has no room; BARs of this kind take 512 GiB, the " +
        "guest has 0x200000000-0x7fffffffff for them",
      "give the guest less memory or fewer devices, or make a resizable BAR smaller on the host: " +
        "/sys/bus/pci/devices/0000:04:00.0/resource1_resize",
    ),
  );
  const [one] = functions;
  t.doesNotThrow(() => checkBarPlaces(one === undefined ? [] : [one], layoutMemory(300 * GIB, CLIENT), false));
  t.throws(
    () => checkBarPlaces(functions.slice(0, 2), layoutMemory(300 * GIB, CLIENT), false),
    /Cannot place BAR 1 of 0000:02:00\.0: .* take 256 GiB, the guest has 0x4c00000000-0x7fffffffff for them/,
  );
});

t.test("checkBarPlaces() refuses what only the 32-bit window or the ports could hold", async (t) => {
  const host = fakeSysfs(t.testdir(), [
    { bdf: "0000:01:00.0", resource: [line(0x8000_0000, GIB, MEMORY_32)] },
    { bdf: "0000:02:00.0", resource: [line(0, 0x1_0000, PORTS)] },
  ]);
  const check = (bdf: string): unknown => {
    const found = readFunction(host.path(bdf));
    return checkBarPlaces(found === undefined ? [] : [found], layoutMemory(GIB, CLIENT), false);
  };
  t.throws(
    () => check("0000:01:00.0"),
    /BAR 0 of 0000:01:00\.0: 32-bit memory of 1 GiB has no room; .* 0xc0000000-0xe7ffffff .*\(pass fewer devices\)/,
  );
  t.throws(() => check("0000:02:00.0"), /BAR 0 of 0000:02:00\.0: a range of ports of 64 KiB .* 0x1000-0xffff for them/);
});
