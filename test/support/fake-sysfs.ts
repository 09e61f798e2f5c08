import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** A PCI function of a pretended host. */
export interface SysfsFunction {
  readonly bdf: string;
  readonly vendor?: string;
  readonly device?: string;
  readonly class?: string;
  readonly driver?: string;
  readonly group?: number;
  readonly groupName?: string;
  /** Lines of `resource`: start, end, flags. */
  readonly resource?: readonly string[];
  readonly resetMethod?: string;
  readonly numaNode?: number;
  readonly physfn?: string;
  /** Directories between the host bridge's and its own: `0000:00:0e.0/pci10000:e0`. */
  readonly under?: string;
  /** What reading its configuration space answers; no such file when absent. */
  readonly config?: Uint8Array;
  /** Further files of its directory. */
  readonly files?: Readonly<Record<string, string>>;
}

/**
 * Builds the parts of /sys, /dev and /proc that passthrough looks at.
 *
 * @param directory An empty directory of the test's own.
 * @returns The roots, as preflight takes them, and `path` to a function as a user names it.
 */
export function fakeSysfs(
  directory: string,
  functions: readonly SysfsFunction[],
): { readonly sys: string; readonly dev: string; readonly proc: string; path(bdf: string): string } {
  const sys = join(directory, "sys");
  const dev = join(directory, "dev");
  const proc = join(directory, "proc");
  for (const made of [join(sys, "bus/pci/devices"), join(sys, "kernel/iommu_groups"), join(dev, "vfio"), proc]) {
    mkdirSync(made, { recursive: true });
  }
  for (const one of functions) addFunction(sys, one);
  return { sys, dev, proc, path: (bdf) => join(sys, "bus/pci/devices", bdf) };
}

function addFunction(sys: string, one: SysfsFunction): void {
  const real = join(sys, "devices/pci0000:00", one.under ?? "", one.bdf);
  mkdirSync(real, { recursive: true });
  const put = (name: string, text: string): void => writeFileSync(join(real, name), `${text}\n`);
  put("vendor", one.vendor ?? "0x8086");
  put("device", one.device ?? "0x10d3");
  put("class", one.class ?? "0x020000");
  if (one.config !== undefined) writeFileSync(join(real, "config"), one.config);
  if (one.resource !== undefined) put("resource", one.resource.join("\n"));
  if (one.resetMethod !== undefined) put("reset_method", one.resetMethod);
  if (one.numaNode !== undefined) put("numa_node", String(one.numaNode));
  for (const [name, text] of Object.entries(one.files ?? {})) {
    mkdirSync(dirname(join(real, name)), { recursive: true });
    put(name, text);
  }
  symlinkSync(join(sys, "bus/pci"), join(real, "subsystem"));
  if (one.driver !== undefined) symlinkSync(join(sys, "bus/pci/drivers", one.driver), join(real, "driver"));
  if (one.physfn !== undefined) symlinkSync(join("..", one.physfn), join(real, "physfn"));
  symlinkSync(real, join(sys, "bus/pci/devices", one.bdf));
  if (one.group === undefined) return;
  const group = join(sys, "kernel/iommu_groups", String(one.group));
  mkdirSync(join(group, "devices"), { recursive: true });
  if (one.groupName !== undefined) writeFileSync(join(group, "name"), `${one.groupName}\n`);
  symlinkSync(real, join(group, "devices", one.bdf));
  symlinkSync(group, join(real, "iommu_group"));
}
