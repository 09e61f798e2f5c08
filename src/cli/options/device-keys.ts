import { SpecError } from "../../base/errors.ts";
import type { DeviceInput, RomSpec } from "../../vmm/spec/spec.ts";

import { readKeys } from "./key-values.ts";
import { DEVICE_KEYS } from "./options.ts";
import { readChoice, readInteger, readIntegers, readPath, readSwitch } from "./values.ts";

/**
 * Reads one value of `--device`.
 *
 * @throws SpecError
 */
export function readDevice(text: string, home: string): DeviceInput {
  const keys = readKeys("--device", text, DEVICE_KEYS, "path");
  const path = keys.get("path");
  if (path === undefined) throw new SpecError("--device", `'${text}' has no path=`);
  refuseOthers(keys);
  const id = keys.get("id");
  const slot = keys.get("pci_device_id");
  const rom = readRom(keys, home);
  return {
    path: readPath(path, home),
    bars: readBars(keys),
    excludedMmapBars: readIntegers("--device exclude_mmap_bars", keys.get("exclude_mmap_bars") ?? "[]"),
    ...(id === undefined ? {} : { id }),
    ...(rom === undefined ? {} : { rom }),
    ...(slot === undefined ? {} : { pciSlot: readInteger("--device pci_device_id", slot) }),
  };
}

type Keys = ReadonlyMap<string, string>;

/** Other VMMs' keys of which only the default has a meaning here. */
function refuseOthers(keys: Keys): void {
  if (readSwitch("--device iommu", keys.get("iommu") ?? "off")) {
    throw new SpecError("--device iommu", "guests have no IOMMU of their own here: leave it off");
  }
  if (readInteger("--device pci_segment", keys.get("pci_segment") ?? "0") !== 0) {
    throw new SpecError("--device pci_segment", "guests have segment 0 only");
  }
}

function readBars(keys: Keys): "map" | "trap" {
  const bars = keys.get("bars");
  const isTrapped = readSwitch("--device x-no-mmap", keys.get("x-no-mmap") ?? "off");
  if (bars === undefined) return isTrapped ? "trap" : "map";
  if (keys.has("x-no-mmap")) throw new SpecError("--device", "bars and x-no-mmap mean the same: give one of them");
  return readChoice("--device bars", bars, ["map", "trap"]);
}

/** `rom=on|off|file=PATH`, or QEMU's `romfile=PATH` and `rombar=0|1`; `undefined` when nothing was said. */
function readRom(keys: Keys, home: string): RomSpec | undefined {
  const given = ["rom", "romfile", "rombar"].filter((key) => keys.has(key));
  if (given.length > 1) throw new SpecError("--device", `${given.join(" and ")} mean the same: give one of them`);
  const file = keys.get("romfile");
  if (file !== undefined) return { kind: "file", path: readPath(file, home) };
  const bar = keys.get("rombar");
  if (bar !== undefined) return { kind: readChoice("--device rombar", bar, ["0", "1"]) === "0" ? "off" : "on" };
  const rom = keys.get("rom");
  if (rom === undefined) return undefined;
  const path = /^file=(.*)$/s.exec(rom)?.[1];
  if (path === "") throw new SpecError("--device rom", "a path is needed: rom=file=/some/where");
  if (path !== undefined) return { kind: "file", path: readPath(path, home) };
  if (rom === "on" || rom === "off") return { kind: rom };
  throw new SpecError("--device rom", `'${rom}' is none of on, off, file=PATH`);
}
