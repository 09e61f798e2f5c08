import t from "tap";
import { WaitBudget } from "../../../../src/vfio-user/client/wait-budget.ts";

/** A budget of 5 s on a clock and a loop that the test turns. */
function setUp(limitMs = 5000) {
  const loop = { turn: 1, time: 0 };
  const budget = new WaitBudget({ limitMs, turns: () => loop.turn, now: () => loop.time });
  /** Waits as a channel does: so long if it may, in the same turn as the last one or the next. */
  const wait = (ms: number, turn: "same turn" | "next turn" = "next turn"): number => {
    if (turn === "next turn") loop.turn++;
    const allowance = budget.allowance();
    const waited = Math.min(ms, allowance);
    loop.time += waited;
    budget.spend(waited);
    return allowance;
  };
  return { budget, loop, wait };
}

t.test("WaitBudget holds one turn no longer than the limit in sum, however many waits it has", async (t) => {
  const { budget, wait } = setUp();
  t.equal(wait(4000), 5000);
  t.equal(wait(900, "same turn"), 1000);
  t.equal(wait(150, "same turn"), 100, "what is left");
  t.equal(budget.allowance(), 0);
});

t.test("WaitBudget gives waits of many turns the limit in sum, not each", async (t) => {
  const { wait } = setUp();
  t.equal(wait(4800), 5000);
  t.equal(wait(4800), 200);
  const earned = wait(4800);
  t.ok(earned > 16 && earned < 17, "a twelfth of the time that passed");
});

t.test("WaitBudget counts no turn of a server that answers soon", async (t) => {
  const { budget, loop, wait } = setUp();
  for (let access = 0; access < 10_000; access++) wait(199);
  loop.turn++;
  t.equal(budget.allowance(), 5000);
});

t.test("WaitBudget counts a turn of many short waits that is long in sum", async (t) => {
  const { budget, loop, wait } = setUp();
  for (let message = 0; message < 30; message++) wait(100, "same turn");
  loop.turn++;
  t.equal(budget.allowance(), 2000);
});

t.test("WaitBudget gives all back within a minute", async (t) => {
  const { budget, loop, wait } = setUp();
  wait(5000);
  loop.turn++;
  t.equal(budget.allowance(), 0);
  loop.time += 30_000;
  t.equal(budget.allowance(), 2500);
  loop.time += 3_600_000;
  t.equal(budget.allowance(), 5000, "and no more");
});

t.test("WaitBudget without a limit never ends", async (t) => {
  const { budget, wait } = setUp(Number.POSITIVE_INFINITY);
  for (let access = 0; access < 10; access++) wait(86_400_000);
  t.equal(budget.allowance(), Number.POSITIVE_INFINITY);
});
