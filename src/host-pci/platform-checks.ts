import { closeSync, constants, existsSync, openSync } from "node:fs";
import { join } from "node:path";
import { adviceOf, errnoOf, IOMMU_SWITCH } from "../base/errors.ts";
import { MIB } from "../base/units.ts";
import { interruptRemapping } from "./attach-causes.ts";
import { failed, type HostCheck } from "./check.ts";
import { entries, type HostRoot, textFile } from "./files.ts";
import { holdersOf, holderText } from "./open-files.ts";

/** How much memory this process may lock. */
export interface MemoryLock {
  readonly limitBytes: number;
  /** CAP_IPC_LOCK: the limit does not count. */
  readonly isUnlimited: boolean;
}

/** How to switch the IOMMU on, by the CPU's maker; both where it is not known. */
export function kernelArgument(proc: string): string {
  const vendor = /^vendor_id\s*:\s*(\S+)/m.exec(textFile(proc, "cpuinfo") ?? "")?.[1];
  const { intel, amd } = IOMMU_SWITCH;
  if (vendor === "GenuineIntel") return intel;
  return vendor === "AuthenticAMD" ? amd : `Intel: ${intel}; AMD: ${amd}`;
}

/**
 * Whether the kernel drives any IOMMU at all.
 *
 * @param hasGroup Some function is in a group, which proves it.
 */
export function iommuCheck({ sys, proc }: HostRoot, hasGroup: boolean): HostCheck {
  const units = entries(join(sys, "class/iommu"));
  const base = {
    topic: "IOMMU",
    why: "it keeps a device's DMA inside its guest; without one no device can be passed through",
    action: "pass devices through",
  };
  if (units.length > 0) return { ...base, state: "good", found: `on: ${units.join(", ")}` };
  if (hasGroup) return { ...base, state: "good", found: "on" };
  return { ...base, state: "failed", code: "TSVMM_NO_IOMMU", found: "the IOMMU is off", remedy: kernelArgument(proc) };
}

/** The kernel's modules. Built-in ones are seen as well: both have parameters. */
export function moduleCheck(root: HostRoot): HostCheck {
  const { sys } = root;
  const base = {
    topic: "VFIO modules",
    why: "they hand devices and their DMA to programs",
    action: "use VFIO",
  };
  const memory = dmaModule(root);
  if (memory === undefined) {
    return { ...base, ...failed("TSVMM_VFIO_MISSING", "vfio_iommu_type1 is not loaded") };
  }
  if (memory === "iommufd" && !existsSync(join(root.dev, "vfio/vfio"))) {
    const found = "the kernel offers /dev/vfio/devices only (iommufd), and no /dev/vfio/vfio";
    return { ...base, ...failed("TSVMM_VFIO_NO_GROUPS", found) };
  }
  if (!existsSync(join(sys, "bus/pci/drivers/vfio-pci"))) {
    return {
      ...base,
      state: "warning",
      code: "TSVMM_VFIO_MISSING",
      found: "vfio-pci is not loaded: tsvmm bind does it",
      remedy: "modprobe vfio-pci",
    };
  }
  return { ...base, state: "good", found: `vfio-pci and ${memory} are there` };
}

/**
 * What maps memory for devices behind /dev/vfio/vfio: the module `vfio_iommu_type1`, or iommufd, which answers the same
 * requests (Linux drivers/iommu/iommufd/vfio_compat.c). Built-in ones are seen too: both have parameters.
 */
export function dmaModule({ sys }: Pick<HostRoot, "sys">): "vfio_iommu_type1" | "iommufd" | undefined {
  return (["vfio_iommu_type1", "iommufd"] as const).find((name) => existsSync(join(sys, "module", name)));
}

/** Whether the IOMMU checks interrupts as well. */
export function remappingCheck(root: HostRoot): HostCheck {
  const base = {
    topic: "interrupt remapping",
    why: "without it a guest can make its device raise any interrupt of the host",
    action: "keep interrupts of devices apart",
  };
  const remapping = interruptRemapping(root);
  if (remapping === "on") return { ...base, state: "good", found: "on" };
  const isAllowed = ["vfio_iommu_type1", "iommufd"].some(
    (name) => textFile(join(root.sys, "module", name, "parameters"), "allow_unsafe_interrupts") === "Y",
  );
  if (isAllowed) {
    return {
      ...base,
      state: "warning",
      code: "TSVMM_NO_INTERRUPT_REMAPPING",
      found: "not seen; the host allows devices without it (allow_unsafe_interrupts)",
    };
  }
  if (remapping === "unknown") {
    return {
      ...base,
      state: "unknown",
      found: "/proc/interrupts does not tell; the kernel says when a group is opened",
    };
  }
  return { ...base, ...failed("TSVMM_NO_INTERRUPT_REMAPPING", "the host does not remap interrupts") };
}

/** Whether a guest's RAM can be pinned. */
export function memoryLockCheck(ramBytes: number, { limitBytes, isUnlimited }: MemoryLock): HostCheck {
  const need = `${Math.ceil(ramBytes / MIB)} MiB`;
  const base = {
    topic: "memory lock limit",
    why: "a device may reach all of the guest's RAM at any time, so all of it is pinned",
    action: `lock the guest's ${need} of RAM for DMA`,
  };
  if (isUnlimited) return { ...base, state: "good", found: "does not count for this user (CAP_IPC_LOCK)" };
  const have = Number.isFinite(limitBytes) ? `${Math.floor(limitBytes / MIB)} MiB` : "unlimited";
  if (limitBytes >= ramBytes) return { ...base, state: "good", found: `${have} for a guest of ${need}` };
  return { ...base, ...failed("TSVMM_MEMLOCK", `the limit is ${have}`) };
}

/** The advice for a node that this user may not open, with its name. */
const nodeAdvice = (node: string): string => adviceOf("TSVMM_VFIO_DENIED").replace("/dev/vfio/N", node);

/**
 * Opens a VFIO node and closes it again: a group's node can be open once only, so that this tells who may and who does.
 */
export function nodeCheck(node: string, name: string, root: HostRoot): HostCheck {
  const base = { topic: name, why: "VFIO is used through it", action: `open ${node}` };
  try {
    closeSync(openSync(node, constants.O_RDWR));
    return { ...base, state: "good", found: `${node} can be opened` };
  } catch (error) {
    const errno = errnoOf(error);
    switch (errno) {
      case "ENOENT":
      case "ENODEV":
      case "ENXIO": {
        const found = "VFIO is not loaded, or no device of the group is bound to it";
        const remedy = dmaModule(root) === "iommufd" ? "modprobe vfio-pci" : undefined;
        return { ...base, ...failed("TSVMM_VFIO_MISSING", found, remedy) };
      }
      case "EACCES":
        return { ...base, ...failed("TSVMM_VFIO_DENIED", "permission denied", nodeAdvice(node)) };
      case "EBUSY": {
        const [holder] = holdersOf((file) => file === node, root.proc);
        const who = holder === undefined ? "another process" : holderText(holder);
        return { ...base, ...failed("TSVMM_GROUP_BUSY", `${who} uses it`) };
      }
      default:
        return { ...base, ...failed("TSVMM_VFIO_REFUSED", errno) };
    }
  }
}
