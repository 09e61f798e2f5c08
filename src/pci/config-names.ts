import { RegisterBank } from "../base/registers.ts";
import { hex } from "../base/units.ts";
import type { ConfigSpace } from "./config-space.ts";
import * as ids from "./ids.ts";

/** Type 0 header, as a table to lay beside PCI Local Bus 3.0 §6.1. */
const HEADER: RegisterBank<string> = new RegisterBank("type 0 header", ids.PCI_STD_HEADER_SIZEOF, [
  [ids.PCI_VENDOR_ID, 2, "vendor id", "ro"],
  [ids.PCI_DEVICE_ID, 2, "device id", "ro"],
  [ids.PCI_COMMAND, 2, "command", "rw"],
  [ids.PCI_STATUS, 2, "status", "rw"],
  [ids.PCI_REVISION_ID, 1, "revision", "ro"],
  [ids.PCI_CLASS_PROG, 1, "programming interface", "ro"],
  [ids.PCI_CLASS_DEVICE, 2, "class", "ro"],
  [ids.PCI_CACHE_LINE_SIZE, 1, "cache line size", "rw"],
  [ids.PCI_LATENCY_TIMER, 1, "latency timer", "rw"],
  [ids.PCI_HEADER_TYPE, 1, "header type", "ro"],
  [ids.PCI_BIST, 1, "BIST", "rw"],
  [ids.barOffset(0), 4, "BAR 0", "rw"],
  [ids.barOffset(1), 4, "BAR 1", "rw"],
  [ids.barOffset(2), 4, "BAR 2", "rw"],
  [ids.barOffset(3), 4, "BAR 3", "rw"],
  [ids.barOffset(4), 4, "BAR 4", "rw"],
  [ids.barOffset(5), 4, "BAR 5", "rw"],
  [ids.PCI_CARDBUS_CIS, 4, "CardBus CIS", "ro"],
  [ids.PCI_SUBSYSTEM_VENDOR_ID, 2, "subsystem vendor id", "ro"],
  [ids.PCI_SUBSYSTEM_ID, 2, "subsystem id", "ro"],
  [ids.PCI_ROM_ADDRESS, 4, "expansion ROM", "rw"],
  [ids.PCI_CAPABILITY_LIST, 1, "capability list", "ro"],
  [ids.PCI_INTERRUPT_LINE, 1, "interrupt line", "rw"],
  [ids.PCI_INTERRUPT_PIN, 1, "interrupt pin", "ro"],
  [ids.PCI_MIN_GNT, 1, "Min_Gnt", "ro"],
  [ids.PCI_MAX_LAT, 1, "Max_Lat", "ro"],
]);

/** The capabilities that guests most have to do with; others are told by number. PCI Code and ID Assignment 1.11 §2 */
const CAPABILITIES: ReadonlyMap<number, string> = new Map([
  [ids.PCI_CAP_ID_PM, "power management"],
  [ids.PCI_CAP_ID_VPD, "vital product data"],
  [ids.PCI_CAP_ID_MSI, "MSI"],
  [ids.PCI_CAP_ID_VNDR, "vendor-specific"],
  [ids.PCI_CAP_ID_EXP, "PCI Express"],
  [ids.PCI_CAP_ID_MSIX, "MSI-X"],
  [ids.PCI_CAP_ID_AF, "advanced features"],
]);

/**
 * What is at an offset of a function's configuration space, as text: `command`, `BAR 0`, `MSI-X +0x2`,
 * `extended capability 0x1 +0x4`.
 *
 * @param offset 0 to 4095, whatever the size of the space.
 */
export function nameConfigRegister(config: ConfigSpace, offset: number): string {
  const inHeader = HEADER.nameAt(offset);
  if (inHeader !== undefined) return inHeader;
  const isExtended = offset >= ids.PCI_CFG_SPACE_SIZE;
  const lists = isExtended ? config.extendedCapabilities() : config.capabilities();
  // The capability that begins last before the offset; where it ends, only its own kind knows.
  const at = Math.max(-1, ...lists.filter((start) => start <= offset));
  if (at < 0) return hex(offset);
  const id = isExtended ? config.get16(at) : config.get8(at);
  const name = isExtended ? `extended capability ${hex(id)}` : (CAPABILITIES.get(id) ?? `capability ${hex(id)}`);
  return `${name} +${hex(offset - at)}`;
}
