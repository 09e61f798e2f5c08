import t from "tap";
import { gpa } from "../../../../src/base/units.ts";
import { layoutMemory } from "../../../../src/vmm/control/memory-layout.ts";
import { writeAcpi } from "../../../../src/vmm/device/acpi.ts";
import { completeSpec } from "../../../../src/vmm/spec/spec-check.ts";
import { FakeGuestMemory } from "../../../support/fake-memory.ts";

const GIB = 2 ** 30;

interface Window {
  readonly base: number;
  readonly sizeBytes: number;
}

/** Address space descriptors of a type with this many bytes a number, found by their first bytes. ACPI 6.5 §6.4.3.5 */
function descriptors(bytes: Uint8Array, head: readonly number[], width: 2 | 4 | 8): readonly Window[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const read = (at: number): number => {
    if (width === 2) return view.getUint16(at, true);
    return width === 4 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
  };
  const found: Window[] = [];
  for (let at = 0; at + 6 + 5 * width <= bytes.length; at++) {
    if (!head.every((byte, index) => bytes[at + index] === byte)) continue;
    const base = read(at + 6 + width);
    t.equal(read(at + 6 + 2 * width), base + read(at + 6 + 4 * width) - 1, "the last one is first + length - 1");
    found.push({ base, sizeBytes: read(at + 6 + 4 * width) });
  }
  return found;
}

t.test("writeAcpi() offers in _CRS what the PCI root decodes, and nothing else", async (t) => {
  for (const hasTestDevice of [false, true]) {
    const machine = completeSpec({ kernel: process.execPath, hasTestDevice });
    const iova = [
      { start: 0, end: 0xfedf_ffff },
      { start: 0xfef0_0000, end: 2 ** 39 - 1 },
    ];
    const layout = layoutMemory(4 * GIB, { bits: 48, isAmd: true }, iova);
    const memory = new FakeGuestMemory([{ gpa: 0, sizeBytes: 0x10_0000 }]);
    writeAcpi({ machine, memory, layout, ejectableSlots: [] });
    const tables = new Uint8Array(0x2_0000);
    memory.read(gpa(0xe_0000), tables);
    t.same(
      descriptors(tables, [0x88, 13, 0, 1], 2),
      hasTestDevice
        ? [
            { base: 0x1000, sizeBytes: 0x1000 },
            { base: 0x3000, sizeBytes: 0xd000 },
          ]
        : [{ base: 0x1000, sizeBytes: 0xf000 }],
      "no port of the serial interface, ACPI, or the clock",
    );
    t.same(descriptors(tables, [0x87, 23, 0, 0], 4), [{ base: 0xc000_0000, sizeBytes: 0x2800_0000 }]);
    t.same(
      descriptors(tables, [0x8a, 43, 0, 0], 8),
      [
        { base: 0x2_0000_0000, sizeBytes: 2 ** 39 - 0x2_0000_0000 },
        { base: 2 ** 39, sizeBytes: 0xfd_0000_0000 - 2 ** 39 },
        { base: 0x100_0000_0000, sizeBytes: 2 ** 48 - 0x100_0000_0000 },
      ],
      "each free piece above RAM, the IOMMU's first",
    );
  }
});
