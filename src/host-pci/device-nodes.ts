import { readdirSync } from "node:fs";
import { join } from "node:path";
import { entries, textFile } from "./files.ts";
import type { HostFunction } from "./functions.ts";

/** A USB controller's devices with their interfaces are the deepest that have nodes. */
const DEEPEST = 10;

/**
 * Device nodes by which processes use a function, as `/dev/dri/card1`: those of all that its driver has made of it.
 * Each has a directory below the function's, whose `uevent` names the node.
 */
export function deviceNodes({ path, driver, bdf }: HostFunction, proc: string): readonly string[] {
  const nodes = nodesBelow(path, 0);
  return driver === "nvidia" ? [...nodes, ...nvidiaNodes(bdf, proc)] : nodes;
}

function nodesBelow(directory: string, depth: number): readonly string[] {
  const own = /^DEVNAME=(\S+)$/m.exec(textFile(directory, "uevent") ?? "")?.[1];
  const nodes = own === undefined ? [] : [`/dev/${own}`];
  if (depth === DEEPEST) return nodes;
  return [...nodes, ...directoriesIn(directory).flatMap((name) => nodesBelow(join(directory, name), depth + 1))];
}

/** Without links, which lead out of a device's own part of the tree. */
function directoriesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? [entry.name] : [],
    );
  } catch {
    return []; // it went meanwhile
  }
}

/** NVIDIA's driver makes its nodes without sysfs; it tells which is whose in its own part of /proc. */
function nvidiaNodes(bdf: string, proc: string): readonly string[] {
  const information = textFile(join(proc, "driver/nvidia/gpus", bdf), "information") ?? "";
  const minor = /^Device Minor:\s*(\d+)/m.exec(information)?.[1];
  if (minor !== undefined) return [`/dev/nvidia${minor}`];
  // Which one is not told: any counts.
  const gpus = entries(join(proc, "driver/nvidia/gpus")).length;
  return Array.from({ length: Math.max(1, gpus) }, (_, number) => `/dev/nvidia${number}`);
}
