import t from "tap";
import * as ids from "../../src/pci/ids.ts";
import { evaluateC, missingCompiler } from "../support/c-headers.ts";

/** In newer headers only; the values are those of Linux 6.12. */
const NEWER: Readonly<Record<string, number>> = { PCI_HEADER_TYPE_MFD: 0x80, PCI_EXT_CAP_ID_VF_REBAR: 0x24 };

t.test("pci/ids constants have the values of linux/pci_regs.h", { skip: missingCompiler() }, async (t) => {
  const constants = Object.entries(ids).flatMap(([name, value]) =>
    typeof value === "number" ? [{ name, value }] : [],
  );
  const fallbacks = Object.entries(NEWER).map(([name, value]) => `#ifndef ${name}\n#define ${name} ${value}\n#endif`);
  const inC = evaluateC(
    ["linux/pci_regs.h", ...fallbacks],
    constants.map(({ name }) => name),
  );
  for (const { name, value } of constants) t.equal(value, inC.get(name), name);
  t.ok(constants.length > 100);
});
