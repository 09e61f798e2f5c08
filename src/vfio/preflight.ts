import { closeSync, constants, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { HostError } from "../base/errors.ts";
import { MIB } from "../base/units.ts";
import { GROUP_BUSY_ADVICE, MEMLOCK_ADVICE, MODPROBE_ADVICE, NODE_PERMISSION_ADVICE } from "./advice.ts";
import { describeGroup, type HostFunction, isBridge, isVfioDriver, readFunction } from "./sysfs.ts";

/** How much memory this process may lock. */
export interface MemoryLock {
  readonly limitBytes: number;
  /** CAP_IPC_LOCK: the limit does not count. */
  readonly isUnlimited: boolean;
}

export interface PreflightOptions {
  /** sysfs directories of the functions to pass through. */
  readonly paths: readonly string[];
  readonly ramBytes: number;
  readonly memoryLock: MemoryLock;
  /** Where the host's trees are; tests have their own. */
  readonly root?: { readonly sys?: string; readonly dev?: string; readonly proc?: string };
}

/** Node's words for a failed system call. Cast-free view of what fs throws. */
const errnoOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : String(error);

/**
 * Looks for everything that would keep functions from being passed through, before anything is changed.
 *
 * @returns One error each, with what the user can do about it, the most basic first; empty when all is well. What only the kernel can
 *   tell (missing interrupt remapping, for one) comes from the container, with the same words.
 */
export function findObstacles(options: PreflightOptions): readonly HostError[] {
  const sys = options.root?.sys ?? "/sys";
  const dev = options.root?.dev ?? "/dev";
  const proc = options.root?.proc ?? "/proc";
  const found: HostError[] = [];
  if (options.paths.length === 0) return found;
  const groups = new Set<number>();
  for (const path of options.paths) {
    const pciFunction = readFunction(path);
    if (pciFunction === undefined) found.push(noSuchFunction(path, sys));
    else {
      found.push(...functionObstacles(pciFunction, groups, sys, proc));
      if (pciFunction.group !== undefined && !pciFunction.isNoIommuGroup) groups.add(pciFunction.group);
    }
  }
  const container = nodeObstacle(join(dev, "vfio/vfio"), proc);
  if (container !== undefined) found.push(container);
  else {
    for (const group of groups) {
      const obstacle = nodeObstacle(join(dev, `vfio/${group}`), proc);
      // Without vfio-pci on a member there is no node, which has been said.
      if (obstacle !== undefined && (found.length === 0 || obstacle.advice !== MODPROBE_ADVICE)) found.push(obstacle);
    }
  }
  const { limitBytes, isUnlimited } = options.memoryLock;
  if (!isUnlimited && limitBytes < options.ramBytes) {
    const have = `${Math.floor(limitBytes / MIB)} MiB`;
    const need = `${Math.ceil(options.ramBytes / MIB)} MiB`;
    found.push(new HostError(`Cannot lock the guest's ${need} of RAM for DMA: the limit is ${have}`, MEMLOCK_ADVICE));
  }
  return found;
}

/** @throws HostError the first of {@link findObstacles}. */
export function preflight(options: PreflightOptions): void {
  const [first] = findObstacles(options);
  if (first !== undefined) throw first;
}

/** The commands that give one function to vfio-pci, and no other function of the same model. */
export function bindCommands(pciFunction: HostFunction): string {
  const { bdf } = pciFunction;
  const directory = `/sys/bus/pci/devices/${bdf}`;
  const unbind = pciFunction.driver === undefined ? "" : `echo ${bdf} > ${directory}/driver/unbind; `;
  return `modprobe vfio-pci; echo vfio-pci > ${directory}/driver_override; ${unbind}echo ${bdf} > /sys/bus/pci/drivers_probe`;
}

function noSuchFunction(path: string, sys: string): HostError {
  try {
    readdirSync(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOTDIR") {
      return new HostError(
        `Cannot pass ${path} through: there is no such device`,
        `ls ${join(sys, "bus/pci/devices")} names them; lspci -D tells what they are`,
      );
    }
  }
  return new HostError(`Cannot pass ${path} through: it is not a PCI function's directory`);
}

function functionObstacles(
  pciFunction: HostFunction,
  known: ReadonlySet<number>,
  sys: string,
  proc: string,
): readonly HostError[] {
  const { bdf, driver, group } = pciFunction;
  if (isBridge(pciFunction)) return [new HostError(`Cannot pass ${bdf} through: it is a bridge, not an endpoint`)];
  if (group === undefined) return [noIommu(bdf, sys, proc)];
  if (pciFunction.isNoIommuGroup) {
    return [
      new HostError(
        `Cannot pass ${bdf} through: its group has no IOMMU behind it, so its DMA would reach all of the host's memory`,
        kernelArgument(proc),
      ),
    ];
  }
  const found: HostError[] = [];
  if (!isVfioDriver(driver)) {
    const state = driver === undefined ? "no driver has it" : `driver ${driver} has it`;
    found.push(new HostError(`Cannot pass ${bdf} through: ${state}, not vfio-pci`, bindCommands(pciFunction)));
  }
  if (known.has(group)) return found; // its other members have been named
  const others = (describeGroup(pciFunction)?.obstacles ?? []).filter((member) => member.bdf !== bdf);
  if (others.length > 0) {
    const names = others.map((member) => `${member.bdf} (driver ${member.driver})`).join(", ");
    const commands = others.map(bindCommands).join("; ");
    found.push(
      new HostError(`Cannot pass ${bdf} through: host drivers use others of IOMMU group ${group}: ${names}`, commands),
    );
  }
  return found;
}

function noIommu(bdf: string, sys: string, proc: string): HostError {
  let units: readonly string[] = [];
  try {
    units = readdirSync(join(sys, "class/iommu"));
  } catch {
    // No such class: the kernel has no IOMMU driver.
  }
  if (units.length > 0) return new HostError(`Cannot pass ${bdf} through: no IOMMU translates for it`);
  return new HostError(`Cannot pass ${bdf} through: the IOMMU is off`, kernelArgument(proc));
}

function kernelArgument(proc: string): string {
  let vendor = "";
  try {
    vendor = /^vendor_id\s*:\s*(\S+)/m.exec(readFileSync(join(proc, "cpuinfo"), "utf8"))?.[1] ?? "";
  } catch {
    // No answer: both are named.
  }
  const intel = "enable VT-d in the firmware setup and boot the host with intel_iommu=on";
  const amd =
    "enable the IOMMU (AMD-Vi) in the firmware setup; the kernel then uses it, unless booted with amd_iommu=off";
  if (vendor === "GenuineIntel") return intel;
  return vendor === "AuthenticAMD" ? amd : `Intel: ${intel}; AMD: ${amd}`;
}

/** Opens a VFIO node and closes it again: a group's node can be open once only, so that this tells who may and who does. */
function nodeObstacle(node: string, proc: string): HostError | undefined {
  try {
    closeSync(openSync(node, constants.O_RDWR));
    return undefined;
  } catch (error) {
    const errno = errnoOf(error);
    switch (errno) {
      case "ENOENT":
      case "ENODEV":
      case "ENXIO":
        return new HostError(
          `Cannot open ${node}: VFIO is not loaded, or no device of the group is bound to it`,
          MODPROBE_ADVICE,
        );
      case "EACCES":
        return new HostError(`Cannot open ${node}: permission denied`, NODE_PERMISSION_ADVICE);
      case "EBUSY": {
        const holder = holderOf(node, proc);
        const who = holder === undefined ? "another process" : `process ${holder.pid} (${holder.name})`;
        return new HostError(`Cannot open ${node}: ${who} uses it`, GROUP_BUSY_ADVICE);
      }
      default:
        return new HostError(`Cannot open ${node}: ${errno}`);
    }
  }
}

/** The process that has a file open; `undefined` when none is seen, as for other users' processes. */
export function holderOf(node: string, proc = "/proc"): { readonly pid: number; readonly name: string } | undefined {
  for (const pid of readdirSync(proc).filter((name) => /^\d+$/.test(name))) {
    try {
      const directory = join(proc, pid, "fd");
      if (!readdirSync(directory).some((fd) => isLinkTo(join(directory, fd), node))) continue;
      return { pid: Number(pid), name: readFileSync(join(proc, pid, "comm"), "utf8").trim() };
    } catch {
      // It ended meanwhile, or is another user's.
    }
  }
  return undefined;
}

function isLinkTo(link: string, target: string): boolean {
  try {
    return readlinkSync(link) === target;
  } catch {
    return false; // closed meanwhile
  }
}
