import { join } from "node:path";
import { gzipSync } from "node:zlib";
import t from "tap";
import { PciNames } from "../../../src/host-pci/names.ts";

const TEXT = `# a comment
1b36  Red Hat, Inc.
\t0010  QEMU NVM Express Controller
\t\t1af4 1100  QEMU Virtual Machine
8086  Intel Corporation
\t10d3  82574L Gigabit Network Connection
# classes
C 01  Mass storage controller
\t08  Non-Volatile memory controller
\t\t02  NVM Express
C 02  Network controller
`;

t.test("PciNames finds vendors, their devices and classes", async (t) => {
  const names = new PciNames(TEXT);
  t.equal(names.vendor(0x8086), "Intel Corporation");
  t.equal(names.device(0x8086, 0x10d3), "82574L Gigabit Network Connection");
  t.equal(names.device(0x1b36, 0x10d3), undefined, "another vendor's");
  t.equal(names.device(0x1b36, 0x0010), "QEMU NVM Express Controller");
  t.equal(names.vendor(0x1af4), undefined, "a subsystem is no vendor");
  t.equal(names.class(0x01_0802), "Non-Volatile memory controller");
  t.equal(names.class(0x02_8000), "Network controller", "the base class for a sub-class it does not know");
  t.equal(names.class(0x13_0000), undefined);
});

t.test("PciNames.open() reads the first database there is, packed or not", async (t) => {
  const folder = t.testdir({ "pci.ids.gz": gzipSync(TEXT) });
  t.equal(PciNames.open(["/no/such", join(folder, "pci.ids.gz")]).vendor(0x1b36), "Red Hat, Inc.");
  t.equal(PciNames.open([]).vendor(0x1b36), undefined);
});
