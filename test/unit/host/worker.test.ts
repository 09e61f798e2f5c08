import { once } from "node:events";
import { Worker } from "node:worker_threads";
import t from "tap";
import { HostError } from "../../../src/base/errors.ts";
import { workerError } from "../../../src/host/worker.ts";

/**
 * As Node has it: the bare errno from pthread_create, a text around it from the thread's event loop.
 * lib/internal/worker.js, src/node_worker.cc
 */
const refusal = (message: string): Error => Object.assign(new Error(message), { code: "ERR_WORKER_INIT_FAILED" });

t.test("workerError() is the host's error where the host refused a thread or its descriptors", async (t) => {
  const text = (message: string): string => String(workerError("a thread", refusal(message)));
  t.equal(
    text("EAGAIN"),
    "HostError: Cannot start a thread: the host allows no more threads (raise ulimit -u, pids.max of its control " +
      "group, " +
      "or kernel.threads-max)",
  );
  t.equal(
    text("Worker initialization failure: EMFILE"),
    "HostError: Cannot start a thread: EMFILE (raise the limit of open files: ulimit -n)",
  );
  t.equal(text("Worker initialization failure: ENOMEM"), "HostError: Cannot start a thread: ENOMEM");
});

t.test("workerError() leaves other errors as they are", async (t) => {
  const error = new RangeError("Cannot count");
  t.equal(workerError("a thread", error), error);
});

/** What the `error` event of a thread brings that runs such a program. */
async function crashOf(program: string | URL): Promise<unknown> {
  const worker = new Worker(program, { eval: typeof program === "string" });
  const [error] = await once(worker, "error");
  return workerError("the device thread", error);
}

t.test("workerError() gives an error that a thread threw its class again", async (t) => {
  const errors = JSON.stringify(new URL("../../../src/host/errors.js", import.meta.url).href);
  const error = await crashOf(`
    import(${errors}).then(({ SyscallError }) => {
      throw new SyscallError(
        ["TSVMM_AIO_LIMIT", "raise fs.epoll.max_user_watches"], "watch a descriptor", "epoll_ctl", "ENOSPC",
      );
    });
  `);
  t.ok(error instanceof HostError);
  t.equal((error as HostError).code, "TSVMM_AIO_LIMIT");
  t.equal(
    (error as HostError).message,
    "Cannot watch a descriptor: epoll_ctl failed with ENOSPC (raise fs.epoll.max_user_watches)",
  );
  t.equal(
    String(await crashOf('require("node:fs").readFileSync("/nowhere")')),
    "HostError: Cannot open /nowhere: ENOENT",
    "a failed call of Node's modules",
  );
  t.match(await crashOf("null.x"), { name: "TypeError" }, "an error of our own keeps its stack");
});

t.test("workerError() is the host's error where a thread's program is gone", async (t) => {
  const gone = new URL("file:///nowhere.js");
  t.match(await crashOf(gone), {
    name: "HostError",
    message:
      /^Cannot start the device thread: Cannot find module '.*nowhere\.js'.* \(was the package replaced meanwhile\?\)$/,
  });
});
