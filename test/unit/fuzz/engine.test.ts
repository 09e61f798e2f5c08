import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";
import t from "tap";
import { projectRoot } from "../../../tools/cache.ts";
import { parseOperations } from "../../fuzz/engine/listing.ts";
import { fuzz } from "../../fuzz/engine/run.ts";
import { makeTarget, type Target } from "../../fuzz/engine/target.ts";

interface Step {
  readonly value: number;
}

/** Fails where a value above 990 comes after one below 10. */
const faulty = (): Target =>
  makeTarget<Step>({
    ...{ name: "faulty", about: "a fault", unit: "steps" },
    generate: (random) => Array.from({ length: 100 }, () => ({ value: random.below(1000) })),
    run: (steps) => {
      const first = steps.findIndex(({ value }) => value < 10);
      const second = steps.findIndex(({ value }, at) => at > first && first >= 0 && value > 990);
      return second < 0 ? undefined : `step ${second} is ${steps[second]?.value}`;
    },
    kind: ({ value }) => (value % 2 === 0 ? "even" : undefined),
  });

t.test(
  "fuzz() ends at the first failure, cut down to the two steps that matter, and its seed brings it back",
  async (t) => {
    const { failure, progress } = await fuzz(faulty(), { seed: 11, goesOn: ({ episodes }) => episodes < 1000 });
    const steps = parseOperations<Step>(failure?.listing ?? "");
    t.equal(steps.length, 2);
    t.ok((steps[0]?.value ?? 1000) < 10 && (steps[1]?.value ?? 0) > 990);
    t.equal(failure?.text, `step 1 is ${steps[1]?.value}`);
    t.equal(await faulty().replay(failure?.listing ?? ""), failure?.text);
    t.equal((await faulty().episode(failure?.seed ?? 0)).failure?.listing, failure?.listing);
    t.same([...progress.counts.keys()], ["even"], "only what counts is counted");
    t.equal(progress.operations, progress.counts.get("even"));
  },
);

t.test("fuzz() ends when its caller has enough, and other seeds bring other runs", async (t) => {
  const counted = async (seed: number): Promise<number> => {
    const options = { seed, goesOn: ({ operations }: { readonly operations: number }) => operations < 100 };
    const { progress } = await fuzz(faulty(), options);
    return progress.operations;
  };
  t.ok((await counted(1)) >= 100);
  t.not(await counted(1), await counted(2));
  t.equal(await counted(3), await counted(3));
});

t.test("makeTarget() takes an exception for a failure", async (t) => {
  const throwing = makeTarget<Step>({
    ...{ name: "throwing", about: "", unit: "", generate: () => [{ value: 1 }], kind: () => "all" },
    run: () => {
      throw new Error("out of order");
    },
  });
  t.match((await throwing.episode(1)).failure?.text, /^an exception: Error: out of order/);
});

t.test(
  "npm run fuzz ends with one line that has the seed, and refuses what it does not know in one line",
  async (t) => {
    const program = join(projectRoot(), "dist/test/fuzz/main.js");
    const run = (...argv: string[]): string => execFileSync(process.execPath, [program, ...argv], { encoding: "utf8" });
    const lines = run("--target", "platform", "--operations", "2000", "--seed", "7").trimEnd().split("\n");
    t.equal(lines[0], "platform: seed 7");
    t.match(
      lines.at(-1),
      /^platform: nothing found in \d+ accesses \(.*\), \d+ runs, \d+ s; again: npm run fuzz -- --target/,
    );
    t.match(run("--help"), /Targets:\n {2}accesses {2,}a guest's accesses/);
    for (const argv of [
      ["--target", "no"],
      ["--seed", "x"],
      ["--operations", "0"],
      ["--bogus"],
      ["--target", "all", "--replay", "x"],
    ]) {
      const { status, stderr } = spawnSync(process.execPath, [program, ...argv], { encoding: "utf8" });
      t.equal(status, 2, argv.join(" "));
      t.match(stderr, /^fuzz: [^\n]+; --help shows how\n$/);
    }
  },
);
