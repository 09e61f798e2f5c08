import * as ids from "../pci/ids.ts";

/**
 * How the guest sees a capability.
 *
 * - `snapshot`: the bytes read when the device was opened; guest writes are dropped.
 * - `live`: reads and writes go to the device, where the host kernel has the last word.
 * - `power`, `express`, `advancedFeatures`: live where they change the device's state, as `device-state.ts` says.
 * - `msi`, `msix`: emulated.
 */
export type Treatment = "snapshot" | "live" | "power" | "express" | "advancedFeatures" | "msi" | "msix";

/** A capability id's name, and either how it is shown and how long it is, or why it is not shown. */
export type CapabilityRule =
  | { readonly name: string; readonly treatment: Treatment; readonly sizeBytes: (at: CapabilityView) => number }
  | { readonly name: string; readonly hiddenBecause: string };

/** Reads a capability's own registers; offsets are from its start. */
export interface CapabilityView {
  u8(offset: number): number;
  u16(offset: number): number;
  u32(offset: number): number;
}

const shown = (
  name: string,
  treatment: Treatment,
  size: number | ((at: CapabilityView) => number),
): CapabilityRule => ({
  name,
  treatment,
  sizeBytes: typeof size === "number" ? () => size : size,
});
const hidden = (name: string, hiddenBecause: string): CapabilityRule => ({ name, hiddenBecause });

/** PCI Local Bus 3.0 §6.8.1: 10 bytes, 4 more for a 64-bit address, 10 more for masks. */
function msiSize(at: CapabilityView): number {
  const flags = at.u16(ids.PCI_MSI_FLAGS);
  const data = (flags & ids.PCI_MSI_FLAGS_64BIT) === 0 ? ids.PCI_MSI_DATA_32 : ids.PCI_MSI_DATA_64;
  return (flags & ids.PCI_MSI_FLAGS_MASKBIT) === 0 ? data + 2 : data + 12;
}

/** PCI Express Base 3.0 §7.8: version 1 of an endpoint ends with the link registers, version 2 has all registers. */
const expressSize = (at: CapabilityView): number =>
  (at.u16(ids.PCI_EXP_FLAGS) & ids.PCI_EXP_FLAGS_VERS) < 2 ? 20 : 60;

/** Capabilities of the first 256 bytes. PCI Code and ID Assignment 1.11 §2 */
export const STANDARD_RULES: ReadonlyMap<number, CapabilityRule> = new Map([
  [ids.PCI_CAP_ID_PM, shown("power management", "power", 8)],
  [ids.PCI_CAP_ID_AGP, hidden("AGP", "it talks to the host's chipset")],
  // Drivers read serial numbers and MAC addresses there; the kernel carries the slow protocol out.
  [ids.PCI_CAP_ID_VPD, shown("vital product data", "live", 8)],
  [ids.PCI_CAP_ID_SLOTID, hidden("slot identification", "it names a slot of the host")],
  [ids.PCI_CAP_ID_MSI, shown("MSI", "msi", msiSize)],
  [ids.PCI_CAP_ID_CHSWP, hidden("CompactPCI hot swap", "the slot is the host's")],
  [ids.PCI_CAP_ID_PCIX, shown("PCI-X", "snapshot", 8)],
  [ids.PCI_CAP_ID_HT, hidden("HyperTransport", "the link is the host's")],
  [ids.PCI_CAP_ID_VNDR, shown("vendor-specific", "live", (at) => at.u8(2))],
  [ids.PCI_CAP_ID_DBG, hidden("debug port", "it is a port of the host")],
  [ids.PCI_CAP_ID_CCRC, hidden("CompactPCI resource control", "the slot is the host's")],
  [ids.PCI_CAP_ID_SHPC, hidden("hot-plug controller", "the slot is the host's")],
  [ids.PCI_CAP_ID_SSVID, shown("subsystem identity", "snapshot", 8)],
  [ids.PCI_CAP_ID_AGP3, hidden("AGP 8x", "it talks to the host's chipset")],
  [ids.PCI_CAP_ID_SECDEV, hidden("secure device", "the IOMMU is the host's")],
  [ids.PCI_CAP_ID_EXP, shown("PCI Express", "express", expressSize)],
  [ids.PCI_CAP_ID_MSIX, shown("MSI-X", "msix", ids.PCI_CAP_MSIX_SIZEOF)],
  [ids.PCI_CAP_ID_SATA, shown("SATA index and data", "snapshot", 8)],
  [ids.PCI_CAP_ID_AF, shown("advanced features", "advancedFeatures", 6)],
  [ids.PCI_CAP_ID_EA, hidden("enhanced allocation", "it fixes addresses of the host")],
]);

const LINK = "the link's other end is the host's";
const ROUTING = "it changes how the host's fabric routes requests";
const ADDRESSES = "it resizes what the host has placed";
const TRANSLATION = "it needs an IOMMU that the guest can see";

/** Capabilities beyond 256 bytes. PCI Code and ID Assignment 1.11 §3 */
export const EXTENDED_RULES: ReadonlyMap<number, CapabilityRule> = new Map([
  [ids.PCI_EXT_CAP_ID_ERR, hidden("advanced error reporting", "the host handles errors; they arrive as the ERR event")],
  [ids.PCI_EXT_CAP_ID_VC, hidden("virtual channels", LINK)],
  [ids.PCI_EXT_CAP_ID_DSN, shown("device serial number", "snapshot", 12)],
  [ids.PCI_EXT_CAP_ID_PWR, hidden("power budgeting", "the power budget is the host's")],
  [ids.PCI_EXT_CAP_ID_RCLD, hidden("root complex link declaration", "the root complex is the host's")],
  [ids.PCI_EXT_CAP_ID_RCILC, hidden("root complex internal link", "the root complex is the host's")],
  [ids.PCI_EXT_CAP_ID_RCEC, hidden("root complex event collector", "the root complex is the host's")],
  [ids.PCI_EXT_CAP_ID_MFVC, hidden("multifunction virtual channels", LINK)],
  [ids.PCI_EXT_CAP_ID_VC9, hidden("virtual channels with MFVC", LINK)],
  [ids.PCI_EXT_CAP_ID_RCRB, hidden("root complex registers", "the root complex is the host's")],
  [ids.PCI_EXT_CAP_ID_VNDR, shown("vendor-specific", "live", (at) => at.u32(4) >>> 20)],
  [ids.PCI_EXT_CAP_ID_CAC, hidden("configuration access correlation", "the trusted platform is the host's")],
  [ids.PCI_EXT_CAP_ID_ACS, hidden("access control services", ROUTING)],
  [
    ids.PCI_EXT_CAP_ID_ARI,
    hidden("alternative routing-id", "it links to the device's next function on the host's bus"),
  ],
  [ids.PCI_EXT_CAP_ID_ATS, hidden("address translation services", TRANSLATION)],
  [ids.PCI_EXT_CAP_ID_SRIOV, hidden("single root I/O virtualization", "virtual functions would appear on the host")],
  [ids.PCI_EXT_CAP_ID_MRIOV, hidden("multi-root I/O virtualization", "virtual functions would appear on the host")],
  [ids.PCI_EXT_CAP_ID_MCAST, hidden("multicast", ROUTING)],
  [ids.PCI_EXT_CAP_ID_PRI, hidden("page request interface", TRANSLATION)],
  [ids.PCI_EXT_CAP_ID_REBAR, hidden("resizable BARs", ADDRESSES)],
  [ids.PCI_EXT_CAP_ID_DPA, hidden("dynamic power allocation", "the power budget is the host's")],
  [ids.PCI_EXT_CAP_ID_TPH, hidden("processing hints", "its steering tags name the host's processors")],
  [ids.PCI_EXT_CAP_ID_LTR, hidden("latency tolerance", "its scale is the host platform's")],
  [ids.PCI_EXT_CAP_ID_SECPCI, hidden("secondary PCI Express", LINK)],
  [ids.PCI_EXT_CAP_ID_PMUX, hidden("protocol multiplexing", LINK)],
  [ids.PCI_EXT_CAP_ID_PASID, hidden("process address spaces", TRANSLATION)],
  [ids.PCI_EXT_CAP_ID_DPC, hidden("downstream port containment", LINK)],
  [ids.PCI_EXT_CAP_ID_L1SS, hidden("L1 substates", LINK)],
  [ids.PCI_EXT_CAP_ID_PTM, hidden("precision time", "the time's master is the host's")],
  [ids.PCI_EXT_CAP_ID_DVSEC, shown("designated vendor-specific", "live", (at) => at.u32(4) >>> 20)],
  [ids.PCI_EXT_CAP_ID_VF_REBAR, hidden("resizable BARs of virtual functions", ADDRESSES)],
  [ids.PCI_EXT_CAP_ID_DLF, hidden("data link features", LINK)],
  [ids.PCI_EXT_CAP_ID_PL_16GT, hidden("16 GT/s physical layer", LINK)],
  [ids.PCI_EXT_CAP_ID_DOE, hidden("data object exchange", "it may hold the host's keys")],
]);
