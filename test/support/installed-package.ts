import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { projectRoot } from "../../tools/cache.ts";

/** The package, packed and unpacked in a project that has nothing else. */
export interface InstalledPackage {
  readonly project: string;
  /** The project's `node_modules`. */
  readonly modules: string;
  /** The package's own folder in there. */
  readonly installed: string;
  /** Programs by name, as paths in the package. */
  readonly bin: Readonly<Record<string, string>>;
}

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly bin?: Readonly<Record<string, string>>;
}

// Cast: npm has read it too.
const readManifest = (folder: string): Manifest =>
  JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Manifest;

/**
 * Packs the package and installs it as npm does.
 *
 * @param project An empty folder.
 * @param dependencies Whether the packages it depends on are links to this project's, or copies that can be removed.
 */
export function installPackage(project: string, dependencies: "linked" | "copied"): InstalledPackage {
  const root = projectRoot();
  const modules = join(project, "node_modules");
  const installed = join(modules, "tsvmm");
  mkdirSync(modules);
  // Without scripts: the package's own would build it anew, under the feet of this run.
  const pack = ["pack", "--ignore-scripts", "--silent", "--pack-destination", project];
  const tarball = execFileSync("npm", pack, { cwd: root, encoding: "utf8" }).trim();
  execFileSync("tar", ["-xzf", join(project, tarball)], { cwd: project });
  execFileSync("mv", [join(project, "package"), installed]);
  const manifest = readManifest(installed);
  const source = join(root, "node_modules");
  for (const name of Object.keys(manifest.dependencies ?? {})) {
    if (dependencies === "linked") symlinkSync(join(source, name), join(modules, name));
    else copyPackage(source, modules, name);
  }
  return { project, modules, installed, bin: manifest.bin ?? {} };
}

/** Copies a package and what it depends on. */
function copyPackage(from: string, to: string, name: string): void {
  if (existsSync(join(to, name)) || !existsSync(join(from, name))) return; // optional ones are there for one platform
  mkdirSync(dirname(join(to, name)), { recursive: true });
  cpSync(join(from, name), join(to, name), { recursive: true });
  const { dependencies, optionalDependencies } = readManifest(join(from, name));
  for (const other of Object.keys({ ...dependencies, ...optionalDependencies })) copyPackage(from, to, other);
}
