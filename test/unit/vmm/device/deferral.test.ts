import t from "tap";
import { Deferral, Turns } from "../../../../src/vmm/device/deferral.ts";

/** A waiter that remembers how long it was to wait. */
class FakeWaiter {
  readonly timeouts: number[] = [];
  ready = 0;

  wait(timeoutMs: number): number {
    this.timeouts.push(timeoutMs);
    return this.ready;
  }
}

t.test("Turns waits as it is told while nothing was put off", async (t) => {
  const waiter = new FakeWaiter();
  const turns = new Turns(waiter);
  waiter.ready = 2;
  t.equal(turns.wait(-1), 2);
  t.equal(turns.wait(0), 2);
  t.same(waiter.timeouts, [-1, 0]);
});

t.test(
  "Turns runs what was put off after a look at the descriptors, and what that puts off a turn later",
  async (t) => {
    const waiter = new FakeWaiter();
    const turns = new Turns(waiter);
    const log: string[] = [];
    turns.defer(() => {
      log.push("first");
      turns.defer(() => log.push("third"));
    });
    turns.defer(() => log.push("second"));
    waiter.ready = 1;
    t.equal(turns.wait(-1), 3, "one descriptor and two pieces of work");
    t.same(log, ["first", "second"]);
    t.equal(turns.wait(-1), 2);
    t.same(log, ["first", "second", "third"]);
    turns.wait(-1);
    t.same(waiter.timeouts, [0, 0, -1]);
  },
);

t.test("Turns does the rest in the next turn when some work throws", async (t) => {
  const turns = new Turns(new FakeWaiter());
  const log: string[] = [];
  turns.defer(() => {
    throw new Error("boom");
  });
  turns.defer(() => log.push("rest"));
  t.throws(() => turns.wait(-1), /boom/);
  turns.wait(-1);
  t.same(log, ["rest"]);
});

t.test("Deferral drops at its close what has not run", async (t) => {
  const turns = new Turns(new FakeWaiter());
  const log: string[] = [];
  const [old, next] = [0, 1].map(() => new Deferral((work) => turns.defer(work)));
  old?.defer(() => log.push("old"));
  next?.defer(() => log.push("next"));
  old?.close();
  turns.wait(-1);
  t.same(log, ["next"]);
});
