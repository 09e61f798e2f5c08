import t from "tap";
import { HostError } from "../../../../src/base/errors.ts";
import { Traces } from "../../../../src/vmm/control/traces.ts";
import type { TraceSettings } from "../../../../src/vmm/shared/requests.ts";
import type { TraceEvent } from "../../../../src/vmm/shared/trace-event.ts";

const EVENT: TraceEvent = { kind: "line", name: "COM1", gsi: 4, isUp: true };

function setUp() {
  const asked: (string | undefined)[] = [];
  let credit: Int32Array = new Int32Array(1);
  const traces: Traces = new Traces(async (settings: TraceSettings | undefined) => {
    asked.push(settings?.whenBehind);
    credit = settings?.credit ?? credit;
  });
  return { traces, asked, credit: () => credit[0] };
}

t.test("Traces switches the device thread's trace on with the first listener and off with the last", async (t) => {
  const { traces, asked } = setUp();
  t.equal(traces.settings, undefined);
  const one = await traces.listen(() => undefined);
  const other = await traces.listen(() => undefined, { whenBehind: "wait" });
  await other.stop();
  await other.stop();
  await one[Symbol.asyncDispose]();
  t.same(asked, ["drop", "wait", "drop", undefined]);
});

t.test("Traces.receive() tells every listener, counts what was lost, and gives the turn back", async (t) => {
  const { traces, credit } = setUp();
  const told: string[] = [];
  const one = await traces.listen(({ kind }) => told.push(`one ${kind}`));
  await traces.listen(({ kind }) => told.push(`other ${kind}`));
  const before = credit() ?? 0;
  traces.receive(EVENT);
  traces.receive({ kind: "lost", count: 3 });
  t.same(told, ["one line", "other line", "one lost", "other lost"]);
  t.equal(one.lost, 3);
  t.equal(credit(), before + 1, "what tells of a loss has taken no turn");
});

t.test("MachineTrace.stop() tells what was sent before the answer, and nothing after it", async (t) => {
  const told: number[] = [];
  let answer = (): void => undefined;
  let isAnswered = true;
  const traces: Traces = new Traces(
    () =>
      new Promise((resolve) => {
        if (isAnswered) resolve();
        else answer = resolve;
      }),
  );
  const trace = await traces.listen(() => told.push(1));
  isAnswered = false;
  const stopped = trace.stop();
  traces.receive(EVENT);
  answer();
  await stopped;
  traces.receive(EVENT);
  t.same(told, [1]);
});

t.test("Traces.listen() leaves no listener behind when the device thread has ended", async (t) => {
  const traces = new Traces(async () => {
    throw new HostError("TSVMM_HOST_CALL", "Cannot trace the machine: it has ended");
  });
  await t.rejects(
    traces.listen(() => t.fail("nothing is told")),
    { name: "HostError" },
  );
  t.equal(traces.settings, undefined);
});
