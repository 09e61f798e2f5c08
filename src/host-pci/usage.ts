import { closeSync, constants, openSync } from "node:fs";
import { join, sep } from "node:path";
import { errnoOf } from "../base/errors.ts";
import { deviceNodes } from "./device-nodes.ts";
import { entries, type HostRoot, linkName, realPath, textFile } from "./files.ts";
import { type HostFunction, isBridge, isVfioFunction } from "./functions.ts";
import { holdersOf, holderText } from "./open-files.ts";

const CLASS_BRIDGE = 0x06;
/** The interface of Open vSwitch's datapath, above all of its hardware ports. */
const OPEN_VSWITCH = "ovs-system";

/** What of the host is looked at once for all functions. */
interface HostUsage {
  /** Block devices and network interfaces by name, with their real paths. */
  readonly blocks: ReadonlyMap<string, string>;
  readonly interfaces: ReadonlyMap<string, string>;
  /** What is mounted where, by "major:minor" and by source. */
  readonly mounts: ReadonlyMap<string, string>;
  readonly swaps: readonly string[];
  /** Interfaces that a default route leads through. */
  readonly routes: ReadonlySet<string>;
  /** Who has which file of /dev open, the first of them. */
  readonly holders: ReadonlyMap<string, string>;
}

/** Tells what the host uses PCI functions for, so that its disk or network is not taken away by mistake. Reads only. */
export class DeviceUsage {
  readonly #root: HostRoot;
  #host: HostUsage | undefined;

  constructor(root: HostRoot) {
    this.#root = root;
  }

  /**
   * Why a function must not be taken from its driver, or from its guest: "a file system is mounted at / (sda1)". Empty
   * when nothing speaks against it.
   */
  reasons(pciFunction: HostFunction): readonly string[] {
    const host = this.#read();
    const found: string[] = [];
    if (pciFunction.classCode >>> 16 === CLASS_BRIDGE) found.push("it is a bridge");
    if (pciFunction.isBootVga) found.push("it is the display the host started with");
    if (pciFunction.virtualFunctionCount > 0) {
      found.push(`it has ${pciFunction.virtualFunctionCount} virtual functions, which would go`);
    }
    const user = this.user(pciFunction);
    if (user !== undefined) found.push(user);
    // A bridge's directory has those of all functions behind it in it.
    if (pciFunction.classCode >>> 16 !== CLASS_BRIDGE) {
      found.push(...this.#diskReasons(host, pciFunction), ...this.#networkReasons(host, pciFunction));
    }
    return found;
  }

  /**
   * The process that has a function's group open: "process 77 (qemu-system-x86)"; others' processes are seen by root
   * alone.
   */
  holder({ group }: HostFunction): string | undefined {
    return group === undefined ? undefined : this.#read().holders.get(`/dev/vfio/${group}`);
  }

  /**
   * The process for which a driver's removal would wait, since it has the device open: "process 77 (Xorg) has
   * /dev/dri/card1 open". A display server, a sound daemon, a CUDA program, or a VMM that has the function's group.
   */
  user(pciFunction: HostFunction): string | undefined {
    if (pciFunction.driver === undefined) return undefined;
    const holder = this.holder(pciFunction);
    if (holder !== undefined) return `${holder} has its IOMMU group open`;
    if (isVfioFunction(pciFunction) || isBridge(pciFunction)) return undefined;
    const { holders } = this.#read();
    const held = deviceNodes(pciFunction, this.#root.proc).find((node) => holders.has(node));
    return held === undefined ? undefined : `${holders.get(held)} has ${held} open`;
  }

  #read(): HostUsage {
    this.#host ??= readUsage(this.#root);
    return this.#host;
  }

  #diskReasons(host: HostUsage, pciFunction: HostFunction): readonly string[] {
    const own = below(host.blocks, pciFunction.path);
    // A namespace that several NVMe controllers may lead to stands apart from them; its path through this one is below
    // it.
    const shared = own.flatMap((name) => {
      const match = /^(nvme\d+)c\d+(n\d+.*)$/.exec(name);
      return match === null ? [] : [...host.blocks.keys()].filter((other) => isPartOf(other, `${match[1]}${match[2]}`));
    });
    const found = new Set<string>();
    const claimed: string[] = [];
    for (const name of this.#withHolders([...own, ...shared])) {
      const directory = host.blocks.get(name) ?? join(this.#root.sys, "class/block", name);
      const label = textFile(join(directory, "dm"), "name") ?? name;
      const sources = [`/dev/${name}`, `/dev/mapper/${label}`];
      const mount = [textFile(directory, "dev") ?? "", ...sources].map((key) => host.mounts.get(key)).find(Boolean);
      if (mount !== undefined) found.add(`a file system is mounted at ${mount} (${label})`);
      else if (sources.some((source) => host.swaps.includes(source))) found.add(`the host swaps to it (${label})`);
      else if (this.#isClaimed(name)) claimed.push(`the host uses its disk (${label})`);
    }
    // A disk counts as claimed while one of its partitions is mounted: once is enough.
    return found.size > 0 ? [...found] : claimed.slice(0, 1);
  }

  /** Block devices and what is made of them: volumes, arrays, encrypted devices. */
  #withHolders(names: readonly string[]): readonly string[] {
    const all = new Set<string>();
    const visit = (name: string): void => {
      if (all.has(name)) return;
      all.add(name);
      for (const holder of entries(join(this.#root.sys, "class/block", name, "holders"))) visit(holder);
    };
    for (const name of names) visit(name);
    return [...all].sort();
  }

  /**
   * A mount, swap area or stacked device holds its disk exclusively, whatever it is called: ZFS, for one, is not in
   * mountinfo.
   */
  #isClaimed(name: string): boolean {
    try {
      closeSync(openSync(join(this.#root.dev, name), constants.O_RDONLY | constants.O_EXCL | constants.O_NONBLOCK));
      return false;
    } catch (error) {
      return errnoOf(error) === "EBUSY";
    }
  }

  #networkReasons(host: HostUsage, pciFunction: HostFunction): readonly string[] {
    return below(host.interfaces, pciFunction.path).flatMap((name) => {
      const uppers = this.#withUppers(host, name);
      const route = uppers.find((upper) => host.routes.has(upper));
      if (route !== undefined) {
        return [route === name ? `the default route is ${name}` : `the default route is ${route}, by ${name}`];
      }
      if (!uppers.includes(OPEN_VSWITCH)) return [];
      const internal = [...host.routes].find((other) => this.#isInternal(host, other));
      return internal === undefined ? [] : [`the default route is ${internal}, by Open vSwitch and its port ${name}`];
    });
  }

  /**
   * A port that Open vSwitch made itself: an interface without hardware and without lower ones. The kernel links it to
   * nothing (Linux net/openvswitch/vport-internal_dev.c), so that any such one counts.
   */
  #isInternal(host: HostUsage, name: string): boolean {
    const directory = host.interfaces.get(name);
    if (directory === undefined || !directory.includes("/devices/virtual/")) return false;
    return !entries(directory).some((entry) => /^(?:lower_|bridge$|bonding$|tun_flags$)/.test(entry));
  }

  /** An interface and the bonds, bridges and VLANs above it. */
  #withUppers(host: HostUsage, name: string, seen: readonly string[] = []): readonly string[] {
    if (seen.includes(name)) return seen;
    const directory = host.interfaces.get(name) ?? join(this.#root.sys, "class/net", name);
    const uppers = entries(directory).flatMap((entry) => /^upper_(.+)$/.exec(entry)?.[1] ?? []);
    const controller = linkName(join(directory, "master"));
    const above = controller === undefined ? uppers : [...uppers, controller];
    return above.reduce<readonly string[]>((all, upper) => this.#withUppers(host, upper, all), [...seen, name]);
  }
}

/** Names whose real path lies below a directory. */
function below(devices: ReadonlyMap<string, string>, directory: string): readonly string[] {
  return [...devices].filter(([, path]) => path.startsWith(directory + sep)).map(([name]) => name);
}

const isPartOf = (name: string, disk: string): boolean => name === disk || name.startsWith(`${disk}p`);

function readUsage({ sys, proc }: HostRoot): HostUsage {
  return {
    blocks: classDevices(join(sys, "class/block")),
    interfaces: classDevices(join(sys, "class/net")),
    // This process may live in a container: the first process's mounts are the host's.
    mounts: new Map(["1", "self"].flatMap((pid) => readMounts(textFile(join(proc, pid), "mountinfo") ?? ""))),
    swaps: (textFile(proc, "swaps") ?? "")
      .split("\n")
      .slice(1)
      .map((line) => line.split(/\s/)[0] ?? ""),
    routes: new Set([
      ...defaultRoutes(textFile(proc, "net/route") ?? "", { interface: 0, destination: 1, mask: 7 }),
      ...defaultRoutes(textFile(proc, "net/ipv6_route") ?? "", { interface: 9, destination: 0, mask: 1 }),
    ]),
    holders: deviceHolders(proc),
  };
}

function classDevices(directory: string): ReadonlyMap<string, string> {
  return new Map(
    entries(directory).flatMap((name) => {
      const path = realPath(join(directory, name));
      return path === undefined ? [] : [[name, path] as const];
    }),
  );
}

/** proc(5), mountinfo: "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw". */
function readMounts(text: string): (readonly [string, string])[] {
  return text.split("\n").flatMap((line) => {
    const words = line.split(" ");
    const [device, mountPoint] = [words[2], words[4]];
    const source = words[words.indexOf("-") + 2];
    if (device === undefined || mountPoint === undefined || source === undefined) return [];
    return [[device, mountPoint] as const, [source, mountPoint] as const];
  });
}

/** Interfaces of routes to everywhere: destination and mask are zeros. Routes that refuse go through lo. */
function defaultRoutes(
  text: string,
  column: { readonly interface: number; readonly destination: number; readonly mask: number },
): readonly string[] {
  const isZero = (word: string | undefined): boolean => word !== undefined && /^0+$/.test(word);
  return text.split("\n").flatMap((line) => {
    const words = line.trim().split(/\s+/);
    const name = words[column.interface];
    if (name === undefined || name === "lo") return [];
    return isZero(words[column.destination]) && isZero(words[column.mask]) ? [name] : [];
  });
}

/** The first process that has a file of /dev open, for each; others' processes are seen by root alone. */
function deviceHolders(proc: string): ReadonlyMap<string, string> {
  const holders = holdersOf((file) => file.startsWith("/dev/"), proc);
  return new Map([...holders].reverse().map((holder) => [holder.file, holderText(holder)]));
}
