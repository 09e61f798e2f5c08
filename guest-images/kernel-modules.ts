import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { runProgram } from "../tools/program.ts";
import { ToolError } from "../tools/tool-error.ts";
import type { CpioEntry } from "./cpio.ts";
import type { Kernel } from "./kernel.ts";

/** Reads `modules.dep`: module path → paths of the modules it needs, both below `lib/modules/<release>`. */
export function parseModulesDep(text: string): ReadonlyMap<string, readonly string[]> {
  const dependencies = new Map<string, readonly string[]>();
  for (const line of text.split("\n")) {
    const [path, needed] = line.split(":");
    if (path !== undefined && needed !== undefined) dependencies.set(path, needed.split(" ").filter(Boolean));
  }
  return dependencies;
}

/** A module's name as the kernel says it: `kernel/drivers/mmc/host/sdhci-pci.ko` → `sdhci_pci`. */
export const moduleName = (path: string): string =>
  basename(path)
    .replace(/\.ko(\.\w+)?$/, "")
    .replaceAll("-", "_");

/**
 * Answers the paths of the named modules and of all they need.
 *
 * @param builtin Names of modules that are part of this kernel's image: nothing has to be loaded for them.
 * @throws ToolError when the kernel has no module of a name.
 */
export function moduleClosure(
  names: readonly string[],
  dependencies: ReadonlyMap<string, readonly string[]>,
  builtin: ReadonlySet<string>,
): readonly string[] {
  const pathByName = new Map([...dependencies.keys()].map((path) => [moduleName(path), path]));
  const closure = new Set<string>();
  for (const name of names) {
    if (builtin.has(name)) continue;
    const path = pathByName.get(name);
    if (path === undefined)
      throw new ToolError(`Cannot find the kernel module ${name}: this kernel has none of that name`);
    closure.add(path);
    // modules.dep lists the whole closure of a module, not only its direct needs.
    for (const needed of dependencies.get(path) ?? []) closure.add(needed);
  }
  return [...closure].sort();
}

/** Answers archive entries for the named modules, what they need, and the tables modprobe reads. */
export async function moduleEntries(kernel: Kernel, names: readonly string[]): Promise<readonly CpioEntry[]> {
  const read = (name: string): string => readFileSync(join(kernel.modules, name), "utf8");
  const dependencies = parseModulesDep(read("modules.dep"));
  const builtin = new Set(read("modules.builtin").split("\n").filter(Boolean).map(moduleName));
  const paths = moduleClosure(names, dependencies, builtin);
  const chosen = new Set(paths);
  const chosenNames = new Set(paths.map(moduleName));
  const directory = `lib/modules/${kernel.release}`;
  const table = [...chosen].map((path) => `${plain(path)}: ${(dependencies.get(path) ?? []).map(plain).join(" ")}`);
  // "alias PATTERN MODULE": only lines of modules that are there, or modprobe would complain about the others.
  const aliases = read("modules.alias")
    .split("\n")
    .filter((line) => chosenNames.has(line.slice(line.lastIndexOf(" ") + 1)));
  const modules = await Promise.all(
    paths.map(async (path): Promise<CpioEntry> => {
      const file = join(kernel.modules, path);
      const content = path.endsWith(".xz") ? await runProgram("xz", ["-dc", file]) : readFileSync(file);
      return { kind: "file", path: `${directory}/${plain(path)}`, mode: 0o644, content };
    }),
  );
  return [
    { kind: "directory", path: "lib" },
    { kind: "directory", path: "lib/modules" },
    { kind: "directory", path: directory },
    ...parentDirectories(paths).map((path): CpioEntry => ({ kind: "directory", path: `${directory}/${path}` })),
    ...modules,
    textFile(`${directory}/modules.dep`, `${table.join("\n")}\n`),
    textFile(`${directory}/modules.alias`, `${aliases.join("\n")}\n`),
    textFile(`${directory}/modules.symbols`, ""),
  ];
}

/** Modules are stored uncompressed: busybox's modprobe reads nothing else. */
const plain = (path: string): string => path.replace(/\.xz$/, "");

const textFile = (path: string, text: string): CpioEntry => ({
  kind: "file",
  path,
  mode: 0o644,
  content: Buffer.from(text),
});

function parentDirectories(paths: readonly string[]): readonly string[] {
  const directories = new Set<string>();
  for (const path of paths) {
    const parts = path.split("/");
    for (let length = 1; length < parts.length; length++) directories.add(parts.slice(0, length).join("/"));
  }
  return [...directories].sort();
}
