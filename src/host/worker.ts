import { Worker, type WorkerOptions } from "node:worker_threads";
import { adviceForAnyCall, HostError, hostErrorOf } from "../base/errors.ts";

/** What can be done where the host allows no more threads. */
export const THREAD_ADVICE: string = "raise ulimit -u, pids.max of its control group, or kernel.threads-max";

/** Names of the classes whose errors are the host's. */
const OF_HOST: ReadonlySet<string> = new Set(["HostError", "SyscallError"]);

/**
 * Starts a thread of Node's.
 *
 * @param name For messages: `the device thread`.
 * @throws HostError when the host allows no more threads, or no descriptors for one.
 */
export function startWorker(name: string, entry: URL, options: WorkerOptions): Worker {
  try {
    return new Worker(entry, options);
  } catch (error) {
    throw workerError(name, error);
  }
}

/**
 * What a thread's constructor threw or its `error` event brought, as a HostError where it is the host's: it refused the
 * thread (pthread_create fails at once, a descriptor of the thread's event loop later), a file of its program, or what
 * the thread asked for before it could answer. Other errors pass.
 */
export function workerError(name: string, error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  // Node copies name and message of what a thread threw, not its class.
  if (OF_HOST.has(error.name)) return hostErrorOf(error) ?? new HostError(error.message);
  const code = "code" in error ? error.code : undefined;
  if (code === "MODULE_NOT_FOUND" || code === "ERR_MODULE_NOT_FOUND") {
    const missing = error.message.split("\n", 1)[0] ?? "";
    return new HostError(`Cannot start ${name}: ${missing}`, "was the package replaced meanwhile?");
  }
  if (code !== "ERR_WORKER_INIT_FAILED") return hostErrorOf(error) ?? error;
  const errno = /E[A-Z0-9]+$/.exec(error.message)?.[0] ?? error.message;
  if (errno === "EAGAIN") return new HostError(`Cannot start ${name}: the host allows no more threads`, THREAD_ADVICE);
  return new HostError(`Cannot start ${name}: ${errno}`, adviceForAnyCall(errno));
}
