import { basename } from "node:path";
import { SpecError } from "../../../base/errors.ts";
import type { InputOf, SpecOf, ValueOf } from "../fields/field.ts";
import type { ListKind } from "./kind.ts";

const FIELDS = {
  /** sysfs directory of the function, by real path; its address is taken too. */
  path: {
    type: "path",
    leadsTo: "pciFunction",
    isRequired: true,
    key: "path",
    aliases: ["host", "sysfsdev"],
    value: "PATH",
    help: "sysfs directory of the function, or its address: 0000:01:00.0",
  },
  id: { type: "id", prefix: "_vfio", key: "id", value: "NAME", help: "name in messages" },
  /** `trap` makes every BAR access exit and be passed through, for teaching and debugging. */
  bars: {
    type: "choice",
    choices: ["map", "trap"],
    default: "map",
    key: "bars",
    value: "map|trap",
    help: "trap: let every access to the device's memory pass through this program",
  },
  /** BARs left trapped although they could be mapped. */
  excludedMmapBars: {
    type: "integers",
    least: 0,
    most: 5,
    default: [],
    key: "exclude_mmap_bars",
    aliases: ["x_exclude_mmap_bars"],
    value: "[N,N]",
    help: "BARs to trap although they could be mapped",
  },
  /**
   * `integrated` shows a PCI Express endpoint as part of the root complex, for guests that refuse endpoints on bus 0.
   */
  express: {
    type: "choice",
    choices: ["host", "integrated"],
    key: "express",
    value: "host|integrated",
    help: "PCI Express type: as on the host, or part of the root complex, without a link",
  },
  /** The device's own expansion ROM when absent. */
  rom: {
    type: "variants",
    plain: ["on", "off"],
    withPath: ["file"],
    leadsTo: "image",
    most: 16_777_216, // PCI Local Bus 3.0 §6.2.5.2
    key: "rom",
    value: "on|off|file=PATH",
    help: "expansion ROM the guest sees: the device's, none, a file's content",
  },
  /** Between functions of different slots of the host when absent. */
  p2p: {
    type: "boolean",
    key: "p2p",
    value: "on|off",
    help: "whether the other devices reach its memory by DMA; default: those of other slots",
  },
  /** Guest slot on bus 0; the first free one when absent. */
  pciSlot: {
    type: "integer",
    least: 1,
    most: 31,
    refusals: { 0: "slot 0 is the host bridge's" },
    key: "pci_device_id",
    value: "SLOT",
    help: "slot on the guest's bus, 1 to 31; the first free one otherwise",
  },
  /** What becomes of it when the host reports an error: `report` when absent, which keeps it as long as it answers. */
  onError: {
    type: "choice",
    choices: ["report", "pull", "stop"],
    key: "on-error",
    value: "report|pull|stop",
    help: "at an error: keep it while it answers, take it from the guest, stop; default: report",
  },
  /** While the guest keeps it and the host wants it back: `wait` when absent; `stop` ends the machine after 30 s. */
  onUnbind: {
    type: "choice",
    choices: ["wait", "stop"],
    key: "on-unbind",
    value: "wait|stop",
    help: "while the guest keeps what the host wants back; default: wait",
  },
  /** UUID that the owner of its physical function has set, where a VFIO driver has that. */
  vfToken: {
    type: "text",
    pattern: "[\\da-fA-F]{8}(?:-[\\da-fA-F]{4}){3}-[\\da-fA-F]{12}",
    isNot: "a UUID like 11111111-2222-3333-4444-555555555555",
    key: "vf-token",
    value: "UUID",
    help: "token of a virtual function whose physical function belongs to vfio-pci",
  },
} as const;

/**
 * What the guest sees as a function's expansion ROM: the device's own (`{ kind: "on" }`), none (`{ kind: "off" }`), or
 * a file's content (`{ kind: "file", path }`).
 */
export type RomSpec = ValueOf<(typeof FIELDS)["rom"]>;
/** One passed-through PCI function. */
export interface DeviceSpec extends SpecOf<typeof FIELDS> {}
/** A PCI function as callers describe it: `path` may be its address too. */
export interface DeviceInput extends InputOf<typeof FIELDS> {}

export const PASSED_FUNCTION: ListKind<"devices", typeof FIELDS> = {
  kind: "passed function",
  about: "A PCI function of the host, by VFIO; it has to be bound to vfio-pci.",
  part: "devices",
  shape: "list",
  option: "--device",
  group: "Devices",
  help: "PCI function of the host to pass through; it has to be bound to vfio-pci",
  cloudHypervisor: "devices",
  isPassedThrough: true,
  fields: FIELDS,
  check(where, { path, pciSlot }, before) {
    if (before.some((device) => device.path === path)) {
      throw new SpecError("TSVMM_VALUE_TWICE", `${where}.path`, `${basename(path)} is given twice`);
    }
    if (pciSlot !== undefined && before.some((device) => device.pciSlot === pciSlot)) {
      throw new SpecError("TSVMM_VALUE_TWICE", `${where}.pciSlot`, `slot ${pciSlot} is given twice`);
    }
  },
};
