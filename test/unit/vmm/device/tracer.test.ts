import t from "tap";
import { Tracer } from "../../../../src/vmm/device/tracer.ts";
import { makeTraceCredit } from "../../../../src/vmm/shared/trace-credit.ts";
import type { TraceEvent } from "../../../../src/vmm/shared/trace-event.ts";

const line = (gsi: number): TraceEvent => ({ kind: "line", name: "COM1", gsi, isUp: true });

function setUp(turns: number) {
  const posted: TraceEvent[] = [];
  const credit = makeTraceCredit();
  credit[0] = turns;
  return { posted, credit, tracer: new Tracer((event) => posted.push(event)) };
}

t.test("Tracer makes events only while it is on", async (t) => {
  const { posted, credit, tracer } = setUp(10);
  t.equal(tracer.emit, undefined);
  tracer.set({ credit, whenBehind: "drop" });
  tracer.emit?.(line(4));
  tracer.set(undefined);
  t.equal(tracer.emit, undefined);
  t.same(posted, [line(4)]);
});

t.test("Tracer drops events of a listener that is behind, and tells how many where it goes on", async (t) => {
  const { posted, credit, tracer } = setUp(1);
  tracer.set({ credit, whenBehind: "drop" });
  for (const gsi of [1, 2, 3]) tracer.emit?.(line(gsi));
  t.same(posted, [line(1)]);
  credit[0] = 1;
  tracer.emit?.(line(4));
  t.same(posted.slice(1), [{ kind: "lost", count: 2 }, line(4)]);
  t.equal(credit[0], 0, "what tells of the loss takes no turn");
});

t.test("Tracer tells what it has lost when it is switched off or over", async (t) => {
  const { posted, credit, tracer } = setUp(0);
  tracer.set({ credit, whenBehind: "drop" });
  tracer.emit?.(line(1));
  credit[0] = 5;
  tracer.set({ credit, whenBehind: "wait" });
  tracer.emit?.(line(2));
  t.same(posted, [{ kind: "lost", count: 1 }, line(2)]);
  tracer.set(undefined);
  t.equal(posted.length, 2, "once");
});
