import { readFileSync } from "node:fs";
import { KIB } from "../base/units.ts";
import { RESOURCE, RLIMIT } from "./constants.ts";
import { check } from "./errors.ts";
import { libc } from "./libc.ts";

/** A resource limit; `Infinity` for none. */
export interface ResourceLimit {
  readonly current: number;
  /** How far an unprivileged process may raise `current`. */
  readonly maximum: number;
}

/**
 * How many bytes this process may lock in memory; a device's DMA locks all guest RAM. Nothing is limited with
 * CAP_IPC_LOCK.
 */
export function memoryLockLimit(): ResourceLimit {
  return resourceLimit(RESOURCE.RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK");
}

/** Bytes of address space that this process may still map; `Infinity` without a limit. */
export function addressSpaceLeft(): number {
  const { current } = resourceLimit(RESOURCE.RLIMIT_AS, "RLIMIT_AS");
  if (current === Number.POSITIVE_INFINITY) return current;
  // Its first word counts pages of 4 KiB. proc_pid_statm(5)
  const pages = Number(readFileSync("/proc/self/statm", "utf8").split(" ", 1)[0]);
  return Math.max(0, current - pages * 4 * KIB);
}

function resourceLimit(resource: number, name: string): ResourceLimit {
  const limit = new DataView(new ArrayBuffer(RLIMIT.size));
  check(libc.getrlimit(resource, new Uint8Array(limit.buffer)), `read ${name}`, "getrlimit", "TSVMM_HOST_CALL");
  const value = (offset: number): number => {
    const bits = limit.getBigUint64(offset, true);
    return bits === 0xffff_ffff_ffff_ffffn ? Number.POSITIVE_INFINITY : Number(bits);
  };
  return { current: value(RLIMIT.rlim_cur), maximum: value(RLIMIT.rlim_max) };
}

/**
 * Tells whether this process has a capability, by its number (`RESOURCE.CAP_IPC_LOCK`). capabilities(7)
 *
 * In a user namespace other than the host's a capability may be there and not count: the kernel asks for some of them
 * outside.
 *
 * @param status Text of /proc/self/status; read when absent.
 */
export function hasCapability(capability: number, status: string = readFileSync("/proc/self/status", "utf8")): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0";
  return ((BigInt(`0x${effective}`) >> BigInt(capability)) & 1n) === 1n;
}

/**
 * Bytes the host could give to new programs without swapping.
 *
 * @param meminfo Text of /proc/meminfo; read when absent.
 */
export function availableMemory(meminfo: string = readFileSync("/proc/meminfo", "utf8")): number {
  const available = /^MemAvailable:\s*(\d+) kB$/m.exec(meminfo)?.[1];
  return Number(available ?? 0) * KIB;
}

/** The host's pool of huge pages of one size. */
export interface HugePagePool {
  readonly totalCount: number;
  readonly freeCount: number;
}

/**
 * The pool of huge pages of `pageSizeBytes`, all NUMA nodes together; zeroes where the kernel has none of that size.
 * Reserved pages are not free.
 *
 * @param directory Where the pools are, in sysfs.
 */
export function hugePages(pageSizeBytes: number, directory = "/sys/kernel/mm/hugepages"): HugePagePool {
  const pool = `${directory}/hugepages-${pageSizeBytes / KIB}kB`;
  const count = (file: string): number => {
    try {
      return Number(readFileSync(`${pool}/${file}`, "utf8"));
    } catch {
      return 0; // no such size in this kernel
    }
  };
  return {
    totalCount: count("nr_hugepages"),
    freeCount: Math.max(0, count("free_hugepages") - count("resv_hugepages")),
  };
}
