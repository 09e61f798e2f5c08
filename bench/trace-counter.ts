import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";

const TRACING = "/sys/kernel/tracing/events";

/** Events worth counting: each system call of a thread, and each return of KVM_RUN to it. */
export type TraceEvent = "raw_syscalls/sys_enter" | "kvm/kvm_userspace_exit";

/** More threads than a machine has; each takes an entry of the kernel's table. */
const TRIGGER = "hist:keys=common_pid:size=4096";

/** Reads a histogram over thread ids as the kernel shows it (Documentation/trace/histogram.rst). */
export function parseHistogram(text: string): Map<number, number> {
  const lines = text.matchAll(/\{ common_pid:\s+(\d+) \} hitcount:\s+(\d+)/g);
  return new Map([...lines].map(([, tid, count]) => [Number(tid), Number(count)]));
}

/**
 * Counts an event by thread, by a histogram of the kernel's own: nothing of it runs in the threads that are looked at.
 * Root only.
 */
export class TraceCounter {
  readonly #directory: string;

  /** @throws Error where the kernel offers no such histograms, or not to this user. */
  constructor(event: TraceEvent) {
    this.#directory = `${TRACING}/${event}`;
    if (!existsSync(`${this.#directory}/trigger`)) {
      throw new Error(`there is no ${this.#directory}/trigger: tracefs must be mounted, and this is root's`);
    }
    writeFileSync(`${this.#directory}/trigger`, TRIGGER);
  }

  /** How often so far, by thread id. */
  counts(): Map<number, number> {
    return parseHistogram(readFileSync(`${this.#directory}/hist`, "latin1"));
  }

  close(): void {
    writeFileSync(`${this.#directory}/trigger`, `!${TRIGGER}`);
  }
}

/**
 * Counts of a process's threads, by name: `vcpu0`, `devices`. Threads of one name are added up, and those without a
 * count left out.
 */
export function byThreadName(pid: number, counts: ReadonlyMap<number, number>): Record<string, number> {
  const named: Record<string, number> = {};
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const count = counts.get(Number(tid)) ?? 0;
    if (count === 0) continue;
    const name = readFileSync(`/proc/${pid}/task/${tid}/comm`, "latin1").trim();
    named[name] = (named[name] ?? 0) + count;
  }
  return named;
}
