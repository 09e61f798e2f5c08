import { join } from "node:path";
import { entries, linkTarget, textFile } from "./files.ts";

/** A process that has a file open. */
export interface FileHolder {
  readonly pid: number;
  /** As `comm` has it: at most 15 characters. */
  readonly name: string;
  /** The file, as the kernel spells it: `/dev/vfio/7`. */
  readonly file: string;
}

/** "process 77 (qemu-system-x86)" */
export const holderText = ({ pid, name }: FileHolder): string => `process ${pid} (${name})`;

/**
 * Processes that have one of some files open, in order of their numbers; others' processes are seen by root alone. A
 * process is named once for each file.
 */
export function holdersOf(isMeant: (file: string) => boolean, proc = "/proc"): readonly FileHolder[] {
  const pids = entries(proc).filter((name) => /^\d+$/.test(name));
  return pids
    .sort((a, b) => Number(a) - Number(b))
    .flatMap((pid) => {
      const directory = join(proc, pid, "fd");
      const files = new Set(entries(directory).map((fd) => linkTarget(join(directory, fd)) ?? ""));
      const meant = [...files].filter(isMeant);
      if (meant.length === 0) return [];
      const name = textFile(join(proc, pid), "comm") ?? "?";
      return meant.map((file) => ({ pid: Number(pid), name, file }));
    });
}

/**
 * Files of sysfs whose write returns only when a device was taken from its driver. They are a driver's `unbind`, a
 * function's `remove`, a slot's `power`, and `sriov_numvfs` of a physical function.
 */
const TAKING = /^\/sys\/.*\/(?:unbind|remove|power|sriov_numvfs)$/;

/** Who waits for a device to be taken from its driver; whose device it is cannot be seen. */
export const takersOfDevices = (proc = "/proc"): readonly FileHolder[] => holdersOf((file) => TAKING.test(file), proc);
