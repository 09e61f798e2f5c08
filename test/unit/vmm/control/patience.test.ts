import t from "tap";
import { HostError } from "../../../../src/base/errors.ts";
import { waitWhileItProgresses } from "../../../../src/vmm/control/patience.ts";
import { defer } from "../../../../src/vmm/control/worker-link.ts";

/** A clock that a test moves, and a thread whose progress a test makes. */
function setUp() {
  let time = 0;
  let timer: { readonly work: () => void; readonly at: number } | undefined;
  const thread = { mark: "0", allowanceMs: 0 };
  const told: number[] = [];
  const end = defer<string>();
  const waiting = waitWhileItProgresses(end.promise, {
    progress: { mark: () => thread.mark, allowanceMs: () => thread.allowanceMs },
    stillMs: 30_000,
    onWait: (seconds) => told.push(seconds),
    error: () => new HostError("TSVMM_THREAD_STUCK", "Cannot release the devices: no progress for 30000 ms"),
    clock: {
      now: () => time,
      set: (work, ms) => {
        timer = { work, at: time + ms };
        return timer;
      },
      clear: (cleared) => {
        if (timer === cleared) timer = undefined;
      },
    },
  });
  let outcome = "waiting";
  waiting.then(
    (value) => {
      outcome = value;
    },
    (error: Error) => {
      outcome = error.message;
    },
  );
  /** Lets so many seconds go by. @param step Called after each. */
  const pass = async (seconds: number, step: () => void = () => undefined): Promise<string> => {
    for (const until = time + 1000 * seconds; time < until; ) {
      time += 1000;
      step();
      while (timer !== undefined && timer.at <= time) {
        const { work } = timer;
        timer = undefined;
        work();
      }
    }
    await new Promise(setImmediate);
    return outcome;
  };
  return { thread, told, end, pass, hasTimer: () => timer !== undefined };
}

t.test(
  "waitWhileItProgresses() waits for minutes while the thread works in the kernel, and tells every 5 s",
  async (t) => {
    const { thread, told, end, pass, hasTimer } = setUp();
    let ticks = 0;
    const works = (): void => {
      thread.mark = `1 ${ticks++}`;
    };
    t.equal(await pass(300, works), "waiting", "unpinning terabytes");
    t.same(told.slice(0, 3), [5, 10, 15]);
    t.equal(told.length, 60);
    end.resolve("done");
    t.equal(await pass(0), "done");
    t.notOk(hasTimer());
  },
);

t.test("waitWhileItProgresses() gives up after so long without progress, from the last one on", async (t) => {
  const { thread, pass, hasTimer } = setUp();
  t.equal(await pass(29), "waiting");
  thread.mark = "1";
  t.equal(await pass(29), "waiting", "there was progress");
  t.equal(await pass(2), "Cannot release the devices: no progress for 30000 ms");
  t.notOk(hasTimer());
});

t.test("waitWhileItProgresses() gives a step of the kernel's the time it may sleep", async (t) => {
  const { thread, pass } = setUp();
  thread.mark = "1";
  thread.allowanceMs = 150_000;
  t.equal(await pass(149), "waiting", "a GPU that does not answer after its reset");
  thread.mark = "2";
  thread.allowanceMs = 0;
  t.equal(await pass(28), "waiting");
  t.match(await pass(5), /^Cannot release the devices/);
});

t.test("waitWhileItProgresses() passes a rejection on", async (t) => {
  const { end, pass, hasTimer } = setUp();
  end.reject(new HostError("TSVMM_THREAD_STUCK", "Cannot ask the device thread: it has ended"));
  t.equal(await pass(0), "Cannot ask the device thread: it has ended");
  t.notOk(hasTimer());
});
