import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { type BatchRun, runBatches } from "../../batches.ts";

const SRC = new URL("../../../src/", import.meta.url).href;
const PASSES = "console.log('ok 1\\n1..1\\n# { total: 1, pass: 1 }');";

/** Runs a program as a batch of tests; it may use what it imports of the C library and of src. */
async function run(t: Test, program: string): Promise<BatchRun | undefined> {
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-opened-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "program.mjs");
  const imports = `
    import { Worker, isMainThread } from "node:worker_threads";
    import { EpollLoop } from ${JSON.stringify(`${SRC}host/epoll.js`)};
    import { EventFd } from ${JSON.stringify(`${SRC}host/eventfd.js`)};
    import { libc } from ${JSON.stringify(`${SRC}host/libc.js`)};
    import { HostMapping } from ${JSON.stringify(`${SRC}host/memory/mapping.js`)};
    import { EventSignals } from ${JSON.stringify(`${SRC}host/event-signals.js`)};
    import { startWorker } from ${JSON.stringify(`${SRC}host/worker.js`)};
    import { LogOutput } from ${JSON.stringify(`${SRC}vmm/log-output.js`)};`;
  writeFileSync(file, `${imports}\n${program}\n`);
  let done: BatchRun | undefined;
  const onDone = (one: BatchRun): void => {
    done = one;
  };
  await runBatches([{ name: "batch", files: [file] }], { jobs: 1, env: process.env, timeoutSeconds: 60, onDone });
  return done;
}

const LEAKS: readonly (readonly [what: string, program: string, trouble: RegExp])[] = [
  ["an eventfd", "EventFd.create();", /descriptor \d+ \(eventfd\), made at .*src\/host\/eventfd\./],
  ["several", "for (let n = 0; n < 3; n++) EventFd.create();", /descriptor \d+ \(eventfd\) and 2 more, made at/],
  ["an epoll descriptor", "new EpollLoop();", /descriptor \d+ \(epoll\), made at new EpollLoop /],
  [
    "a mapping",
    "HostMapping.anonymous('probe', 8192);",
    /mapping of 8192 bytes, made at .*src\/host\/memory\/mapping\./,
  ],
  [
    "a context of asynchronous I/O",
    "libc.ioDestroy = () => 0; new EventSignals().close();",
    /context of asynchronous I\/O, made at .*new EventSignals /,
  ],
  ["a file of node:fs", "new LogOutput('/dev/null');", /descriptor \d+ \(open \/dev\/null\), made at openFile /],
];

for (const [what, program, trouble] of LEAKS) {
  t.test(`a batch fails that leaves ${what} open, and tells where src made it`, async (t) => {
    const left = await run(t, `${PASSES}\n${program}`);
    t.match(left, { pass: 1, fail: 1, trouble });
    t.equal(left?.trouble.split("\n").length, 1);
  });
}

t.test("a batch fails whose worker leaves something open", async (t) => {
  const program = `
    if (isMainThread) {
      ${PASSES}
      startWorker("the worker", new URL(import.meta.url), {});
    } else EventFd.create();`;
  t.match(await run(t, program), { pass: 1, fail: 1, trouble: /^in a worker: not closed: descriptor \d+ \(eventfd\)/ });
});

t.test("a batch passes that closes what it opens, however", async (t) => {
  const program = `${PASSES}
    EventFd.create().close();
    { const mapping = HostMapping.anonymous("probe", 3 * 4096, { alignment: 2 ** 21 }); mapping.unmap(); }
    new EventSignals().close();
    new EpollLoop().close();
    new LogOutput("/dev/null").close();
    libc.eventfd(0, 0); // a test's own, not of src`;
  t.match(await run(t, program), { pass: 1, fail: 0, trouble: "" });
});
