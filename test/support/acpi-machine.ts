import { gpa } from "../../src/base/units.ts";
import type { AcpiMachine } from "../../src/platform/acpi-tables.ts";

/** A machine with everything in it, at addresses of its own. */
export const MACHINE: AcpiMachine = {
  tablesAt: gpa(0xe_0000),
  apicIds: [0, 1, 2],
  localApicBase: 0xfee0_0000,
  ioapicBase: 0xfec0_0000,
  pmPort: 0x600,
  eventGsi: 9,
  serial: { port: 0x3f8, gsi: 4 },
  rtcPort: 0x70,
  pci: {
    ecamBase: 0xe800_0000,
    ecamBuses: 1,
    io: [{ base: 0x1000, sizeBytes: 0xf000 }],
    mem32: [{ base: 0xc000_0000, sizeBytes: 0x2800_0000 }],
    mem64: [
      { base: 0x2_0000_0000, sizeBytes: 0x40_0000_0000 },
      { base: 0x100_0000_0000, sizeBytes: 0xff00_0000_0000 },
    ],
    ejectableSlots: [3, 31],
    intxGsi: (slot, pin) => 16 + ((slot + pin - 1) % 8),
  },
};
