import t from "tap";
import { quantile, ratioOf, summarize } from "../../../../bench/measure/samples.ts";

t.test("summarize() takes median and quartiles, between neighbours where there is no middle", async (t) => {
  t.same(summarize([5, 1, 3, 2, 4]), { median: 3, low: 2, high: 4, count: 5 });
  t.equal(summarize([1, 2]).median, 1.5);
  t.equal(summarize([7]).high, 7);
  t.ok(Number.isNaN(summarize([]).median), "nothing was measured");
});

t.test("quantile() does not change what it is given", async (t) => {
  const samples = [3, 1, 2];
  t.equal(quantile(samples, 0), 1);
  t.equal(quantile(samples, 1), 3);
  t.same(samples, [3, 1, 2]);
});

t.test("ratioOf() is not moved by a minute in which everything was slow", async (t) => {
  const ratio = ratioOf([10, 1000, 10], [20, 2000, 20]);
  t.equal(ratio.low, 0.5);
  t.equal(ratio.high, 0.5);
  t.equal(ratioOf([1, 2, 3], [1]).count, 1, "only rounds that both have");
});
