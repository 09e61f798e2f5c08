import { closeSync, openSync, readSync } from "node:fs";
import t from "tap";
import { Bus } from "../../../../src/base/bus.ts";
import { gpa, PAGE_SIZE } from "../../../../src/base/units.ts";
import { GuestRam } from "../../../../src/host/memory/guest-ram.ts";
import { attachDebugExit, attachTestDevice } from "../../../../src/vmm/device/test-ports.ts";
import { FakeLine } from "../../../support/fake-line.ts";

/**
 * Whether a page of this process is in its page table: bit 63 of its entry. Linux
 * Documentation/admin-guide/mm/pagemap.rst
 */
function isPresent(address: number): boolean {
  const entry = new DataView(new ArrayBuffer(8));
  const file = openSync("/proc/self/pagemap", "r");
  readSync(file, entry, 0, 8, (address / PAGE_SIZE) * 8);
  closeSync(file);
  return entry.getUint32(4, true) >>> 31 === 1;
}

t.test("attachTestDevice()'s flush port takes a page out of the page table, and its content stays", async (t) => {
  const memory = GuestRam.create({ regions: [{ gpa: gpa(0), sizeBytes: 0x40_0000, fileOffset: 0 }] });
  t.teardown(() => memory.close());
  const [ports, mmio] = [new Bus("port"), new Bus("MMIO")];
  const lines = new Map<number, FakeLine>();
  const line = (gsi: number): FakeLine => lines.set(gsi, new FakeLine(gsi)).get(gsi) ?? new FakeLine();
  attachTestDevice({ ports, mmio, memory, line, print: () => undefined, report: (_level, text) => t.fail(text) });
  memory.writeU32(gpa(0x20_1008), 0xcafe_f00d);
  const host = memory.hostAddress(gpa(0x20_1000), PAGE_SIZE) ?? Number.NaN;
  t.equal(isPresent(host), true);
  ports.write(0xe4, 4, 0x20_1abc);
  t.equal(isPresent(host), false);
  t.equal(memory.readU32(gpa(0x20_1008)), 0xcafe_f00d);
  ports.write(0xe4, 4, 0x1000_0000); // no RAM: nothing happens
  ports.write(0x200f, 1, 1);
  t.equal(lines.get(15)?.isHigh, true);
});

t.test("attachDebugExit() refuses a port that is taken, and hands values on", async (t) => {
  const ports = new Bus("port");
  const values: number[] = [];
  attachDebugExit(ports, 0xf4, (value) => values.push(value));
  t.throws(() => attachDebugExit(ports, 0xf7, () => undefined), {
    name: "SpecError",
    message: "debugExitPort: 0xf7 is taken: debug-exit is there",
  });
  ports.write(0xf4, 4, 0x1234);
  t.same(values, [0x1234]);
});
