import t from "tap";
import { workerError } from "../../../src/host/worker.ts";

/** As Node has it: the bare errno from pthread_create, a text around it from the thread's event loop. lib/internal/worker.js, src/node_worker.cc */
const refusal = (message: string): Error => Object.assign(new Error(message), { code: "ERR_WORKER_INIT_FAILED" });

t.test("workerError() is the host's error where the host refused a thread or its descriptors", async (t) => {
  const text = (message: string): string => String(workerError("a thread", refusal(message)));
  t.equal(
    text("EAGAIN"),
    "HostError: Cannot start a thread: the host allows no more threads (raise ulimit -u, pids.max of its control group, " +
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
