import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Progress } from "../tools/apt.ts";
import { runProgram } from "../tools/program.ts";
import { type CpioEntry, cpioArchive } from "./cpio.ts";
import { debianPackage, newestCachedPackage } from "./debian-package.ts";
import type { Kernel } from "./kernel.ts";
import { moduleEntries } from "./kernel-modules.ts";

/** The statically linked busybox of Debian, taken from its package without installing it. */
export interface Busybox {
  readonly version: string;
  readonly path: string;
  /** Where its commands live, relative to the root: `bin/sh`, `usr/bin/awk`, `sbin/init`, … */
  readonly applets: readonly string[];
}

/** Answers Debian's static busybox, downloading it on first use (1 MB). */
export async function staticBusybox(progress: Progress): Promise<Busybox> {
  const unpacked = newestCachedPackage(/^busybox-static$/) ?? (await debianPackage("busybox-static", progress));
  const path = join(unpacked.directory, "bin/busybox");
  const applets = (await runProgram(path, ["--list-full"])).toString().split("\n").filter(Boolean);
  return { version: unpacked.version, path, applets };
}

/** What goes into an initramfs. */
export interface InitramfsContents {
  readonly kernel: Kernel;
  readonly busybox: Busybox;
  /** Names of kernel modules; what they need comes along. */
  readonly modules: readonly string[];
  /** Text of `/init`, a busybox shell script. */
  readonly init: string;
}

/**
 * Builds an initramfs: busybox under all its names, kernel modules, and an init script. It is not compressed: unpacking
 * costs a guest more time than reading does.
 */
export async function buildInitramfs(contents: InitramfsContents): Promise<Buffer> {
  const directories = ["bin", "sbin", "usr", "usr/bin", "usr/sbin", "dev", "proc", "sys", "run", "tmp", "newroot"];
  const entries: CpioEntry[] = [
    ...directories.map((path): CpioEntry => ({ kind: "directory", path })),
    // The kernel opens it for init's standard streams before anything is mounted.
    { kind: "characterDevice", path: "dev/console", major: 5, minor: 1 },
    { kind: "file", path: "bin/busybox", mode: 0o755, content: readFileSync(contents.busybox.path) },
    ...contents.busybox.applets
      .filter((path) => path !== "bin/busybox" && /^(usr\/)?s?bin\/[^/]+$/.test(path))
      .map((path): CpioEntry => ({ kind: "symlink", path, target: "/bin/busybox" })),
    { kind: "file", path: "init", mode: 0o755, content: Buffer.from(contents.init) },
    ...(await moduleEntries(contents.kernel, contents.modules)),
  ];
  return cpioArchive(entries);
}
