import { readdirSync, readFileSync, readlinkSync, realpathSync } from "node:fs";
import { basename, join } from "node:path";

/** Where the host's trees are; tests have their own. */
export interface HostRoot {
  readonly sys: string;
  readonly dev: string;
  readonly proc: string;
  /** What this program remembers until the next boot. */
  readonly run: string;
}

export const HOST_ROOT: HostRoot = { sys: "/sys", dev: "/dev", proc: "/proc", run: "/run/tsvmm" };

/** Names in a directory, sorted; none where there is no such directory. */
export function entries(directory: string): readonly string[] {
  try {
    return readdirSync(directory).sort();
  } catch {
    return []; // no such directory, or not ours to look at: nothing of that kind
  }
}

/** Where a path leads through all links; `undefined` when it leads nowhere. */
export function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** What a symbolic link names; `undefined` when there is no such link. */
export function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** Last part of what a symbolic link names; `undefined` when there is no such link. */
export function linkName(path: string): string | undefined {
  const target = linkTarget(path);
  return target === undefined ? undefined : basename(target);
}

/** Text of a file without white space around it; `undefined` when it cannot be read. */
export function textFile(directory: string, name: string): string | undefined {
  try {
    return readFileSync(join(directory, name), "utf8").trim();
  } catch {
    return undefined;
  }
}

/** A file that holds one number with `0x`. */
export function hexFile(directory: string, name: string): number | undefined {
  const text = textFile(directory, name);
  return text !== undefined && /^0x[0-9a-f]+$/i.test(text) ? Number(text) : undefined;
}
