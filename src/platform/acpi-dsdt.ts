import { ejectableSlots, ejectRegisters, passEjectRequests } from "./acpi-eject.ts";
import { ACPI_EVENT_EJECT, ACPI_EVENT_POWER_BUTTON, ACPI_PM_PORTS, ACPI_PM_SIZE, ACPI_S5_TYPE } from "./acpi-pm.ts";
import {
  type Aml,
  And,
  Arg,
  Buffer,
  ByteFields,
  CreateDWordField,
  Device,
  EisaId,
  Else,
  If,
  join,
  LAnd,
  LEqual,
  LLess,
  LNot,
  Local,
  Method,
  Name,
  Notify,
  Or,
  Package,
  Path,
  Return,
  Scope,
  Store,
  SystemIoRegion,
  Text,
  ToUUID,
} from "./aml.ts";
import {
  type AddressWindow,
  DWordMemory,
  Interrupt,
  IO,
  Memory32Fixed,
  QWordMemory,
  ResourceTemplate,
  WordBusNumber,
  WordIO,
} from "./aml-resources.ts";

/** What the DSDT describes: everything a guest cannot find by asking the hardware itself. */
export interface AcpiDevices {
  /** Processors by their APIC ids; their ACPI UIDs are their places in the list. */
  readonly apicIds: readonly number[];
  readonly pci: {
    /** Where configuration space is mapped, one MiB for each of `ecamBuses` buses from bus 0; below 4 GiB. */
    readonly ecamBase: number;
    readonly ecamBuses: number;
    /** What the bridge decodes for BARs, and no more. Ports must leave 0xcf8 to 0xcff out. */
    readonly io: readonly AddressWindow[];
    readonly mem32: readonly AddressWindow[];
    readonly mem64: readonly AddressWindow[];
    /** Slots that can be emptied while the guest runs. */
    readonly ejectableSlots?: readonly number[];
    /** Which GSI a slot's pin is wired to; pins are 1 (INTA#) to 4 (INTD#), as in the interrupt pin register. */
    readonly intxGsi: (slot: number, pin: number) => number;
  };
  /** First port of the {@link AcpiPm} block, and the GSI of its event line. */
  readonly pmPort: number;
  readonly eventGsi: number;
  /** COM1, when there is one. */
  readonly serial?: { readonly port: number; readonly gsi: number };
  /** First port of the CMOS clock, when there is one. */
  readonly rtcPort?: number;
}

const DEVICE_SLOTS = 32;

/** The Differentiated System Description Table without its header. */
export function buildDsdt(machine: AcpiDevices): Aml {
  return join(
    Name("\\_S5", Package(ACPI_S5_TYPE, ACPI_S5_TYPE, 0, 0)),
    Scope(
      "\\_SB",
      hostBridge(machine),
      motherboard(machine),
      ...(machine.serial === undefined ? [] : [serialPort(machine.serial)]),
      ...(machine.rtcPort === undefined ? [] : [realTimeClock(machine.rtcPort)]),
      Device("PWRB", Name("_HID", EisaId("PNP0C0C"))),
      genericEventDevice(machine),
      processors(machine.apicIds.length),
    ),
  );
}

function hostBridge({ pci }: AcpiDevices): Aml {
  return Device(
    "PCI0",
    Name("_HID", EisaId("PNP0A08")),
    Name("_CID", EisaId("PNP0A03")),
    Name("_SEG", 0),
    Name("_BBN", 0),
    Name("_UID", 0),
    Name(
      "_CRS",
      ResourceTemplate(
        WordBusNumber(0, pci.ecamBuses),
        IO(0xcf8, 8),
        ...pci.io.map(WordIO),
        ...pci.mem32.map(DWordMemory),
        ...pci.mem64.map(QWordMemory),
      ),
    ),
    Name("_PRT", Package(...interruptRoutes(pci.intxGsi))),
    preserveBootConfig(),
    operatingSystemCapabilities(),
    ...ejectableSlots(pci.ejectableSlots ?? []),
  );
}

/** Each slot's four pins, counted from 0 here, wired straight to I/O APIC inputs (source 0). ACPI 6.5 §6.2.13 */
function interruptRoutes(intxGsi: AcpiDevices["pci"]["intxGsi"]): readonly Aml[] {
  const routes: Aml[] = [];
  for (let slot = 0; slot < DEVICE_SLOTS; slot++) {
    for (let pin = 1; pin <= 4; pin++) {
      routes.push(Package(slot * 0x1_0000 + 0xffff, pin - 1, 0, intxGsi(slot, pin)));
    }
  }
  return routes;
}

/**
 * `_DSM` function 5 answers 0: the guest keeps the BARs as it finds them. They lie where the host's IOMMU reaches, with
 * the alignment that large mappings need, and all of them fit. Every move costs memory slots and DMA mappings. It is
 * advice: BARs still move when they are written. Function 0 lists the functions there are. PCI Firmware 3.3 §4.6.5
 */
function preserveBootConfig(): Aml {
  return Method(
    "_DSM",
    4,
    If(
      LEqual(Arg(0), ToUUID("e5c937d0-3553-4d7a-9117-ea4d19c3434d")),
      If(LEqual(Arg(2), 0), Return(Buffer(Uint8Array.of(0x21)))),
      If(LEqual(Arg(2), 5), Return(0)),
    ),
    Return(Buffer(Uint8Array.of(0))),
  );
}

/** Control of the PCI Express capability structure: the only feature whose hardware is a function's own. */
const GRANTED_CONTROL = 0x10;

/**
 * `_OSC` grants {@link GRANTED_CONTROL}. It refuses native hot plug, power management events, error reporting and
 * latency control. These belong to ports above the functions, which stay with the host. PCI Firmware 3.3 §4.5
 */
function operatingSystemCapabilities(): Aml {
  const status = Path("CDW1");
  const control = Path("CDW3");
  return Method(
    "_OSC",
    4,
    CreateDWordField(Arg(3), 0, "CDW1"),
    If(
      LAnd(
        LEqual(Arg(0), ToUUID("33db4d5b-1ff7-401c-9657-7441c03dd766")),
        LNot(LLess(Arg(2), 3)), // dwords in the buffer
      ),
      CreateDWordField(Arg(3), 8, "CDW3"),
      If(LNot(LEqual(Arg(1), 1)), Or(status, 0x08, status)), // unknown revision
      And(control, GRANTED_CONTROL, Local(0)),
      If(LNot(LEqual(Local(0), control)), Or(status, 0x10, status)), // something was refused
      Store(Local(0), control),
    ),
    Else(Or(status, 0x04, status)), // unknown UUID
    Return(Arg(3)),
  );
}

/** Reserves what belongs to no device: Linux uses ECAM only where the motherboard claims it. PCI Firmware 3.3 §4.1.2 */
function motherboard(machine: AcpiDevices): Aml {
  const ecam = { base: machine.pci.ecamBase, sizeBytes: machine.pci.ecamBuses * 0x10_0000 };
  return Device(
    "MBRD",
    Name("_HID", EisaId("PNP0C02")),
    Name("_UID", 0),
    Name("_CRS", ResourceTemplate(Memory32Fixed(ecam), IO(machine.pmPort, ACPI_PM_SIZE))),
  );
}

function serialPort({ port, gsi }: { readonly port: number; readonly gsi: number }): Aml {
  return Device(
    "COM1",
    Name("_HID", EisaId("PNP0501")),
    Name("_UID", 1),
    Name("_DDN", Text("COM1")),
    Name("_CRS", ResourceTemplate(IO(port, 8), Interrupt(gsi, "edge"))),
  );
}

/** Without an interrupt, since the clock has none: the guest polls. */
function realTimeClock(port: number): Aml {
  return Device("RTC", Name("_HID", EisaId("PNP0B00")), Name("_CRS", ResourceTemplate(IO(port, 2))));
}

/**
 * Turns the event line of {@link AcpiPm} into a press of the power button or the request to let go of a PCI slot.
 * `_EVT` clears the bits before it acts on them: a press in between raises the line again and is not lost. ACPI 6.5
 * §5.6.9
 */
function genericEventDevice(machine: AcpiDevices): Aml {
  const status = Path("ESTS");
  const slots = machine.pci.ejectableSlots ?? [];
  return Device(
    "GED",
    Name("_HID", Text("ACPI0013")),
    Name("_UID", 0),
    Name("_CRS", ResourceTemplate(Interrupt(machine.eventGsi, "level"))),
    SystemIoRegion("EREG", machine.pmPort + ACPI_PM_PORTS.eventStatus, 1),
    ByteFields("EREG", "ESTS"),
    ...(slots.length === 0 ? [] : ejectRegisters(machine.pmPort)),
    Method(
      "_EVT",
      1,
      Store(status, Local(0)),
      Store(Local(0), status),
      If(And(Local(0), ACPI_EVENT_POWER_BUTTON), Notify("\\_SB.PWRB", 0x80)),
      ...(slots.length === 0 ? [] : [If(And(Local(0), ACPI_EVENT_EJECT), ...passEjectRequests(slots))]),
    ),
  );
}

/** Each processor of the MADT, by the same UID. ACPI 6.5 §8.4 */
function processors(count: number): Aml {
  const devices: Aml[] = [];
  for (let uid = 0; uid < count; uid++) {
    const name = `C${uid.toString(16).toUpperCase().padStart(3, "0")}`;
    devices.push(Device(name, Name("_HID", Text("ACPI0007")), Name("_UID", uid)));
  }
  return Device("CPUS", Name("_HID", Text("ACPI0010")), Name("_CID", EisaId("PNP0A05")), ...devices);
}
