import { spawn } from "node:child_process";
import { runProgram } from "./program.ts";

/** Takes what is being done, in a few words, before it is done. */
export type Progress = (text: string) => void;

/** Answers the version apt would install; `undefined` when it knows none. */
export async function candidateVersion(name: string): Promise<string | undefined> {
  const version = /^ *Candidate: (\S+)$/m.exec(await ask("policy", name))?.[1];
  return version === "(none)" ? undefined : version;
}

/** Answers whether apt could install every one of the packages. */
export async function aptKnows(names: readonly string[]): Promise<boolean> {
  const candidates = (await ask("policy", ...names)).match(/^ *Candidate: (?!\(none\))/gm) ?? [];
  return candidates.length === names.length;
}

/** Answers the one package a metapackage stands for now (`linux-image-amd64` → `linux-image-6.1.0-54-amd64`). */
export async function dependencyOf(metapackage: string, pattern: RegExp): Promise<string | undefined> {
  return [...(await ask("depends", metapackage)).matchAll(/^ *\|?Depends: (\S+)$/gm)]
    .map((match) => match[1])
    .find((name): name is string => name !== undefined && pattern.test(name));
}

/** Brings apt's package lists up to date, where this process may. Answers whether it did. */
export async function refreshLists(progress: Progress): Promise<boolean> {
  if (process.getuid?.() !== 0) return false;
  progress("refreshing apt's package lists");
  return await apt(["update"]);
}

const ask = async (...args: readonly string[]): Promise<string> =>
  (await runProgram("apt-cache", args).catch(() => "")).toString();

/** Runs apt-get with what it says shown on standard error, where progress goes. Answers whether it ended well. */
export function apt(args: readonly string[]): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn("apt-get", ["-q", ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" },
      stdio: ["ignore", 2, 2],
    });
    child.on("error", () => resolve(false));
    child.on("close", (status) => resolve(status === 0));
  });
}
