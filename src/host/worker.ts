import { Worker, type WorkerOptions } from "node:worker_threads";
import { causeForAnyCall, codeAndAdvice, HostError, hostErrorOf, isErrorCode } from "../base/errors.ts";
import { MIB } from "../base/units.ts";
import { addressSpaceLeft } from "./limits.ts";

/** Names of the classes whose errors are the host's. */
const OF_HOST: ReadonlySet<string> = new Set(["HostError", "SyscallError"]);

/**
 * Address space that a thread reserves when it starts, nearly all of it for V8's code and hardly used. Measured with
 * Node 20: 590 to 780 MiB. V8 aborts the process if it gets none.
 */
const THREAD_SPACE: number = 800 * MIB;
/** Threads of which it is not known whether they have reserved theirs, and what was left before the first of them. */
let starting = 0;
let leftBefore = 0;

/**
 * Starts a thread of Node's.
 *
 * @param name For messages: `the device thread`.
 * @throws HostError when the host allows no more threads, or no descriptors or address space for one.
 */
export function startWorker(name: string, entry: URL, options: WorkerOptions): Worker {
  if (starting === 0) leftBefore = addressSpaceLeft();
  const left = Math.min(addressSpaceLeft(), leftBefore - starting * THREAD_SPACE);
  if (left < THREAD_SPACE) {
    const space = `${Math.max(0, Math.floor(left / MIB))} MiB of address space are left, and a thread needs`;
    throw new HostError("TSVMM_ADDRESS_SPACE", `Cannot start ${name}: ${space} ${THREAD_SPACE / MIB}`);
  }
  let worker: Worker;
  try {
    worker = new Worker(entry, options);
  } catch (error) {
    throw workerError(name, error);
  }
  starting++;
  let isStarting = true;
  const started = (): void => {
    if (isStarting) starting--;
    isStarting = false;
  };
  worker.once("online", started).once("exit", started);
  return worker;
}

/**
 * Converts what a thread's constructor threw, or its `error` event, to a HostError if the host caused it. The host may
 * refuse the thread: pthread_create fails at once, a descriptor of its event loop later. It may refuse a file of the
 * program, or a call that the thread made before it could answer. Other errors are returned as they are.
 */
export function workerError(name: string, error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const code = "code" in error ? error.code : undefined;
  // Node copies name, message and properties of what a thread threw, not its class.
  if (OF_HOST.has(error.name)) {
    const cause = typeof code === "string" && isErrorCode(code) ? code : "TSVMM_THREAD_START";
    return hostErrorOf(error) ?? new HostError(cause, error.message, "");
  }
  if (code === "MODULE_NOT_FOUND" || code === "ERR_MODULE_NOT_FOUND") {
    const missing = error.message.split("\n", 1)[0] ?? "";
    return new HostError(
      "TSVMM_INSTALLATION",
      `Cannot start ${name}: ${missing}`,
      "was the package replaced meanwhile?",
    );
  }
  if (code !== "ERR_WORKER_INIT_FAILED") return hostErrorOf(error) ?? error;
  const errno = /E[A-Z0-9]+$/.exec(error.message)?.[0] ?? error.message;
  if (errno === "EAGAIN")
    return new HostError("TSVMM_THREAD_LIMIT", `Cannot start ${name}: the host allows no more threads`);
  const [general, advice] = codeAndAdvice(causeForAnyCall(errno) ?? "TSVMM_THREAD_START");
  return new HostError(general, `Cannot start ${name}: ${errno}`, advice);
}
