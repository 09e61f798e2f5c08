import { ACPI_PM_PORTS } from "./acpi-pm.ts";
import {
  type Aml,
  And,
  Device,
  DWordFields,
  If,
  Local,
  Method,
  Name,
  Notify,
  Path,
  Store,
  SystemIoRegion,
} from "./aml.ts";

/*
 * Removal of PCI functions from a running guest, ACPI 6.5 §6.3. Each slot that can be emptied is a device with a number
 * (`_SUN`) and an eject method (`_EJ0`). A request of the host is a bit of the `ejectRequests` register behind the
 * generic event device, which notifies the slot. A guest that lets go of the slot calls `_EJ0`. That writes the slot's
 * bit to the `eject` register.
 */

/** ACPI 6.5 §5.6.6: the device is to be let go of. */
const EJECT_REQUEST = 3;

const slotName = (slot: number): string => `S${slot.toString(16).toUpperCase().padStart(2, "0")}`;

/** Objects below the host bridge. `_ADR` names function 0; a guest takes all functions of the slot with it. */
export function ejectableSlots(slots: readonly number[]): readonly Aml[] {
  return slots.map((slot) =>
    Device(
      slotName(slot),
      Name("_ADR", slot * 0x1_0000),
      Name("_SUN", slot),
      Method("_EJ0", 1, Store(2 ** slot, Path("\\_SB.GED.EJCT"))),
    ),
  );
}

/** The registers, named for the two methods; in the generic event device. */
export function ejectRegisters(pmPort: number): readonly Aml[] {
  return [
    SystemIoRegion("RREG", pmPort + ACPI_PM_PORTS.ejectRequests, 4),
    DWordFields("RREG", "ERQS"),
    SystemIoRegion("JREG", pmPort + ACPI_PM_PORTS.eject, 4),
    DWordFields("JREG", "EJCT"),
  ];
}

/**
 * What `_EVT` does at an ejection request: takes the bits, then passes each on, so that a request in between comes
 * again.
 */
export function passEjectRequests(slots: readonly number[]): readonly Aml[] {
  return [
    Store(Path("ERQS"), Local(1)),
    Store(Local(1), Path("ERQS")),
    ...slots.map((slot) => If(And(Local(1), 2 ** slot), Notify(`\\_SB.PCI0.${slotName(slot)}`, EJECT_REQUEST))),
  ];
}
