import {
  PCI_CAP_ID_EXP,
  PCI_CAPABILITY_LIST,
  PCI_CFG_SPACE_EXP_SIZE,
  PCI_CFG_SPACE_SIZE,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_STD_HEADER_SIZEOF,
} from "../pci/ids.ts";
import type { RegionArea } from "./backend.ts";
import {
  type CapabilityRule,
  type CapabilityView,
  EXTENDED_RULES,
  STANDARD_RULES,
  type Treatment,
  UNKNOWN_BYTES,
  UNKNOWN_EXTENDED_BYTES,
} from "./capability-table.ts";

/** A capability that the guest sees, where the device has it. */
export interface KeptCapability extends RegionArea {
  readonly id: number;
  readonly name: string;
  readonly treatment: Treatment;
}

/** An extended capability that the guest sees. */
export interface KeptExtendedCapability extends KeptCapability {
  readonly version: number;
}

/** A capability that the guest does not see, and why. */
export interface HiddenCapability {
  readonly id: number;
  readonly offset: number;
  readonly name: string;
  readonly reason: string;
}

/**
 * What the guest gets of a device's configuration space, by range:
 *
 * | range | guest reads | guest writes |
 * |---|---|---|
 * | ids of vendor and device, BARs, pin | ours | ours |
 * | command, status | live | forwarded |
 * | class, revision, subsystem | live | dropped |
 * | cache line, latency | ours | ours and forwarded |
 * | shown capabilities | by treatment | by treatment |
 * | hidden capabilities | zeroes, out of the list | dropped |
 * | other bytes from 0x40 | live | forwarded |
 *
 * Drivers keep device-specific registers in bytes that no capability has, and poll class or subsystem to see a reset of
 * their chip end.
 */
export interface ConfigPolicy {
  readonly sizeBytes: 256 | 4096;
  /** In list order. */
  readonly standard: readonly KeptCapability[];
  readonly extended: readonly KeptExtendedCapability[];
  readonly hidden: readonly HiddenCapability[];
  /** Bytes from 0x40 that no capability has; drivers keep device-specific registers there. */
  readonly deviceSpecific: readonly RegionArea[];
}

const MAX_CAPABILITIES = 48;
const MAX_EXTENDED_CAPABILITIES = 960;

/**
 * Decides what the guest sees. Pure; the image is the device's word and may be nonsense: loops, unaligned links and
 * overlapping capabilities end or shorten what is shown.
 *
 * Extended configuration space exists for the guest only with a PCI Express capability, as the specification has it.
 *
 * @param image The device's configuration space, 256 or 4096 bytes.
 * @param kept Registers outside capabilities that the guest may not have.
 */
export function decideConfig(image: Uint8Array, kept: readonly RegionArea[] = []): ConfigPolicy {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const hidden: HiddenCapability[] = [];
  const offsets = standardList(view);
  const standard: KeptCapability[] = [];
  const taken: RegionArea[] = [];
  for (const offset of offsets) {
    const id = view.getUint8(offset);
    const rule = STANDARD_RULES.get(id);
    const room = nextStart(offsets, offset, PCI_CFG_SPACE_SIZE) - offset;
    const known = rule?.sizeBytes(viewAt(view, offset)) ?? UNKNOWN_BYTES;
    const sizeBytes = Math.max(2, Math.min(known, room));
    taken.push({ offset, sizeBytes });
    const isSecond = rule !== undefined && "treatment" in rule && isShownOnce(rule.treatment, standard);
    if (isSecond) hidden.push({ id, offset, name: rule.name, reason: "it is the second of its kind" });
    else if (rule !== undefined && "treatment" in rule) {
      standard.push({ id, offset, sizeBytes, name: rule.name, treatment: rule.treatment });
    } else hidden.push(hiddenCapability(id, offset, rule));
  }
  const isExpress = standard.some((capability) => capability.id === PCI_CAP_ID_EXP);
  const sizeBytes = isExpress && image.length >= PCI_CFG_SPACE_EXP_SIZE ? PCI_CFG_SPACE_EXP_SIZE : PCI_CFG_SPACE_SIZE;
  const extended = sizeBytes === PCI_CFG_SPACE_EXP_SIZE ? extendedCapabilities(view, hidden, taken) : [];
  return {
    sizeBytes,
    standard,
    extended,
    hidden,
    deviceSpecific: gaps([...taken, ...kept], PCI_STD_HEADER_SIZEOF, sizeBytes),
  };
}

/** Two emulated capabilities of a kind would both drive the host's one set of vectors. */
function isShownOnce(treatment: Treatment, standard: readonly KeptCapability[]): boolean {
  if (treatment !== "msi" && treatment !== "msix") return false;
  return standard.some((capability) => capability.treatment === treatment);
}

function extendedCapabilities(
  view: DataView,
  hidden: HiddenCapability[],
  taken: RegionArea[],
): readonly KeptExtendedCapability[] {
  const offsets = extendedList(view);
  taken.push({ offset: PCI_CFG_SPACE_SIZE, sizeBytes: 4 }); // the list starts there, whatever is in it
  const kept: KeptExtendedCapability[] = [];
  for (const offset of offsets) {
    const header = view.getUint32(offset, true);
    const id = header & 0xffff;
    const rule = EXTENDED_RULES.get(id);
    const known = id === 0 ? 4 : (rule?.sizeBytes(viewAt(view, offset)) ?? UNKNOWN_EXTENDED_BYTES);
    const room = nextStart(offsets, offset, view.byteLength) - offset;
    const sizeBytes = Math.max(4, Math.min(known, room));
    taken.push({ offset, sizeBytes });
    if (rule !== undefined && "treatment" in rule) {
      const version = (header >>> 16) & 0xf;
      kept.push({ id, version, offset, sizeBytes, name: rule.name, treatment: rule.treatment });
    } else if (id !== 0) hidden.push(hiddenCapability(id, offset, rule)); // 0 is a place holder
  }
  return kept;
}

function hiddenCapability(id: number, offset: number, rule: CapabilityRule | undefined): HiddenCapability {
  if (rule !== undefined && "hiddenBecause" in rule) return { id, offset, name: rule.name, reason: rule.hiddenBecause };
  return { id, offset, name: `capability 0x${id.toString(16)}`, reason: "it is unknown" };
}

function standardList(view: DataView): readonly number[] {
  const offsets: number[] = [];
  if ((view.getUint16(PCI_STATUS, true) & PCI_STATUS_CAP_LIST) === 0) return offsets;
  let offset = view.getUint8(PCI_CAPABILITY_LIST) & 0xfc;
  while (offset >= PCI_STD_HEADER_SIZEOF && offsets.length < MAX_CAPABILITIES && !offsets.includes(offset)) {
    if (view.getUint8(offset) === 0xff) break; // no device answers there
    offsets.push(offset);
    offset = view.getUint8(offset + 1) & 0xfc;
  }
  return offsets;
}

function extendedList(view: DataView): readonly number[] {
  const offsets: number[] = [];
  let offset = PCI_CFG_SPACE_SIZE;
  while (offset >= PCI_CFG_SPACE_SIZE && offset + 4 <= view.byteLength && !offsets.includes(offset)) {
    const header = view.getUint32(offset, true);
    if (header === 0 || header === 0xffff_ffff || offsets.length === MAX_EXTENDED_CAPABILITIES) break;
    offsets.push(offset);
    offset = (header >>> 20) & 0xffc;
  }
  return offsets;
}

/** Where the next thing after `offset` starts, in order of address rather than of the list. */
function nextStart(offsets: readonly number[], offset: number, end: number): number {
  return offsets.reduce((next, other) => (other > offset && other < next ? other : next), end);
}

function gaps(taken: readonly RegionArea[], start: number, end: number): readonly RegionArea[] {
  const found: RegionArea[] = [];
  let from = start;
  for (const area of [...taken].sort((a, b) => a.offset - b.offset)) {
    if (area.offset > from) found.push({ offset: from, sizeBytes: area.offset - from });
    from = Math.max(from, area.offset + Math.ceil(area.sizeBytes / 4) * 4);
  }
  if (from < end) found.push({ offset: from, sizeBytes: end - from });
  return found;
}

function viewAt(view: DataView, start: number): CapabilityView {
  const inside = (offset: number, width: number): boolean => start + offset + width <= view.byteLength;
  return {
    u8: (offset) => (inside(offset, 1) ? view.getUint8(start + offset) : 0),
    u16: (offset) => (inside(offset, 2) ? view.getUint16(start + offset, true) : 0),
    u32: (offset) => (inside(offset, 4) ? view.getUint32(start + offset, true) : 0),
  };
}
