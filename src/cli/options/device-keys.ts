import { SpecError } from "../../base/errors.ts";
import type { DeviceInput } from "../../vmm/spec/spec.ts";
import { readChoice, readInteger, readPath, readSwitch } from "./values.ts";

type Keys = ReadonlyMap<string, string>;

/** Reads what other VMMs call the keys of `--device`: QEMU's `x-no-mmap`, `romfile`, `rombar`. @throws SpecError */
export function readForeignDeviceKeys(keys: Keys, home: string): Partial<Pick<DeviceInput, "bars" | "rom">> {
  refuseOthers(keys);
  return { ...readNoMmap(keys), ...readRom(keys, home) };
}

/** Other VMMs' keys of which only the default has a meaning here. */
function refuseOthers(keys: Keys): void {
  if (readSwitch("--device iommu", keys.get("iommu") ?? "off")) {
    throw new SpecError(
      "TSVMM_VALUE_UNSUPPORTED",
      "--device iommu",
      "guests have no IOMMU of their own here: leave it off",
    );
  }
  if (readInteger("--device pci_segment", keys.get("pci_segment") ?? "0") !== 0) {
    throw new SpecError("TSVMM_VALUE_UNSUPPORTED", "--device pci_segment", "guests have segment 0 only");
  }
}

function readNoMmap(keys: Keys): Pick<DeviceInput, "bars"> {
  const text = keys.get("x-no-mmap");
  if (text === undefined) return {};
  const isTrapped = readSwitch("--device x-no-mmap", text);
  if (keys.has("bars"))
    throw new SpecError("TSVMM_VALUE_CONFLICT", "--device", "bars and x-no-mmap mean the same: give one of them");
  return { bars: isTrapped ? "trap" : "map" };
}

function readRom(keys: Keys, home: string): Pick<DeviceInput, "rom"> {
  const given = ["rom", "romfile", "rombar"].filter((key) => keys.has(key));
  if (given.length > 1)
    throw new SpecError("TSVMM_VALUE_CONFLICT", "--device", `${given.join(" and ")} mean the same: give one of them`);
  const file = keys.get("romfile");
  if (file !== undefined) return { rom: { kind: "file", path: readPath(file, home) } };
  const bar = keys.get("rombar");
  if (bar === undefined) return {};
  return { rom: { kind: readChoice("--device rombar", bar, ["0", "1"]) === "0" ? "off" : "on" } };
}
