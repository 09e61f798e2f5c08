import { Worker, type WorkerOptions } from "node:worker_threads";
import { adviceForAnyCall, HostError } from "../base/errors.ts";

/** What can be done where the host allows no more threads. */
export const THREAD_ADVICE: string = "raise ulimit -u, pids.max of its control group, or kernel.threads-max";

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
 * What a thread's constructor threw or its `error` event brought, as a HostError where the host refused the thread: pthread_create fails
 * at once, a descriptor of the thread's event loop later. Other errors pass.
 */
export function workerError(name: string, error: unknown): unknown {
  if (!(error instanceof Error) || !("code" in error) || error.code !== "ERR_WORKER_INIT_FAILED") return error;
  const errno = /E[A-Z0-9]+$/.exec(error.message)?.[0] ?? error.message;
  if (errno === "EAGAIN") return new HostError(`Cannot start ${name}: the host allows no more threads`, THREAD_ADVICE);
  return new HostError(`Cannot start ${name}: ${errno}`, adviceForAnyCall(errno));
}
