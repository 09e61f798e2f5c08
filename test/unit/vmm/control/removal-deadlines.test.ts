import t from "tap";
import { RemovalDeadlines } from "../../../../src/vmm/control/removal-deadlines.ts";

function setUp() {
  const timers = new Map<number, { work: () => void; ms: number }>();
  const overdue: string[] = [];
  let next = 1;
  const deadlines = new RemovalDeadlines((error) => overdue.push(error.message), {
    set: (work, ms) => {
      timers.set(next, { work, ms });
      return next++;
    },
    clear: (timer) => timers.delete(timer as number), // cast: `set` answers numbers
  });
  return { deadlines, timers, overdue };
}

t.test("RemovalDeadlines says which device a guest did not let go of", async (t) => {
  const { deadlines, timers, overdue } = setUp();
  deadlines.start("nvme");
  t.same(
    [...timers.values()].map(({ ms }) => ms),
    [30_000],
  );
  timers.get(1)?.work();
  t.same(overdue, ["Cannot go on without nvme: the host wants it back, and the guest did not let go of it in 30 s"]);
});

t.test("RemovalDeadlines counts from the first request, however often the host asks", async (t) => {
  const { deadlines, timers } = setUp();
  deadlines.start("nvme");
  deadlines.start("nvme");
  deadlines.start("edu");
  t.equal(timers.size, 2);
});

t.test("RemovalDeadlines.stop() ends the wait for one device, stopAll() for all", async (t) => {
  const { deadlines, timers } = setUp();
  deadlines.start("nvme");
  deadlines.start("edu");
  deadlines.stop("nvme");
  deadlines.stop("nvme");
  deadlines.stop("unknown");
  t.same([...timers.keys()], [2]);
  deadlines.stopAll();
  t.equal(timers.size, 0);
  deadlines.start("nvme");
  t.equal(timers.size, 1, "a later request counts anew");
});
