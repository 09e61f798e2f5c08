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

/** A capability id's name and length, and either how it is shown or why it is not. */
export type CapabilityRule = { readonly name: string; readonly sizeBytes: (at: CapabilityView) => number } & (
  | { readonly treatment: Treatment }
  | { readonly hiddenBecause: string }
);

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
const hidden = (
  name: string,
  size: number | ((at: CapabilityView) => number),
  hiddenBecause: string,
): CapabilityRule => ({ name, hiddenBecause, sizeBytes: typeof size === "number" ? () => size : size });

/** Registers that are hidden from the guest behind the header of a capability of unknown length. */
const UNKNOWN_BODY = 32;
/** So much of an unknown capability is hidden, its header included: of two bytes, or of four beyond 256 bytes. */
export const UNKNOWN_BYTES: number = 2 + UNKNOWN_BODY;
export const UNKNOWN_EXTENDED_BYTES: number = 4 + UNKNOWN_BODY;

/** PCI Local Bus 3.0 §6.8.1: 10 bytes, 4 more for a 64-bit address, 10 more for masks. */
function msiSize(at: CapabilityView): number {
  const flags = at.u16(ids.PCI_MSI_FLAGS);
  const data = (flags & ids.PCI_MSI_FLAGS_64BIT) === 0 ? ids.PCI_MSI_DATA_32 : ids.PCI_MSI_DATA_64;
  return (flags & ids.PCI_MSI_FLAGS_MASKBIT) === 0 ? data + 2 : data + 12;
}

/** PCI Express Base 3.0 §7.8: version 1 of an endpoint ends with the link registers, version 2 has all registers. */
const expressSize = (at: CapabilityView): number =>
  (at.u16(ids.PCI_EXP_FLAGS) & ids.PCI_EXP_FLAGS_VERS) < 2 ? 20 : 60;

/** HyperTransport 3.1 §7.2: host and slave interfaces are long, all others one dword. */
const hypertransportSize = (at: CapabilityView): number => ((at.u8(3) & 0xe0) === 0 ? 28 : 4);

/** PCI Express Base 3.0, Enhanced Allocation ECN: a count of entries, each with the count of its dwords. */
function allocationSize(at: CapabilityView): number {
  let sizeBytes = 4;
  for (let entry = at.u8(2) & 0x3f; entry > 0; entry--) sizeBytes += 4 * (1 + (at.u8(sizeBytes) & 0x7));
  return sizeBytes;
}

/** Capabilities of the first 256 bytes. PCI Code and ID Assignment 1.11 §2 */
export const STANDARD_RULES: ReadonlyMap<number, CapabilityRule> = new Map([
  [ids.PCI_CAP_ID_PM, shown("power management", "power", 8)],
  [ids.PCI_CAP_ID_AGP, hidden("AGP", 12, "it talks to the host's chipset")],
  // Drivers read serial numbers and MAC addresses there; the kernel carries the slow protocol out.
  [ids.PCI_CAP_ID_VPD, shown("vital product data", "live", 8)],
  [ids.PCI_CAP_ID_SLOTID, hidden("slot identification", 4, "it names a slot of the host")],
  [ids.PCI_CAP_ID_MSI, shown("MSI", "msi", msiSize)],
  [ids.PCI_CAP_ID_CHSWP, hidden("CompactPCI hot swap", 4, "the slot is the host's")],
  [ids.PCI_CAP_ID_PCIX, shown("PCI-X", "snapshot", 8)],
  [ids.PCI_CAP_ID_HT, hidden("HyperTransport", hypertransportSize, "the link is the host's")],
  [ids.PCI_CAP_ID_VNDR, shown("vendor-specific", "live", (at) => at.u8(2))],
  [ids.PCI_CAP_ID_DBG, hidden("debug port", 4, "it is a port of the host")],
  [ids.PCI_CAP_ID_CCRC, hidden("CompactPCI resource control", UNKNOWN_BYTES, "the slot is the host's")],
  [ids.PCI_CAP_ID_SHPC, hidden("hot-plug controller", 8, "the slot is the host's")],
  [ids.PCI_CAP_ID_SSVID, shown("subsystem identity", "snapshot", 8)],
  [ids.PCI_CAP_ID_AGP3, hidden("AGP 8x", 12, "it talks to the host's chipset")],
  [ids.PCI_CAP_ID_SECDEV, hidden("secure device", UNKNOWN_BYTES, "the IOMMU is the host's")],
  [ids.PCI_CAP_ID_EXP, shown("PCI Express", "express", expressSize)],
  [ids.PCI_CAP_ID_MSIX, shown("MSI-X", "msix", ids.PCI_CAP_MSIX_SIZEOF)],
  [ids.PCI_CAP_ID_SATA, shown("SATA index and data", "snapshot", 8)],
  [ids.PCI_CAP_ID_AF, shown("advanced features", "advancedFeatures", 6)],
  [ids.PCI_CAP_ID_EA, hidden("enhanced allocation", allocationSize, "it fixes addresses of the host")],
]);

const LINK = "the link's other end is the host's";
const ROUTING = "it changes how the host's fabric routes requests";
const ADDRESSES = "it resizes what the host has placed";
const TRANSLATION = "it needs an IOMMU that the guest can see";

/** PCI Express Base 3.0 §7.11: port registers, three dwords a channel, a table that arbitrates between channels. */
function channelsSize(at: CapabilityView): number {
  const arbitration = at.u8(8);
  const phases = [8, 4, 2].findIndex((bit) => (arbitration & bit) !== 0);
  const registers = 16 + 12 * (1 + (at.u8(4) & 0x7));
  return phases < 0 ? registers : Math.ceil(registers / 16) * 16 + (128 >>> phases) / 2;
}

/** PCI Express Base 3.0 §7.16: 8 bytes, and a bit for each egress vector, 256 where the count is 0. */
function accessControlSize(at: CapabilityView): number {
  const hasEgressControl = (at.u8(4) & 0x20) !== 0;
  const vectors = at.u8(5);
  return hasEgressControl ? 8 + (vectors === 0 ? 256 : Math.ceil(vectors / 32) * 32) / 8 : 8;
}

/** PCI Express Base 3.0 §7.22: two dwords for each BAR. */
const resizableSize = (at: CapabilityView): number => 4 + 8 * (at.u8(8) >>> 5);

/** PCI Express Base 3.0 §7.24: a byte for each substate. */
const powerAllocationSize = (at: CapabilityView): number => 16 + (at.u8(4) & 0x1f) + 1;

/** PCI Express Base 3.0 §7.26: the steering tags are here or in the MSI-X table. */
function processingHintsSize(at: CapabilityView): number {
  const request = at.u32(4);
  return (request & 0x600) === 0x200 ? 12 + 2 * ((request >>> 16) & 0x7ff) + 2 : 12;
}

/**
 * Capabilities beyond 256 bytes. Lengths of hidden ones are those of `pci_ext_cap_length` in Linux'
 * drivers/vfio/pci/vfio_pci_config.c, and of the specification where it has none. PCI
 * Code and ID Assignment 1.11 §3
 */
export const EXTENDED_RULES: ReadonlyMap<number, CapabilityRule> = new Map([
  [
    ids.PCI_EXT_CAP_ID_ERR,
    hidden("advanced error reporting", 44, "the host handles errors; they arrive as the ERR event"),
  ],
  [ids.PCI_EXT_CAP_ID_VC, hidden("virtual channels", channelsSize, LINK)],
  [ids.PCI_EXT_CAP_ID_DSN, shown("device serial number", "snapshot", 12)],
  [ids.PCI_EXT_CAP_ID_PWR, hidden("power budgeting", 16, "the power budget is the host's")],
  [
    ids.PCI_EXT_CAP_ID_RCLD,
    hidden("root complex link declaration", UNKNOWN_EXTENDED_BYTES, "the root complex is the host's"),
  ],
  [ids.PCI_EXT_CAP_ID_RCILC, hidden("root complex internal link", 12, "the root complex is the host's")],
  [ids.PCI_EXT_CAP_ID_RCEC, hidden("root complex event collector", 12, "the root complex is the host's")],
  [ids.PCI_EXT_CAP_ID_MFVC, hidden("multifunction virtual channels", channelsSize, LINK)],
  [ids.PCI_EXT_CAP_ID_VC9, hidden("virtual channels with MFVC", channelsSize, LINK)],
  [ids.PCI_EXT_CAP_ID_RCRB, hidden("root complex registers", UNKNOWN_EXTENDED_BYTES, "the root complex is the host's")],
  [ids.PCI_EXT_CAP_ID_VNDR, shown("vendor-specific", "live", (at) => at.u32(4) >>> 20)],
  [ids.PCI_EXT_CAP_ID_CAC, hidden("configuration access correlation", 8, "the trusted platform is the host's")],
  [ids.PCI_EXT_CAP_ID_ACS, hidden("access control services", accessControlSize, ROUTING)],
  [
    ids.PCI_EXT_CAP_ID_ARI,
    hidden("alternative routing-id", 8, "it links to the device's next function on the host's bus"),
  ],
  [ids.PCI_EXT_CAP_ID_ATS, hidden("address translation services", 8, TRANSLATION)],
  [
    ids.PCI_EXT_CAP_ID_SRIOV,
    hidden("single root I/O virtualization", 64, "virtual functions would appear on the host"),
  ],
  [
    ids.PCI_EXT_CAP_ID_MRIOV,
    hidden("multi-root I/O virtualization", UNKNOWN_EXTENDED_BYTES, "virtual functions would appear on the host"),
  ],
  [ids.PCI_EXT_CAP_ID_MCAST, hidden("multicast", 40, ROUTING)],
  [ids.PCI_EXT_CAP_ID_PRI, hidden("page request interface", 16, TRANSLATION)],
  [ids.PCI_EXT_CAP_ID_REBAR, hidden("resizable BARs", resizableSize, ADDRESSES)],
  [ids.PCI_EXT_CAP_ID_DPA, hidden("dynamic power allocation", powerAllocationSize, "the power budget is the host's")],
  [
    ids.PCI_EXT_CAP_ID_TPH,
    hidden("processing hints", processingHintsSize, "its steering tags name the host's processors"),
  ],
  [ids.PCI_EXT_CAP_ID_LTR, hidden("latency tolerance", 8, "its scale is the host platform's")],
  [ids.PCI_EXT_CAP_ID_SECPCI, hidden("secondary PCI Express", 44, LINK)],
  [ids.PCI_EXT_CAP_ID_PMUX, hidden("protocol multiplexing", UNKNOWN_EXTENDED_BYTES, LINK)],
  [ids.PCI_EXT_CAP_ID_PASID, hidden("process address spaces", 8, TRANSLATION)],
  [ids.PCI_EXT_CAP_ID_DPC, hidden("downstream port containment", UNKNOWN_EXTENDED_BYTES, LINK)],
  [ids.PCI_EXT_CAP_ID_L1SS, hidden("L1 substates", 20, LINK)],
  [ids.PCI_EXT_CAP_ID_PTM, hidden("precision time", 12, "the time's master is the host's")],
  [ids.PCI_EXT_CAP_ID_DVSEC, shown("designated vendor-specific", "live", (at) => at.u32(4) >>> 20)],
  [ids.PCI_EXT_CAP_ID_VF_REBAR, hidden("resizable BARs of virtual functions", resizableSize, ADDRESSES)],
  [ids.PCI_EXT_CAP_ID_DLF, hidden("data link features", 12, LINK)],
  [ids.PCI_EXT_CAP_ID_PL_16GT, hidden("16 GT/s physical layer", 48, LINK)],
  [ids.PCI_EXT_CAP_ID_DOE, hidden("data object exchange", 24, "it may hold the host's keys")],
]);
