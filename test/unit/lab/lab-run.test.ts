import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { LabRun, NestedHostLost } from "../../../lab/lab-run.ts";
import { HostError } from "../../../src/base/errors.ts";

type Bench = Pick<typeof t, "testdir" | "teardown">;

/**
 * A program that stands in for QEMU: `script` has the socket paths as $1 (console) and $2 (report), and `say` to write
 * to one of them.
 */
function fakeQemu(test: Bench, folder: string, script: string): void {
  const say = `say() { node -e 'require("net").connect(process.argv[1]).end(process.argv[2] + "\\n")' "$1" "$2"; }`;
  writeFileSync(join(folder, "qemu-system-x86_64"), `#!/bin/sh\n${say}\n${script}\n`);
  chmodSync(join(folder, "qemu-system-x86_64"), 0o755);
  const path = process.env["PATH"] ?? "";
  process.env["PATH"] = `${folder}:${path}`;
  test.teardown(() => {
    process.env["PATH"] = path;
  });
}

const TOKEN = "0123";

async function run(test: Bench, script: string): Promise<unknown> {
  const folder = test.testdir();
  fakeQemu(test, folder, script);
  const options = {
    scenarios: [{ name: "one", script: "true", timeoutMs: 60_000 }],
    devices: [],
    shareDirectory: folder,
    timeoutMs: 60_000,
  };
  const started = new LabRun(options, TOKEN).start(({ consoleSocket, reportSocket }) => [consoleSocket, reportSocket]);
  return await started.catch((error: unknown) => error);
}

const report = (text: string): string => `say "$2" "$(printf '\\036${TOKEN} ${text}')"`;

t.test("LabRun.start() answers the scenarios of a nested host that came to its end", async (t) => {
  const steps = ["ready 6.1.0", "begin 000-one", "end 000-one 3", "done"].map(report);
  const result = await run(t, steps.join("\n"));
  t.match(result, { scenarios: [{ name: "one", status: 3 }] });
});

t.test("LabRun.start() calls a nested host lost that was reset, and keeps the results until then", async (t) => {
  const steps = ["ready 6.1.0", "begin 000-one", "end 000-one 0", "begin 001-two"].map(report);
  const error = await run(t, steps.join("\n"));
  t.ok(error instanceof NestedHostLost, "lost", { error });
  t.match(error, { message: /ended before its time: it was reset/, results: [{ name: "one", status: 0 }] });
});

t.test("LabRun.start() calls a nested host lost whose kernel panicked", async (t) => {
  const error = await run(t, `say "$1" "Kernel panic - not syncing: Fatal exception"; exit 1`);
  t.ok(error instanceof NestedHostLost, "lost", { error });
});

t.test("LabRun.start() passes on what QEMU complains of: starting again would not help", async (t) => {
  const error = await run(t, "echo 'no such device: moon' >&2; exit 1");
  t.ok(error instanceof HostError && !(error instanceof NestedHostLost), "no lost host", { error });
  t.match(error, { message: /ended before its time: no such device: moon/ });
});
