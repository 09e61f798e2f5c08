import t from "tap";
import { gpa, hva } from "../../../../../src/base/units.ts";
import { mapRamForDma } from "../../../../../src/vmm/device/passed/ram-dma.ts";

t.test("mapRamForDma() maps each region at its guest-physical address, and tells size and time", async (t) => {
  const mapped: (readonly number[])[] = [];
  const reports: unknown[] = [];
  const regions = [
    { gpa: gpa(0), sizeBytes: 0xa_0000, fileOffset: 0 },
    { gpa: gpa(0x1_0000_0000), sizeBytes: 0x20_0000, fileOffset: 0xa_0000 },
  ];
  const dma = mapRamForDma(
    { regions, sizeBytes: 0x2a_0000, hostAddress: (at) => hva(0x7f00_0000_0000 + at) },
    {
      mapDma: (_name, address, host, sizeBytes) => {
        mapped.push([address, host, sizeBytes]);
        return { unmap: () => t.fail("unmapped") };
      },
    },
    (level, text, details) => reports.push([level, text, details]),
  );
  t.same(mapped, [
    [0, 0x7f00_0000_0000, 0xa_0000],
    [0x1_0000_0000, 0x7f01_0000_0000, 0x20_0000],
  ]);
  t.equal(dma.sizeBytes, 0x2a_0000);
  t.ok(Number.isInteger(dma.ms) && dma.ms >= 0);
  t.same(reports, [["info", "guest RAM is pinned and mapped for DMA", { bytes: 0x2a_0000, ms: dma.ms }]]);
});
