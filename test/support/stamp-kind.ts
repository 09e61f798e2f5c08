import { SpecError } from "../../src/base/errors.ts";
import type { ListKind } from "../../src/vmm/spec/kinds/kind.ts";

const FIELDS = {
  id: { type: "id", prefix: "_stamp", key: "id", value: "ID", help: "name in messages" },
  value: {
    type: "integer",
    least: 0,
    most: 0xffff_ffff,
    isRequired: true,
    key: "value",
    value: "N",
    help: "what the register reads as",
  },
} as const;

/** A kind of device that is not of this program: a register that reads as its number. */
export const STAMP: ListKind<"stamps", typeof FIELDS> = {
  kind: "stamp",
  about: "A PCI function with one register.",
  part: "stamps",
  shape: "list",
  option: "--stamp",
  group: "Devices",
  help: "a register with a number",
  isPassedThrough: false,
  factory: new URL("./stamp-device.js", import.meta.url).href,
  fields: FIELDS,
  check(where, { value }, before) {
    if (before.some((stamp) => stamp.value === value)) {
      throw new SpecError("TSVMM_VALUE_TWICE", `${where}.value`, `${value} is given to another stamp too`);
    }
  },
};
