import { alignUp, type Gpa, gpa, highHalf, lowHalf } from "../base/units.ts";
import { type AcpiDevices, buildDsdt } from "./acpi-dsdt.ts";
import { ACPI_PM_PORTS, ACPI_RESET_VALUE } from "./acpi-pm.ts";
import { ascii } from "./aml.ts";
import { CMOS_CENTURY } from "./rtc-cmos.ts";

/** A machine as its ACPI tables describe it. */
export interface AcpiMachine extends AcpiDevices {
  /** Where the tables go, a multiple of 16: the RSDP first, the others after it. */
  readonly tablesAt: Gpa;
  readonly localApicBase: number;
  readonly ioapicBase: number;
}

/** One table and where it must lie; the tables point at one another, so it may not be moved. */
export interface AcpiBlob {
  readonly name: string;
  readonly address: Gpa;
  readonly bytes: Uint8Array;
}

/** All tables, in address order, without gaps of more than 15 bytes. */
export interface AcpiTables {
  readonly rsdp: Gpa;
  readonly blobs: readonly AcpiBlob[];
  /** From the RSDP to the end of the last table, for the memory map. */
  readonly sizeBytes: number;
}

/**
 * Builds the ACPI tables of a hardware-reduced machine: RSDP, XSDT, FADT, MADT, MCFG and DSDT. ACPI 6.5 chapter 5
 *
 * @throws RangeError when `tablesAt` is not a multiple of 16 or a number does not fit its table.
 */
export function buildAcpiTables(machine: AcpiMachine): AcpiTables {
  if (machine.tablesAt % 16 !== 0)
    throw new RangeError(`Cannot put ACPI tables at ${machine.tablesAt}: not 16-aligned`);
  const blobs: AcpiBlob[] = [];
  let next = machine.tablesAt + alignUp(RSDP_SIZE, 16);
  const place = (name: string, bytes: Uint8Array): AcpiBlob => {
    const blob = { name, address: gpa(next), bytes };
    next = alignUp(next + bytes.length, 16);
    blobs.push(blob);
    return blob;
  };
  const dsdt = place("DSDT", table("DSDT", 2, buildDsdt(machine)));
  const fadt = place("FACP", buildFadt(machine, dsdt.address));
  const madt = place("APIC", buildMadt(machine));
  const mcfg = place("MCFG", buildMcfg(machine));
  const xsdt = place("XSDT", buildXsdt([fadt.address, madt.address, mcfg.address]));
  const rsdp: AcpiBlob = { name: "RSDP", address: machine.tablesAt, bytes: buildRsdp(xsdt.address) };
  const sizeBytes = xsdt.address + xsdt.bytes.length - machine.tablesAt;
  return { rsdp: rsdp.address, blobs: [rsdp, ...blobs], sizeBytes };
}

const OEM_ID = "TSVMM ";
const OEM_TABLE_ID = "TSVMM   ";
const CREATOR_ID = "TSVM";
const HYPERVISOR_ID = "TSVMM   ";

const HEADER_SIZE = 36;
const RSDP_SIZE = 36;

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function setU64(target: DataView, offset: number, value: number): void {
  target.setUint32(offset, lowHalf(value), true);
  target.setUint32(offset + 4, highHalf(value), true);
}

/** What makes the bytes add up to 0 when it is put in place of a 0. */
const checksum = (bytes: Uint8Array): number => -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;

/** System description table: header and body. ACPI 6.5 §5.2.6 */
function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE + body.length);
  const fields = view(bytes);
  bytes.set(ascii(signature), 0);
  fields.setUint32(4, bytes.length, true);
  bytes[8] = revision;
  bytes.set(ascii(OEM_ID), 10);
  bytes.set(ascii(OEM_TABLE_ID), 16);
  fields.setUint32(24, 1, true); // OEM revision
  bytes.set(ascii(CREATOR_ID), 28);
  fields.setUint32(32, 1, true); // creator revision
  bytes.set(body, HEADER_SIZE);
  bytes[9] = checksum(bytes);
  return bytes;
}

/** Root system description pointer. ACPI 6.5 §5.2.5.3 */
function buildRsdp(xsdt: number): Uint8Array {
  const bytes = new Uint8Array(RSDP_SIZE);
  const fields = view(bytes);
  bytes.set(ascii("RSD PTR "), 0);
  bytes.set(ascii(OEM_ID), 9);
  bytes[15] = 2; // revision; there is no RSDT
  fields.setUint32(20, RSDP_SIZE, true);
  setU64(fields, 24, xsdt);
  bytes[8] = checksum(bytes.subarray(0, 20)); // what ACPI 1.0 knew
  bytes[32] = checksum(bytes);
  return bytes;
}

/** Extended system description table. ACPI 6.5 §5.2.8 */
function buildXsdt(addresses: readonly number[]): Uint8Array {
  const body = new Uint8Array(8 * addresses.length);
  for (const [index, address] of addresses.entries()) setU64(view(body), 8 * index, address);
  return table("XSDT", 1, body);
}

/** Offsets from the start of the table, as the specification gives them. ACPI 6.5 §5.2.9 */
const FADT = {
  size: 276,
  PM_TMR_BLK: 76,
  PM_TMR_LEN: 91,
  P_LVL2_LAT: 96,
  P_LVL3_LAT: 98,
  CENTURY: 108,
  IAPC_BOOT_ARCH: 109,
  Flags: 112,
  RESET_REG: 116,
  RESET_VALUE: 128,
  MinorVersion: 131,
  X_DSDT: 140,
  X_PM_TMR_BLK: 208,
  SLEEP_CONTROL_REG: 244,
  SLEEP_STATUS_REG: 256,
  HypervisorVendorIdentity: 268,
} as const;

// Bit 1, an 8042, is clear: Linux then does not probe for one, which costs it up to a second.
const BOOT_VGA_NOT_PRESENT = 1 << 2;
/** The links of passed-through functions are the host's to manage. */
const BOOT_NO_ASPM = 1 << 4;
const BOOT_NO_CMOS_RTC = 1 << 5;

const FLAG_WBINVD = 1 << 0;
const FLAG_PROC_C1 = 1 << 2;
const FLAG_NO_FIXED_POWER_BUTTON = 1 << 4;
const FLAG_NO_FIXED_SLEEP_BUTTON = 1 << 5;
const FLAG_NO_FIXED_RTC_WAKE = 1 << 6;
const FLAG_TMR_VAL_EXT = 1 << 8;
const FLAG_RESET_REG_SUP = 1 << 10;
const FLAG_HEADLESS = 1 << 12;
const FLAG_HW_REDUCED_ACPI = 1 << 20;

/**
 * Fixed ACPI description table, revision 6.5. Hardware-reduced: no PM1 or GPE blocks, no SCI and no FACS. The PM timer
 * is given all the same; the specification has guests ignore it then, but Linux uses it as a clock of last resort.
 */
function buildFadt(machine: AcpiMachine, dsdt: number): Uint8Array {
  const body = new Uint8Array(FADT.size - HEADER_SIZE);
  const fields = view(body);
  const at = (offset: number): number => offset - HEADER_SIZE;
  const ioRegister = (offset: number, port: number, widthBytes: 1 | 4): void => {
    // system I/O, bits, first bit, access size
    body.set([0x01, 8 * widthBytes, 0, widthBytes === 1 ? 1 : 3], at(offset));
    setU64(fields, at(offset) + 4, machine.pmPort + port);
  };
  fields.setUint32(at(FADT.PM_TMR_BLK), machine.pmPort + ACPI_PM_PORTS.pmTimer, true);
  body[at(FADT.PM_TMR_LEN)] = 4;
  fields.setUint16(at(FADT.P_LVL2_LAT), 101, true); // above 100: no C2
  fields.setUint16(at(FADT.P_LVL3_LAT), 1001, true); // above 1000: no C3
  const hasRtc = machine.rtcPort !== undefined;
  body[at(FADT.CENTURY)] = hasRtc ? CMOS_CENTURY : 0;
  const bootArchitecture = BOOT_VGA_NOT_PRESENT | BOOT_NO_ASPM | (hasRtc ? 0 : BOOT_NO_CMOS_RTC);
  fields.setUint16(at(FADT.IAPC_BOOT_ARCH), bootArchitecture, true);
  fields.setUint32(
    at(FADT.Flags),
    FLAG_WBINVD |
      FLAG_PROC_C1 |
      FLAG_NO_FIXED_POWER_BUTTON |
      FLAG_NO_FIXED_SLEEP_BUTTON |
      FLAG_NO_FIXED_RTC_WAKE |
      FLAG_TMR_VAL_EXT |
      FLAG_RESET_REG_SUP |
      FLAG_HEADLESS |
      FLAG_HW_REDUCED_ACPI,
    true,
  );
  ioRegister(FADT.RESET_REG, ACPI_PM_PORTS.reset, 1);
  body[at(FADT.RESET_VALUE)] = ACPI_RESET_VALUE;
  body[at(FADT.MinorVersion)] = 5;
  setU64(fields, at(FADT.X_DSDT), dsdt);
  ioRegister(FADT.X_PM_TMR_BLK, ACPI_PM_PORTS.pmTimer, 4);
  ioRegister(FADT.SLEEP_CONTROL_REG, ACPI_PM_PORTS.sleepControl, 1);
  ioRegister(FADT.SLEEP_STATUS_REG, ACPI_PM_PORTS.sleepStatus, 1);
  body.set(ascii(HYPERVISOR_ID), at(FADT.HypervisorVendorIdentity));
  return table("FACP", 6, body);
}

/** An interrupt controller structure of the MADT. */
function madtEntry(type: number, sizeBytes: number, fill: (fields: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  bytes[0] = type;
  bytes[1] = sizeBytes;
  fill(view(bytes));
  return bytes;
}

const ACTIVE_HIGH = 0x01;
const LEVEL_TRIGGERED = 0x0c;

/** Multiple APIC description table. ACPI 6.5 §5.2.12 */
function buildMadt(machine: AcpiMachine): Uint8Array {
  const entries: Uint8Array[] = [];
  for (const [uid, id] of machine.apicIds.entries()) {
    entries.push(id < 255 ? localApic(uid, id) : localX2Apic(uid, id));
  }
  entries.push(
    madtEntry(1, 12, (fields) => fields.setUint32(4, machine.ioapicBase, true)), // I/O APIC 0, from GSI 0
    sourceOverride(0, 2, 0), // the timer's line: KVM, like every PC, wires it to pin 2
  );
  if (machine.eventGsi < 16) {
    entries.push(sourceOverride(machine.eventGsi, machine.eventGsi, ACTIVE_HIGH | LEVEL_TRIGGERED));
  }
  entries.push(
    madtEntry(4, 6, (fields) => {
      fields.setUint8(2, 0xff); // every processor
      fields.setUint8(5, 1); // LINT1 is NMI
    }),
  );
  if (machine.apicIds.some((id) => id >= 255)) {
    entries.push(
      madtEntry(10, 12, (fields) => {
        fields.setUint32(4, 0xffff_ffff, true);
        fields.setUint8(8, 1);
      }),
    );
  }
  const body = new Uint8Array(8 + entries.reduce((sum, entry) => sum + entry.length, 0));
  view(body).setUint32(0, machine.localApicBase, true);
  view(body).setUint32(4, 1, true); // PCAT_COMPAT: KVM's pair of 8259s is there too
  let offset = 8;
  for (const entry of entries) {
    body.set(entry, offset);
    offset += entry.length;
  }
  return table("APIC", 5, body);
}

const localApic = (uid: number, id: number): Uint8Array =>
  madtEntry(0, 8, (fields) => {
    fields.setUint8(2, uid);
    fields.setUint8(3, id);
    fields.setUint32(4, 1, true); // enabled
  });

/** For ids that do not fit a byte. */
const localX2Apic = (uid: number, id: number): Uint8Array =>
  madtEntry(9, 16, (fields) => {
    fields.setUint32(4, id, true);
    fields.setUint32(8, 1, true); // enabled
    fields.setUint32(12, uid, true);
  });

const sourceOverride = (isaIrq: number, gsi: number, flags: number): Uint8Array =>
  madtEntry(2, 10, (fields) => {
    fields.setUint8(3, isaIrq);
    fields.setUint32(4, gsi, true);
    fields.setUint16(8, flags, true);
  });

/** Memory mapped configuration table. PCI Firmware 3.3 §4.1.2 */
function buildMcfg(machine: AcpiMachine): Uint8Array {
  const body = new Uint8Array(8 + 16);
  const fields = view(body);
  setU64(fields, 8, machine.pci.ecamBase);
  body[8 + 11] = machine.pci.ecamBuses - 1; // last bus; segment 0 and first bus 0 are zeros
  return table("MCFG", 1, body);
}
