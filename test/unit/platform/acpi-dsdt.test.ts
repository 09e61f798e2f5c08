import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { type AcpiMachine, buildAcpiTables } from "../../../src/platform/acpi-tables.ts";
import { MACHINE } from "../../support/acpi-machine.ts";
import { missingAcpica, runAcpica } from "../../support/acpica.ts";

const skip = missingAcpica();
const OSC_UUID = "(5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66)";
const DSM_UUID = "(D0 37 C9 E5 53 35 7A 4D 91 17 EA 4D 19 C3 43 4D)";

/** Writes a machine's tables into the directory as `dsdt.dat`, `facp.dat`, … */
function writeTables(directory: string, machine: AcpiMachine): void {
  for (const blob of buildAcpiTables(machine).blobs) {
    writeFileSync(join(directory, `${blob.name.toLowerCase()}.dat`), blob.bytes);
  }
}

/**
 * What ACPICA's interpreter makes of each expression, on a hardware-reduced machine whose ports all read the same byte
 * until they are written. One run for all: a run takes a second.
 */
async function evaluate(directory: string, expressions: readonly string[], portByte = 1): Promise<readonly string[]> {
  const commands = expressions.map((expression) => `evaluate ${expression}`).join(";");
  const output = await runAcpica(directory, "acpiexec", "-r", "-fv", String(portByte), "-b", commands, "dsdt.dat");
  return output.split(/^Evaluating /m).slice(1);
}

const integersIn = (output: string): readonly number[] =>
  [...output.matchAll(/\[Integer\] = ([0-9A-F]+)/g)].map((match) => Number.parseInt(match[1] ?? "", 16));

/** The bytes of a dumped buffer, without offsets and the text column. */
const bytesIn = (output: string): string =>
  [...output.matchAll(/[0-9A-F]{4}: ((?:[0-9A-F]{2} )+)/g)]
    .map((match) => match[1] ?? "")
    .join("")
    .trim();

t.test("buildAcpiTables() makes tables that iasl reads and compiles back without a word", { skip }, async (t) => {
  const minimal: AcpiMachine = {
    ...MACHINE,
    apicIds: [0],
    pci: { ...MACHINE.pci, io: [], mem64: [{ base: 0x1_0000_0000, sizeBytes: 0x1000 }] },
  };
  for (const machine of [MACHINE, minimal]) {
    const directory = t.testdir();
    writeTables(directory, machine);
    for (const name of ["dsdt", "facp", "apic", "mcfg", "xsdt"]) {
      const read = await runAcpica(directory, "iasl", "-d", `${name}.dat`);
      t.notMatch(read, /error|warning|invalid/i, `reading ${name}`);
      const compiled = await runAcpica(directory, "iasl", "-oa", "-p", `again-${name}`, `${name}.dsl`);
      t.match(compiled, /0 Errors, 0 Warnings, 0 Remarks/, `compiling ${name}`);
    }
    // Past the header, where iasl leaves its own name and so another checksum.
    const again = readFileSync(join(directory, "again-dsdt.aml")).subarray(36);
    const ours = readFileSync(join(directory, "dsdt.dat")).subarray(36);
    t.ok(again.equals(ours), "iasl encodes the DSDT just as we do");
  }
});

t.test("The DSDT means to ACPICA what it should", { skip }, async (t) => {
  const directory = t.testdir();
  writeTables(directory, MACHINE);
  const osc = (revision: number, dwords: number, buffer: string): string =>
    `\\_SB.PCI0._OSC ${OSC_UUID} ${revision} ${dwords} (${buffer})`;
  const dsm = (index: number): string => `\\_SB.PCI0._DSM ${DSM_UUID} 1 ${index} [1]`;
  const answers = await evaluate(directory, [
    "\\_S5",
    "\\_SB.PCI0._PRT",
    "\\_SB.PCI0._CRS",
    "\\_SB.COM1._CRS",
    "\\_SB.GED._CRS",
    "\\_SB.GED._EVT 9",
    osc(1, 3, "00 00 00 00 1F 00 00 00 1F 01 00 00"),
    osc(1, 3, "00 00 00 00 1F 00 00 00 10 00 00 00"),
    osc(2, 3, "00 00 00 00 1F 00 00 00 10 00 00 00"),
    osc(1, 2, "00 00 00 00 1F 00 00 00"),
    dsm(0),
    dsm(5),
    dsm(7),
    "\\_SB.PCI0.S03._ADR",
    "\\_SB.PCI0.S1F._SUN",
    "\\_SB.PCI0.S03._EJ0 1",
    "\\_SB.GED.EJCT",
    "\\_SB.PCI0.S1F._EJ0 1",
    "\\_SB.GED.EJCT",
  ]);
  t.equal(answers.length, 19);
  const answer = (index: number): string => answers[index] ?? "";

  t.test("\\_S5 is sleep type 5", async (t) => {
    t.same(integersIn(answer(0)), [5, 5, 0, 0]);
  });

  t.test("_PRT routes every pin of every slot to one of the GSIs 16 to 23", async (t) => {
    const numbers = integersIn(answer(1));
    t.equal(numbers.length, 32 * 4 * 4);
    for (let slot = 0; slot < 32; slot++) {
      for (let pin = 0; pin < 4; pin++) {
        const at = 4 * (4 * slot + pin);
        const gsi = 16 + ((slot + pin) % 8);
        if (numbers[at] !== slot * 65536 + 0xffff || numbers[at + 1] !== pin || numbers[at + 3] !== gsi) {
          t.fail(`slot ${slot} pin ${pin}: ${numbers.slice(at, at + 4)}`);
        }
        t.equal(numbers[at + 2], 0, "wired, not through a link device");
      }
    }
  });

  t.test("_CRS of the host bridge gives buses, its own ports and the windows", async (t) => {
    t.equal(
      bytesIn(answer(2)),
      [
        "88 0D 00 02 0C 00 00 00 00 00 00 00 00 00 01 00", // bus 0
        "47 01 F8 0C F8 0C 01 08", // 0xcf8 to 0xcff
        "88 0D 00 01 0C 03 00 00 00 10 FF FF 00 00 00 F0", // ports 0x1000 to 0xffff
        "87 17 00 00 0C 01 00 00 00 00 00 00 00 C0 FF FF FF E7 00 00 00 00 00 00 00 28",
        "8A 2B 00 00 0C 01 00 00 00 00 00 00 00 00 00 00 00 00 02 00 00 00 FF FF FF FF 41 00 00 00 " +
          "00 00 00 00 00 00 00 00 00 00 00 00 40 00 00 00",
        "8A 2B 00 00 0C 01 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 FF FF FF FF FF FF 00 00 " +
          "00 00 00 00 00 00 00 00 00 00 00 00 00 FF 00 00",
        "79 00",
      ].join(" "),
    );
  });

  t.test("_CRS of COM1 is 0x3f8 and an edge, of the event device a level", async (t) => {
    t.equal(bytesIn(answer(3)), "47 01 F8 03 F8 03 01 08 89 06 00 03 01 04 00 00 00 79 00");
    t.equal(bytesIn(answer(4)), "89 06 00 01 01 09 00 00 00 79 00");
  });

  t.test("_EVT notifies the power button when its status bit is set", async (t) => {
    t.match(answers.join(""), /Received a Device Notify on \[PWRB\] \S+ Value 0x80/);
  });

  t.test("_EVT without an ejection bit notifies no slot", async (t) => {
    t.notMatch(answers.join(""), /Notify on \[S/);
  });

  t.test("An ejectable slot has its address and number, and _EJ0 writes its bit", async (t) => {
    t.same(integersIn(answer(13)), [0x3_0000]);
    t.same(integersIn(answer(14)), [31]);
    t.same(integersIn(answer(16)), [0x0000_0008]);
    t.same(integersIn(answer(18)), [0x8000_0000]);
  });

  t.test("_OSC grants the capability structure, masks the rest and names what it does not know", async (t) => {
    t.equal(bytesIn(answer(6)), "10 00 00 00 1F 00 00 00 10 00 00 00");
    t.equal(bytesIn(answer(7)), "00 00 00 00 1F 00 00 00 10 00 00 00");
    t.equal(bytesIn(answer(8)), "08 00 00 00 1F 00 00 00 10 00 00 00");
    t.equal(bytesIn(answer(9)), "04 00 00 00 1F 00 00 00");
  });

  t.test("_DSM has functions 0 and 5, and 5 asks to keep the boot configuration", async (t) => {
    t.equal(bytesIn(answer(10)), "21");
    t.same(integersIn(answer(11)), [0]);
    t.equal(bytesIn(answer(12)), "00");
  });
});

t.test("_EVT passes an ejection request to the slots whose bits are set, and takes the bits", { skip }, async (t) => {
  const directory = t.testdir();
  writeTables(directory, MACHINE);
  // 0x0a in every port: no power button, but the ejection bit. Of the slots 1, 3, 9, 11, 17, 19, 25 and 27 only 3 can
  // be ejected.
  const [event = "", requests = ""] = await evaluate(directory, ["\\_SB.GED._EVT 9", "\\_SB.GED.ERQS"], 0x0a);
  // A thread of acpiexec's own prints notifications: where between the answers, chance decides.
  t.match(event + requests, /Received a System Notify on \[S03_\] \S+ Value 0x03/);
  t.notMatch(event + requests, /Notify on \[(S1F_|PWRB)\]/);
  t.same(integersIn(requests), [0x0a0a_0a0a], "written back as it was read: ones clear");
});
