import { existsSync, mkdtempSync, rmSync, watch, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { type BatchRules, type BatchRun, judge, runBatches } from "../../batches.ts";

type Limits = Pick<BatchRules, "timeoutSeconds" | "after">;

/** Runs programs that write what test files write. */
async function run(t: Test, programs: readonly string[], limits: Limits): Promise<readonly BatchRun[]> {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-batches-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const batches = programs.map((program, index) => {
    const file = join(folder, `${index}.mjs`);
    writeFileSync(file, program);
    return { name: `batch ${index}`, files: [file] };
  });
  const done: BatchRun[] = [];
  await runBatches(batches, { jobs: 2, env: process.env, onDone: (one) => done.push(one), ...limits });
  t.equal(done.length, batches.length);
  return batches.map(({ name }) => done.find((one) => one.name === name) as BatchRun); // cast: each was run
}

t.test(
  "runBatches() tells what batches say, and fails those that end early, say nothing or take too long",
  async (t) => {
    const runs = await run(
      t,
      [
        "console.log('ok 1\\n1..1\\n# { total: 3, pass: 2, skip: 1 }')",
        "console.log('ok 1\\n1..1\\n# { total: 2, pass: 2 }'); process.exit(3)",
        "console.log('ok 1\\n1..1\\n# { total: 2, pass: 2 }'); process.kill(process.pid, 'SIGSEGV')",
        "throw new Error('at import')",
        "console.log('nothing')",
        "console.log('# { total: 0, pass: 0 }')",
        "console.log('# { total: 17, pass: ' + process.env.TAP_TIMEOUT + ' }')",
      ],
      { timeoutSeconds: 17 },
    );
    t.match(runs, [
      { pass: 2, fail: 0, skip: 1, trouble: "" },
      { pass: 2, fail: 1, trouble: /^ended with status 3\n/ },
      { pass: 2, fail: 1, trouble: /^ended with SIGSEGV\n/ },
      { pass: 0, fail: 1, trouble: /^ended with status 1\n[\s\S]*Error: at import/ },
      { pass: 0, fail: 1, trouble: "ran no test to its end\nnothing" },
      { pass: 0, fail: 1, trouble: /^ran no test to its end\n/ },
      { pass: 17, fail: 0 },
    ]);
  },
);

t.test("runBatches() kills a batch that hangs, with the limit in its report", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-batches-"));
  const mark = join(folder, "said");
  // The timeout starts when the batch's first line arrives: the start of a process takes a time that depends on the
  // machine.
  const limits: number[] = [];
  const after = (milliseconds: number, act: () => void): (() => void) => {
    limits.push(milliseconds);
    const watcher = watch(folder, () => existsSync(mark) && act());
    return () => watcher.close();
  };
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const program = `
    import { writeFileSync } from "node:fs";
    console.log("# still here"); // a pipe is written to at once
    writeFileSync(${JSON.stringify(mark)}, "");
    setInterval(() => undefined, 1000);`;
  const [hangs] = await run(t, [program], { timeoutSeconds: 30, after });
  t.match(hangs, { pass: 0, fail: 1, trouble: /^took over 30 s\n# still here$/ });
  t.same(limits, [35_000], "tap's own limit, and some seconds to tell which test hangs");
});

t.test("judge() shows failed assertions with their diagnosis, not the whole output", async (t) => {
  const tap = [
    "# Subtest: a thing works",
    "    ok 1 - first",
    "    not ok 2 - second",
    "      ---",
    "      found: 3",
    "      ...",
    "    1..2",
    "not ok 1 - a thing works # time=1ms",
    "1..1",
    "# { total: 2, pass: 1, fail: 1 }",
  ].join("\n");
  const { pass, fail, trouble } = judge("x.test.js", tap, "", "ended with status 1");
  t.same([pass, fail], [1, 1]);
  t.equal(trouble, "    not ok 2 - second\n      ---\n      found: 3");
  t.equal(judge("x.test.js", tap, "core dumped", "ended with SIGSEGV").trouble.split("\n").at(-1), "core dumped");
});

t.test("runBatches() runs all files of a batch in one process, one after the other", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-batches-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const [first, second] = ["first.mjs", "second.mjs"].map((name) => join(folder, name)) as [string, string];
  writeFileSync(first, "await new Promise((resolve) => setTimeout(resolve, 50)); globalThis.count = 4;");
  writeFileSync(second, "console.log('# { total: 4, pass: ' + globalThis.count + ' }')");
  const onDone = (run: BatchRun): void => void t.match(run, { name: "both", pass: 4, fail: 0 });
  const batch = { name: "both", files: [first, second] };
  await runBatches([batch], { jobs: 1, timeoutSeconds: 20, env: process.env, onDone });
});
