import { basename, join } from "node:path";
import { entries, hexFile, linkName, realPath, textFile } from "./files.ts";

/** One region of a function's `resource` file: BAR 0 to 5, then the ROM. */
export interface ResourceSize {
  readonly index: number;
  readonly sizeBytes: number;
  readonly kind: "memory" | "io";
  /** On the host's bus; 0 where the kernel shows addresses to root alone. */
  readonly address: number;
  readonly is64Bit: boolean;
  readonly isPrefetchable: boolean;
}

/** What sysfs tells of a PCI function. */
export interface HostFunction {
  /** `0000:01:00.0` */
  readonly bdf: string;
  /** Real path of its directory. */
  readonly path: string;
  readonly vendorId: number;
  readonly deviceId: number;
  /** 24 bits: base class, sub-class, programming interface. */
  readonly classCode: number;
  /** Name of the bound driver; `undefined` for none. */
  readonly driver: string | undefined;
  /**
   * Name of the VFIO device that its driver has registered, `vfio0`; `undefined` for none, and where the kernel does
   * not tell (before 6.1).
   */
  readonly vfioDevice: string | undefined;
  /** IOMMU group; `undefined` when no IOMMU translates for it. */
  readonly group: number | undefined;
  /** A group that exists without an IOMMU behind it (`enable_unsafe_noiommu_mode`). */
  readonly isNoIommuGroup: boolean;
  /** Implemented regions in order. */
  readonly resources: readonly ResourceSize[];
  /** How the kernel can reset it, the preferred way first; empty when it cannot or does not tell (before 5.15). */
  readonly resetMethods: readonly string[];
  /** -1 when the platform does not tell. */
  readonly numaNode: number;
  /** BDF of the physical function that it is a virtual function of. */
  readonly physicalFunction: string | undefined;
  /** Virtual functions that it has made. */
  readonly virtualFunctionCount: number;
  /** The only driver that may take it, as user space has said; `undefined` for none. */
  readonly driverOverride: string | undefined;
  /** The display that the firmware started with. */
  readonly isBootVga: boolean;
}

/** An IOMMU group: the functions that the IOMMU cannot tell apart, which go to a guest together or not at all. */
export interface HostGroup {
  readonly number: number;
  readonly members: readonly HostFunction[];
  /** Members that a host driver keeps from being given away. Bridges and unbound functions do not. */
  readonly obstacles: readonly HostFunction[];
}

const IORESOURCE_IO = 0x100;
const IORESOURCE_MEM = 0x200;
const IORESOURCE_PREFETCH = 0x2000;
const IORESOURCE_MEM_64 = 0x10_0000;
const CLASS_PCI_BRIDGE = 0x0604;
const ROM_RESOURCE = 6;

/**
 * Drivers that let a group's other members be given to a guest: they do no DMA of their own. vfio-pci's variants
 * (`mlx5_vfio_pci`, …) carry its name.
 */
const HARMLESS_DRIVERS: readonly string[] = ["pci-stub", "pcieport", "shpchp"];

/**
 * Whether programs can have a function by VFIO: its driver has registered a VFIO device for it. Whatever its name: the
 * drivers `nvidia` (vGPU) and `xe` do for virtual functions, and keep them. A name tells where the kernel does not.
 */
export function isVfioFunction({ driver, vfioDevice }: HostFunction): boolean {
  return vfioDevice !== undefined || isVfioDriver(driver);
}

/** True for vfio-pci and its device-specific variants: drivers that do nothing else. */
export function isVfioDriver(driver: string | undefined): boolean {
  return driver !== undefined && /(^|[-_])vfio[-_]pci$/.test(driver);
}

/** True for PCI-to-PCI bridges and PCI Express ports. */
export function isBridge(pciFunction: HostFunction): boolean {
  return pciFunction.classCode >>> 8 === CLASS_PCI_BRIDGE;
}

/**
 * Why a function behind Intel VMD cannot be given away; `undefined` for others. VMD does its functions' DMA under its
 * own name, so that the IOMMU cannot tell them apart: Linux drivers/pci/controller/vmd.c, whose domains begin at
 * 0x10000.
 */
export function vmdReason({ bdf, path }: HostFunction): string | undefined {
  if (!/^[\da-f]{5,8}:/i.test(bdf)) return undefined;
  const [, controller] = /\/([\da-f]{4}:[\da-f]{2}:[\da-f]{2}\.[0-7])\/pci[\da-f]{5,8}:/i.exec(path) ?? [];
  const vmd = controller === undefined ? "Intel VMD" : `the VMD controller ${controller}`;
  return `it is behind ${vmd}, which does DMA for it, so that it cannot be given away alone`;
}

export const VMD_ADVICE = "switch VMD off in the firmware setup, or pass the VMD controller with all that is behind it";

/** Lists all PCI functions of the host, in order of address. */
export function listFunctions(sysfs = "/sys"): readonly HostFunction[] {
  const directory = join(sysfs, "bus/pci/devices");
  return entries(directory)
    .map((bdf) => readFunction(join(directory, bdf)))
    .filter((found) => found !== undefined);
}

/**
 * Reads one function's directory. Nothing is opened or changed.
 *
 * @param path `/sys/bus/pci/devices/0000:01:00.0`, with or without a slash at its end, or the directory it links to.
 * @returns `undefined` when there is no such directory, or when it is not a PCI function's.
 */
export function readFunction(path: string): HostFunction | undefined {
  const directory = realPath(path);
  if (directory === undefined || linkName(join(directory, "subsystem")) !== "pci") return undefined;
  const vendorId = hexFile(directory, "vendor");
  const classCode = hexFile(directory, "class");
  if (vendorId === undefined || classCode === undefined) return undefined;
  const groupName = linkName(join(directory, "iommu_group"));
  const groupFile = groupName === undefined ? undefined : textFile(join(directory, "iommu_group"), "name");
  return {
    bdf: basename(directory),
    path: directory,
    vendorId,
    deviceId: hexFile(directory, "device") ?? 0,
    classCode,
    driver: linkName(join(directory, "driver")),
    vfioDevice: entries(join(directory, "vfio-dev"))[0],
    group: groupName === undefined ? undefined : Number(groupName),
    isNoIommuGroup: groupFile === "vfio-noiommu",
    resources: parseResources(textFile(directory, "resource") ?? ""),
    resetMethods: (textFile(directory, "reset_method") ?? "").split(" ").filter((method) => method !== ""),
    numaNode: Number(textFile(directory, "numa_node") ?? "-1"),
    physicalFunction: linkName(join(directory, "physfn")),
    virtualFunctionCount: Number(textFile(directory, "sriov_numvfs") ?? "0"),
    driverOverride: overrideOf(textFile(directory, "driver_override")),
    isBootVga: textFile(directory, "boot_vga") === "1",
  };
}

/**
 * Reads the group of a function, with what stands in the way of giving it to a guest; `undefined` when it has none.
 *
 * @param read How a member's directory is read.
 */
export function describeGroup(
  pciFunction: HostFunction,
  read: (path: string) => HostFunction | undefined = readFunction,
): HostGroup | undefined {
  if (pciFunction.group === undefined) return undefined;
  const directory = join(pciFunction.path, "iommu_group/devices");
  const members = entries(directory)
    .map((bdf) => read(join(directory, bdf)))
    .filter((found) => found !== undefined);
  return { number: pciFunction.group, members, obstacles: members.filter(isObstacle) };
}

/**
 * What sysfs told of functions when they were first asked for: each directory is read once, so that a start works with
 * one state.
 */
export class FunctionFacts {
  readonly #known = new Map<string, HostFunction | undefined>();

  /** @returns `undefined` where {@link readFunction} answers so. */
  at(path: string): HostFunction | undefined {
    const directory = realPath(path);
    if (directory === undefined) return undefined;
    if (!this.#known.has(directory)) this.#known.set(directory, readFunction(directory));
    return this.#known.get(directory);
  }

  /** {@link describeGroup} with what is known. */
  groupOf(pciFunction: HostFunction): HostGroup | undefined {
    return describeGroup(pciFunction, (path) => this.at(path));
  }
}

function isObstacle(member: HostFunction): boolean {
  const { driver } = member;
  return driver !== undefined && !isVfioFunction(member) && !isBridge(member) && !HARMLESS_DRIVERS.includes(driver);
}

/** The kernel shows an override that is not set as "(null)". */
function overrideOf(text: string | undefined): string | undefined {
  return text === undefined || text === "" || text === "(null)" ? undefined : text;
}

/** Lines of "start end flags"; the first seven are BARs and ROM. */
function parseResources(text: string): readonly ResourceSize[] {
  const resources: ResourceSize[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (index > ROM_RESOURCE) break;
    const [start, end, flags] = line.split(" ").map((word) => BigInt(word === "" ? 0 : word));
    if (start === undefined || end === undefined || flags === undefined || end === 0n) continue;
    const type = Number(flags & 0xffff_ffffn);
    if ((type & (IORESOURCE_IO | IORESOURCE_MEM)) === 0) continue;
    const kind = (type & IORESOURCE_IO) !== 0 ? "io" : "memory";
    resources.push({
      index,
      sizeBytes: Number(end - start + 1n),
      kind,
      address: Number(start),
      is64Bit: (type & IORESOURCE_MEM_64) !== 0,
      isPrefetchable: (type & IORESOURCE_PREFETCH) !== 0,
    });
  }
  return resources;
}
