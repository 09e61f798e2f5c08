import t from "tap";
import { intxGsi, layoutMemory } from "../../../src/vmm/memory-map.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

t.test("layoutMemory() keeps RAM up to 3 GiB in one piece and puts the 64-bit window at 4 GiB", async (t) => {
  const layout = layoutMemory(512 * MIB, 46);
  t.same(layout.ram, [{ gpa: 0, sizeBytes: 512 * MIB, fileOffset: 0 }]);
  t.same(layout.pciWindow32, { base: 0xc000_0000, sizeBytes: 0x2800_0000 });
  t.equal(layout.pciWindow64?.base, 4 * GIB);
});

t.test("layoutMemory() splits larger RAM at 3 GiB and goes on at 4 GiB", async (t) => {
  const layout = layoutMemory(16 * GIB, 46);
  t.same(layout.ram, [
    { gpa: 0, sizeBytes: 3 * GIB, fileOffset: 0 },
    { gpa: 4 * GIB, sizeBytes: 13 * GIB, fileOffset: 3 * GIB },
  ]);
  t.equal(layout.pciWindow64?.base, 20 * GIB);
});

t.test("layoutMemory() ends the 64-bit window where a 39-bit IOMMU ends, or where the CPU does", async (t) => {
  const end = (window: { base: number; sizeBytes: number } | undefined): number =>
    (window?.base ?? 0) + (window?.sizeBytes ?? 0);
  t.equal(end(layoutMemory(GIB, 46).pciWindow64), 2 ** 39);
  t.equal(end(layoutMemory(GIB, 36).pciWindow64), 2 ** 36);
  t.equal(end(layoutMemory(600 * GIB, 46).pciWindow64), 2 ** 46, "RAM beyond 39 bits leaves no choice");
});

t.test("layoutMemory() refuses RAM that the CPU cannot address", async (t) => {
  t.throws(() => layoutMemory(80 * GIB, 36), /36 physical address bits/);
});

t.test("layoutMemory() reports RAM without the legacy hole, and no entry overlaps another", async (t) => {
  const { map } = layoutMemory(4 * GIB, 40);
  const sorted = [...map].sort((a, b) => a.address - b.address);
  for (const [index, entry] of sorted.entries()) {
    const next = sorted[index + 1];
    if (next !== undefined)
      t.ok(entry.address + entry.sizeBytes <= next.address, `${entry.address} ends before ${next.address}`);
  }
  const ram = map.filter((entry) => entry.kind === "ram").reduce((sum, entry) => sum + entry.sizeBytes, 0);
  t.equal(ram, 4 * GIB - (0x10_0000 - 0xa_0000));
  t.ok(
    map.some((entry) => entry.kind === "reserved" && entry.address === 0xe800_0000),
    "ECAM is reserved",
  );
});

t.test("intxGsi() spreads slots and pins over I/O APIC pins 16 to 23", async (t) => {
  t.equal(intxGsi(0, 1), 16);
  t.equal(intxGsi(3, 1), 19);
  t.equal(intxGsi(3, 4), 22);
  t.equal(intxGsi(31, 4), 18);
});
