import t from "tap";
import { compare, Interrupted, interleave, ratioTo, withAim } from "../../../../bench/measure/interleave.ts";

/** A context of so many rounds, and a way to interrupt it. */
function context(rounds: number): Parameters<typeof interleave>[0] & { readonly abort: () => void } {
  const interruption = new AbortController();
  return { rounds, progress: () => undefined, signal: interruption.signal, abort: () => interruption.abort() };
}

t.test("interleave() measures all contenders in each round, every other round backwards", async (t) => {
  const order: string[] = [];
  const contender = (name: string) => async () => {
    order.push(name);
    return { time: order.length };
  };
  const samples = await interleave(context(3), { a: contender("a"), b: contender("b") });
  t.same(order, ["a", "b", "b", "a", "a", "b"]);
  t.same(samples, { a: { time: [1, 4, 5] }, b: { time: [2, 3, 6] } });
});

t.test("interleave() keeps whole rounds when it is interrupted", async (t) => {
  const run = context(5);
  let measurements = 0;
  const samples = await interleave(run, {
    a: async () => ({ time: ++measurements }),
    b: async () => {
      if (measurements === 3) {
        run.abort();
        throw new Error("its process was killed");
      }
      return { time: 0 };
    },
  });
  t.same(samples["a"]?.time.length, 2);
  t.same(samples["b"]?.time.length, 2);
});

t.test("interleave() has nothing to show when it is interrupted in the first round", async (t) => {
  const run = context(5);
  const measure = async (): Promise<{ time: number }> => {
    run.abort();
    return { time: 1 };
  };
  await t.rejects(interleave(run, { a: measure }), Interrupted);
});

t.test("interleave() passes on why a contender failed", async (t) => {
  const measure = async (): Promise<{ time: number }> => {
    throw new Error("no such machine type");
  };
  await t.rejects(interleave(context(2), { a: measure }), { message: "no such machine type" });
});

t.test("compare() lays one thing of ours beside everybody who has it", async (t) => {
  const samples = { ours: { time: [2, 4] }, theirs: { time: [4, 8] }, other: { time: [] } };
  const line = compare(samples, "ours", "time", { what: "a start", unit: "ms", scale: 1000 });
  t.equal(line.value.median, 3000);
  t.same(
    line.beside.map(({ name, ratio }) => [name, ratio.median]),
    [["theirs", 0.5]],
  );
  t.equal(ratioTo(line, "theirs"), 0.5);
  t.equal(ratioTo(line, "absent"), undefined);
  t.same(withAim(line, "half", true).aim, { text: "half", isReached: true });
});
