import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import type { Fd } from "../base/units.ts";
import { check, errnoName } from "../host/errors.ts";
import { formatBdf } from "../pci/bdf.ts";
import {
  HOT_RESET,
  HOT_RESET_INFO,
  PCI_DEPENDENT_DEVICE,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
} from "./abi.ts";
import { type VfioLibc, vfioStruct } from "./calls.ts";
import { CAUSES } from "./causes.ts";

/** A function that a reset of the bus or slot hits. */
export interface ResetMember {
  /** `0000:01:00.0` */
  readonly name: string;
  readonly group: number;
}

/**
 * How far a function can be reset alone. `power`: the kernel tries a trip through D3 first, which leaves many devices
 * as they were, whatever better method comes behind it (Linux drivers/pci/pci.c, pci_reset_fn_methods[]).
 */
export type OwnReset = "full" | "power" | "none";

/** A function that may have no reset of its own. */
export interface BusResettable {
  readonly name: string;
  readonly ownReset: OwnReset;
  /** Everything that the reset of its bus or slot hits, itself included; `undefined` when neither can be reset. */
  resetSet(): readonly ResetMember[] | undefined;
  /** @param groups Files of all groups in the set. @throws HostError */
  resetBus(groups: readonly Fd[]): void;
}

/**
 * VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: asks once how many functions there are, then for all of them.
 *
 * @throws SyscallError
 */
export function queryResetSet(libc: VfioLibc, device: Fd, name: string): readonly ResetMember[] | undefined {
  let count = 0;
  for (;;) {
    const { bytes, view } = vfioStruct(HOT_RESET_INFO.size + count * PCI_DEPENDENT_DEVICE.size);
    if (libc.ioctlStruct(device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, bytes) >= 0) return parseMembers(view);
    const errno = errnoName(libc.errno());
    if (errno === "ENODEV") return undefined; // neither slot nor bus can be reset
    const needed = view.getUint32(HOT_RESET_INFO.count, true);
    // More than asked for: the kernel says how many. Any other answer would be asked again without end.
    if (errno === "ENOSPC" && needed > count) count = needed;
    else
      check(
        -1,
        `ask what shares a reset with ${name}`,
        "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO",
        "TSVMM_VFIO_REFUSED",
        libc,
      );
  }
}

function parseMembers(view: DataView): readonly ResetMember[] {
  const members: ResetMember[] = [];
  const count = view.getUint32(HOT_RESET_INFO.count, true);
  for (let index = 0; index < count; index++) {
    const at = HOT_RESET_INFO.devices + index * PCI_DEPENDENT_DEVICE.size;
    if (at + PCI_DEPENDENT_DEVICE.size > view.byteLength) break;
    const devfn = view.getUint8(at + PCI_DEPENDENT_DEVICE.devfn);
    const name = formatBdf({
      segment: view.getUint16(at + PCI_DEPENDENT_DEVICE.segment, true),
      bus: view.getUint8(at + PCI_DEPENDENT_DEVICE.bus),
      device: devfn >>> 3,
      function: devfn & 7,
    });
    members.push({ name, group: view.getUint32(at + PCI_DEPENDENT_DEVICE.group_id, true) });
  }
  return members;
}

/** VFIO_DEVICE_PCI_HOT_RESET. The kernel checks once more that the groups own all that is hit. @throws SyscallError */
export function resetBusOf(libc: VfioLibc, device: Fd, name: string, groups: readonly Fd[]): void {
  const { bytes, view } = vfioStruct(HOT_RESET.size + 4 * groups.length);
  view.setUint32(HOT_RESET.count, groups.length, true);
  for (const [index, group] of groups.entries()) view.setInt32(HOT_RESET.group_fds + 4 * index, group, true);
  const result = libc.ioctlStruct(device, VFIO_DEVICE_PCI_HOT_RESET, bytes);
  check(result, `reset the bus of ${name}`, "VFIO_DEVICE_PCI_HOT_RESET", CAUSES.resetBus, libc);
}

/**
 * Resets the buses of functions that need it, each bus once, if everything on it is this machine's. A group belongs to
 * one process, so its file is the proof. None of the functions may be in use. What cannot be done is reported and left.
 *
 * @param level Of those reports: what was said at the start need not be said again at the end.
 * @param groupFile The file of a group this machine holds; `undefined` for others'.
 */
export function resetBuses(
  devices: readonly BusResettable[],
  groupFile: (group: number) => Fd | undefined,
  report: Report,
  level: "warn" | "debug" = "warn",
): void {
  const done = new Set<string>();
  for (const device of devices) {
    if (device.ownReset === "full" || done.has(device.name)) continue;
    const state =
      device.ownReset === "none"
        ? "cannot be reset: it has no reset of its own"
        : "is reset by a trip through D3 only, which leaves the state of many devices: the kernel prefers it";
    try {
      const set = device.resetSet();
      const obstacle = set === undefined ? "its bus cannot be reset either" : othersOn(set, groupFile);
      if (set === undefined || obstacle !== undefined) {
        report(level, `${device.name} ${state}, and ${obstacle}`);
        continue;
      }
      const files = set.map(({ group }) => groupFile(group)).filter((file) => file !== undefined);
      device.resetBus([...new Set(files)]);
      for (const { name } of set) done.add(name);
      report("debug", `the bus of ${device.name} was reset`, { functions: set.map(({ name }) => name).join(" ") });
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      report(level, `${device.name} ${state}, and its bus cannot be reset: ${error.message}`);
    }
  }
}

function othersOn(set: readonly ResetMember[], groupFile: (group: number) => Fd | undefined): string | undefined {
  const others = set.filter(({ group }) => groupFile(group) === undefined);
  if (others.length === 0) return undefined;
  const names = others.map(({ name, group }) => `${name} (IOMMU group ${group})`).join(", ");
  return `a reset of its bus would hit functions that are not this machine's: ${names}`;
}
