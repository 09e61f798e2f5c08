import t from "tap";
import {
  giveTraceCredit,
  makeTraceCredit,
  takeTraceCredit,
  traceGate,
} from "../../../../src/vmm/shared/trace-credit.ts";

t.test("traceGate() bounds the events ahead of the listener, and goes on without one", async (t) => {
  const credit = makeTraceCredit();
  const most = credit[0] ?? 0;
  t.ok(most > 100);
  const waitForTurn = traceGate(credit);
  for (let line = 0; line < most; line++) waitForTurn();
  t.equal(credit[0], 0);
  giveTraceCredit(credit);
  waitForTurn(); // has a place, does not wait
  t.equal(credit[0], 0);
  for (let line = 0; line < 10_000; line++) waitForTurn(); // waits in vain once, then goes on
  t.equal(credit[0], -10_000);
});

t.test("takeTraceCredit() takes a turn while there is one, and never waits", async (t) => {
  const credit = makeTraceCredit();
  const most = credit[0] ?? 0;
  for (let event = 0; event < most; event++) takeTraceCredit(credit);
  t.equal(credit[0], 0);
  t.notOk(takeTraceCredit(credit));
  giveTraceCredit(credit);
  t.ok(takeTraceCredit(credit));
  t.equal(credit[0], 0);
});
