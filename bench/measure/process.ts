import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";

/** A line of the guest, and when the host had it. */
export interface TimedLine {
  readonly text: string;
  /** performance.now() */
  readonly at: number;
}

/** What a process was and did. */
export interface Run {
  readonly lines: readonly TimedLine[];
  /** performance.now() just before the process was made, and when it was gone. */
  readonly started: number;
  readonly ended: number;
  readonly status: number | null;
  readonly errors: string;
}

/** Longest a contender may run, in milliseconds; q35's firmware takes seconds where KVM is slow. */
const LIMIT_MS = 120_000;

const running = new Set<ChildProcess>();

/** Ends what still runs; for an interrupted benchmark. */
export function killAll(): void {
  for (const child of running) child.kill("SIGKILL");
}

/**
 * The environment of all contenders: reading extra certificates costs Node 60 ms a start, which says nothing of a VMM.
 */
function environment(): NodeJS.ProcessEnv {
  const copy = { ...process.env };
  delete copy["NODE_EXTRA_CA_CERTS"];
  return copy;
}

export interface RunOptions {
  /** Called with each line as it comes. */
  readonly onLine?: (line: TimedLine, child: ChildProcess) => void;
  /**
   * The caller ends it from `onLine`, by a signal; otherwise it has to end by itself with 0 or 1 (a debug exit of 0).
   */
  readonly isEndedByUs?: boolean;
}

/**
 * Runs a program to its end and notes when each line of its output came.
 *
 * @throws Error when it ends otherwise than it should, with what it said.
 */
export function run(command: readonly string[], options: RunOptions = {}): Promise<Run> {
  const [program = "", ...rest] = command;
  return new Promise((resolve, reject) => {
    const started = performance.now();
    const child = spawn(program, rest, { env: environment(), stdio: ["ignore", "pipe", "pipe"] });
    running.add(child);
    const lines: TimedLine[] = [];
    let partial = "";
    let errors = "";
    let ended = 0;
    const timer = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS);
    child.stdout.on("data", (bytes: Buffer) => {
      const at = performance.now();
      const parts = (partial + bytes.toString("latin1")).split("\n");
      partial = parts.pop() ?? "";
      for (const text of parts) {
        const line = { text, at };
        lines.push(line);
        options.onLine?.(line, child);
      }
    });
    child.stderr.on("data", (bytes: Buffer) => {
      errors += bytes.toString();
    });
    child.on("error", reject);
    child.on("exit", () => {
      ended = performance.now();
    });
    child.on("close", (status, signal) => {
      clearTimeout(timer);
      running.delete(child);
      if (status === 0 || status === 1 || options.isEndedByUs === true) {
        return resolve({ lines, started, ended, status, errors });
      }
      const how = signal === null ? `status ${status}` : signal;
      reject(new Error(`${command.join(" ")} ended with ${how}\n${errors}${lines.map(({ text }) => text).join("\n")}`));
    });
  });
}

/** Processor time of a process's threads so far, in milliseconds. */
export interface CpuTime {
  readonly all: number;
  /** Without the threads that run vCPUs: a guest that polls keeps those busy under every VMM. */
  readonly withoutVcpus: number;
}

/** Names of vCPU threads: ours, and QEMU's where it was told to name them. */
const VCPU_THREAD = /^(vcpu\d+|CPU \d+\/KVM)$/;

/** Reads the scheduler's own account, which is exact to the nanosecond where `stat` counts ticks. */
export function cpuTime(pid: number): CpuTime {
  let all = 0;
  let withoutVcpus = 0;
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    try {
      const ms = Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, "latin1").split(" ")[0]) / 1e6;
      all += ms;
      if (!VCPU_THREAD.test(readFileSync(`/proc/${pid}/task/${tid}/comm`, "latin1").trim())) withoutVcpus += ms;
    } catch {
      // The thread has just ended.
    }
  }
  return { all, withoutVcpus };
}

/**
 * What a process has in memory without guest RAM, in MiB: all of it, and its private part. Guest RAM must be a memfd's.
 */
export function memoryOf(pid: number): { readonly own: number; readonly resident: number } {
  let isGuestRam = false;
  let own = 0;
  let resident = 0;
  for (const line of readFileSync(`/proc/${pid}/smaps`, "latin1").split("\n")) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isGuestRam = line.includes("/memfd:");
    const found = /^(Rss|Private_Clean|Private_Dirty):\s+(\d+) kB/.exec(line);
    if (found === null || isGuestRam) continue;
    const mib = Number(found[2]) / 1024;
    if (found[1] === "Rss") resident += mib;
    else own += mib;
  }
  return { own, resident };
}
