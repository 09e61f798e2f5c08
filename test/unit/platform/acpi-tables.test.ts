import t from "tap";
import { gpa } from "../../../src/base/units.ts";
import { type AcpiBlob, type AcpiMachine, buildAcpiTables } from "../../../src/platform/acpi-tables.ts";
import { MACHINE } from "../../support/acpi-machine.ts";

const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => total + byte, 0) & 0xff;
const textAt = (bytes: Uint8Array, offset: number, count: number): string =>
  new TextDecoder().decode(bytes.subarray(offset, offset + count));
const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function blobNamed(name: string, machine: AcpiMachine = MACHINE): AcpiBlob {
  const blob = buildAcpiTables(machine).blobs.find((candidate) => candidate.name === name);
  if (blob === undefined) throw new Error(`There is no ${name}`);
  return blob;
}

/** The MADT's structures as hexadecimal text, in order. */
function madtEntries(machine: AcpiMachine): readonly string[] {
  const { bytes } = blobNamed("APIC", machine);
  const entries: string[] = [];
  for (let offset = 44; offset < bytes.length; offset += bytes[offset + 1] ?? bytes.length) {
    entries.push(Buffer.from(bytes.subarray(offset, offset + (bytes[offset + 1] ?? 0))).toString("hex"));
  }
  return entries;
}

t.test("buildAcpiTables() leads from the RSDP over the XSDT to every table", async (t) => {
  const tables = buildAcpiTables(MACHINE);
  const at = new Map(tables.blobs.map((blob) => [Number(blob.address), blob]));
  const rsdp = at.get(tables.rsdp)?.bytes ?? new Uint8Array();
  t.equal(tables.rsdp, 0xe_0000);
  t.equal(textAt(rsdp, 0, 8), "RSD PTR ");
  t.equal(rsdp[15], 2);
  t.equal(view(rsdp).getUint32(20, true), 36);
  const xsdt = at.get(Number(view(rsdp).getBigUint64(24, true)))?.bytes ?? new Uint8Array();
  t.equal(textAt(xsdt, 0, 4), "XSDT");
  const signatures: string[] = [];
  for (let offset = 36; offset < xsdt.length; offset += 8) {
    const address = Number(view(xsdt).getBigUint64(offset, true));
    signatures.push(textAt(at.get(address)?.bytes ?? new Uint8Array(), 0, 4));
  }
  t.same(signatures, ["FACP", "APIC", "MCFG"]);
  const fadt = blobNamed("FACP").bytes;
  t.equal(at.get(Number(view(fadt).getBigUint64(140, true)))?.name, "DSDT");
});

t.test("buildAcpiTables() gives each table its length and a sum of zero", async (t) => {
  for (const { name, bytes } of buildAcpiTables(MACHINE).blobs) {
    t.equal(sum(bytes), 0, name);
    if (name === "RSDP") t.equal(sum(bytes.subarray(0, 20)), 0, "the ACPI 1.0 part of the RSDP");
    else t.equal(view(bytes).getUint32(4, true), bytes.length, name);
  }
});

t.test("buildAcpiTables() lays tables out in order, 16-aligned, apart, and says where they end", async (t) => {
  const { blobs, sizeBytes } = buildAcpiTables(MACHINE);
  let end = 0xe_0000;
  for (const blob of blobs) {
    t.equal(blob.address % 16, 0, blob.name);
    t.ok(blob.address >= end && blob.address < end + 16, `${blob.name} follows its predecessor`);
    end = blob.address + blob.bytes.length;
  }
  t.equal(0xe_0000 + sizeBytes, end);
});

t.test("buildAcpiTables() refuses a place the RSDP may not have", async (t) => {
  t.throws(() => buildAcpiTables({ ...MACHINE, tablesAt: gpa(0xe_0008) }), RangeError);
});

t.test("The FADT describes hardware-reduced ACPI 6 with reset and sleep registers", async (t) => {
  const { bytes } = blobNamed("FACP");
  const fields = view(bytes);
  t.equal(bytes.length, 276);
  t.equal(bytes[8], 6, "revision");
  t.equal(fields.getUint32(40, true), 0, "no 32-bit DSDT address beside the 64-bit one");
  const flags = fields.getUint32(112, true);
  t.ok(flags & (1 << 20), "HW_REDUCED_ACPI");
  t.ok(flags & (1 << 10), "RESET_REG_SUP");
  t.ok(flags & (1 << 4), "no fixed power button");
  t.same([...bytes.subarray(116, 129)], [1, 8, 0, 1, 0x02, 6, 0, 0, 0, 0, 0, 0, 1], "RESET_REG and RESET_VALUE");
  t.same([...bytes.subarray(244, 256)], [1, 8, 0, 1, 0x00, 6, 0, 0, 0, 0, 0, 0], "SLEEP_CONTROL_REG");
  t.same([...bytes.subarray(256, 268)], [1, 8, 0, 1, 0x01, 6, 0, 0, 0, 0, 0, 0], "SLEEP_STATUS_REG");
  t.same([...bytes.subarray(208, 220)], [1, 32, 0, 3, 0x08, 6, 0, 0, 0, 0, 0, 0], "X_PM_TMR_BLK");
  t.equal(textAt(bytes, 268, 8), "TSVMM   ");
});

t.test("The FADT denies an 8042, VGA and ASPM, and a clock only where there is none", async (t) => {
  const bootArchitecture = (machine: AcpiMachine): number =>
    view(blobNamed("FACP", machine).bytes).getUint16(109, true);
  const { rtcPort: _, ...withoutClock } = MACHINE;
  t.equal(bootArchitecture(MACHINE), 0x14);
  t.equal(bootArchitecture(withoutClock), 0x34);
  t.equal(blobNamed("FACP").bytes[108], 0x32, "CENTURY");
  t.equal(blobNamed("FACP", withoutClock).bytes[108], 0);
});

t.test(
  "The MADT lists processors, the I/O APIC, overrides of IRQ 0 and of the event line, and NMI on LINT1",
  async (t) => {
    t.equal(view(blobNamed("APIC").bytes).getUint32(36, true), 0xfee0_0000);
    t.same(madtEntries(MACHINE), [
      "0008000001000000",
      "0008010101000000",
      "0008020201000000",
      "010c00000000c0fe00000000",
      "020a0000020000000000",
      "020a0009090000000d00",
      "0406ff000001",
    ]);
  },
);

t.test("The MADT overrides no ISA interrupt when the event line is not one", async (t) => {
  const overrides = madtEntries({ ...MACHINE, eventGsi: 20 }).filter((entry) => entry.startsWith("02"));
  t.same(overrides, ["020a0000020000000000"]);
});

t.test("The MADT uses x2APIC structures from processor 255 on", async (t) => {
  const entries = madtEntries({ ...MACHINE, apicIds: Array.from({ length: 257 }, (_, id) => id) });
  t.equal(entries.filter((entry) => entry.startsWith("0008")).length, 255);
  t.same(
    entries.filter((entry) => entry.startsWith("0910")),
    ["09100000ff00000001000000ff000000", "09100000000100000100000000010000"],
  );
  t.ok(entries.includes("0a0c0000ffffffff01000000"), "NMI of every x2APIC");
});

t.test("The MADT gives processors the APIC ids that their topology leaves them", async (t) => {
  const entries = madtEntries({ ...MACHINE, apicIds: [0, 1, 2, 4] });
  t.same(
    entries.filter((entry) => entry.startsWith("0008")),
    ["0008000001000000", "0008010101000000", "0008020201000000", "0008030401000000"],
  );
});

t.test("The MCFG says where configuration space of which buses is", async (t) => {
  const { bytes } = blobNamed("MCFG", { ...MACHINE, pci: { ...MACHINE.pci, ecamBuses: 16 } });
  t.equal(bytes.length, 60);
  t.equal(view(bytes).getBigUint64(44, true), 0xe800_0000n);
  t.equal(view(bytes).getUint16(52, true), 0, "segment");
  t.same([bytes[54], bytes[55]], [0, 15], "first and last bus");
});
