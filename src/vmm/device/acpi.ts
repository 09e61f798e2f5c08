import type { GuestMemory } from "../../base/guest-memory.ts";
import { invariant } from "../../base/invariant.ts";
import { ACPI_PM_PORTS, ACPI_RESET_VALUE } from "../../platform/acpi-pm.ts";
import { buildAcpiTables } from "../../platform/acpi-tables.ts";
import { RESET_VECTOR, resetVectorCode } from "../../platform/reset-vector.ts";
import { rootWindows } from "../shared/bar-places.ts";
import {
  ACPI_TABLES,
  ECAM,
  GSIS,
  IO_APIC_BASE,
  intxGsi,
  LOCAL_APIC_BASE,
  type MemoryLayout,
  PORTS,
} from "../shared/memory-map.ts";
import { apicIdsOf } from "../spec/cpus.ts";
import type { MachineSpec } from "../spec/spec.ts";

/** What the tables tell of a machine. */
export interface AcpiParts {
  readonly machine: MachineSpec;
  readonly memory: GuestMemory;
  readonly layout: MemoryLayout;
  /** Slots whose functions the guest can be asked to let go of. */
  readonly ejectableSlots: readonly number[];
}

/** Writes the ACPI tables into guest RAM, and the code that a reset by the processor's vector runs. */
export function writeAcpi({ machine, memory, layout, ejectableSlots }: AcpiParts): void {
  const windows = rootWindows(layout, machine.hasTestDevice);
  const { blobs, sizeBytes } = buildAcpiTables({
    apicIds: apicIdsOf(machine.cpus),
    tablesAt: ACPI_TABLES.base,
    localApicBase: LOCAL_APIC_BASE,
    ioapicBase: IO_APIC_BASE,
    pci: {
      ecamBase: ECAM.base,
      ecamBuses: ECAM.buses,
      io: windows.ports,
      mem32: windows.memory32,
      mem64: windows.memory64,
      intxGsi,
      ejectableSlots,
    },
    pmPort: PORTS.acpi,
    eventGsi: GSIS.acpiEvents,
    ...(machine.serial.kind === "off" ? {} : { serial: { port: PORTS.com1, gsi: GSIS.com1 } }),
    rtcPort: PORTS.rtc,
  });
  invariant(sizeBytes <= ACPI_TABLES.sizeBytes, `the ACPI tables take ${sizeBytes} bytes of ${ACPI_TABLES.sizeBytes}`);
  for (const blob of blobs) memory.write(blob.address, blob.bytes);
  memory.write(RESET_VECTOR, resetVectorCode(PORTS.acpi + ACPI_PM_PORTS.reset, ACPI_RESET_VALUE));
}
