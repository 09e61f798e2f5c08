import { join } from "node:path";
import type { HostError } from "../base/errors.ts";
import { checkError, type HostCheck, isFailed } from "./check.ts";
import { HOST_ROOT, type HostRoot } from "./files.ts";
import { functionChecks } from "./function-checks.ts";
import type { FunctionFacts } from "./functions.ts";
import {
  iommuCheck,
  type MemoryLock,
  memoryLockCheck,
  moduleCheck,
  nodeCheck,
  remappingCheck,
} from "./platform-checks.ts";

export interface PreflightOptions {
  /** sysfs directories of the functions to pass through. */
  readonly paths: readonly string[];
  /** What the start that follows will work with. */
  readonly facts: FunctionFacts;
  /** Tokens that the functions are to be opened with, by path; absent where none can be given, as for doctor. */
  readonly vfTokens?: ReadonlyMap<string, string>;
  readonly ramBytes: number;
  readonly memoryLock: MemoryLock;
  /** Where the host's trees are; tests have their own. */
  readonly root?: Partial<HostRoot>;
}

/**
 * Checks everything that passthrough depends on and that can be looked at without changing anything: the one list, for
 * a start and for `tsvmm doctor`. The most basic comes first.
 *
 * For a machine without passed-through functions nothing is `failed`: what would stand in the way of one is a
 * `warning`.
 */
export function passthroughChecks(options: PreflightOptions): readonly HostCheck[] {
  const root: HostRoot = { ...HOST_ROOT, ...options.root };
  const checks: HostCheck[] = [];
  const groups = new Set<number>();
  for (const path of options.paths) {
    checks.push(...functionChecks(path, options.facts, groups, root, options.vfTokens));
    const pciFunction = options.facts.at(path);
    if (pciFunction?.group !== undefined && !pciFunction.isNoIommuGroup) groups.add(pciFunction.group);
  }
  // Where a function has no group, that has been said with the reason.
  if (groups.size > 0 || options.paths.length === 0) checks.unshift(iommuCheck(root, groups.size > 0));
  checks.push(moduleCheck(root));
  const container = nodeCheck(join(root.dev, "vfio/vfio"), "VFIO container", root);
  checks.push(container);
  const isBound = !checks.some(isFailed);
  if (container.state === "good") {
    for (const group of groups) {
      const node = nodeCheck(join(root.dev, `vfio/${group}`), `node of group ${group}`, root);
      // Without vfio-pci on a member there is no node, which has been said.
      if (!isFailed(node) || isBound || node.code !== "TSVMM_VFIO_MISSING") checks.push(node);
    }
  }
  checks.push(remappingCheck(root), memoryLockCheck(options.ramBytes, options.memoryLock));
  return options.paths.length > 0
    ? checks
    : checks.map((check) => (isFailed(check) ? { ...check, state: "warning" } : check));
}

/**
 * What would keep a machine from starting: the failed ones of {@link passthroughChecks}, with what the user can do
 * about each.
 */
export function findObstacles(options: PreflightOptions): readonly HostError[] {
  return passthroughChecks(options).filter(isFailed).map(checkError);
}

/** @throws HostError the first of {@link findObstacles}. */
export function preflight(options: PreflightOptions): void {
  const [first] = findObstacles(options);
  if (first !== undefined) throw first;
}
