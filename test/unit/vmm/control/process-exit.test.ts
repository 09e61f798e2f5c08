import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";

const folder = mkdtempSync(join(tmpdir(), "tsvmm-exit-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
const fifo = join(folder, "fifo");
spawnSync("mkfifo", [fifo]);

/** A program with a thread in open(2) of a pipe that has no writer: Node would wait for it without end. */
function leave(body: string): { status: number | null; signal: string | null; output: string } {
  const module = new URL("../../../../src/vmm/control/process-exit.js", import.meta.url);
  const source = `
    import { Worker } from "node:worker_threads";
    import { ProcessExit } from ${JSON.stringify(module)};
    process.on("exit", () => console.log("before"));
    const exit = new ProcessExit(() => { console.log("release"); return false; });
    process.on("exit", (status) => console.log("after", status));
    const code = 'require("node:worker_threads").parentPort.postMessage(0); ' +
    'require("node:fs").openSync("${fifo}", "r")';
    const worker = new Worker(code, { eval: true, execArgv: [] });
    worker.once("message", () => { ${body} });
  `;
  const args = ["--input-type=module", "-e", source];
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 20_000 });
  return { status, signal, output: `${stdout}${stderr}` };
}

t.test("ProcessExit leaves a process whose thread does not end, after the other listeners", async (t) => {
  t.same(leave("process.exit(7);"), { status: 7, signal: null, output: "before\nrelease\nafter 7\n" });
});

t.test("ProcessExit shows the exception that ends the process", async (t) => {
  const { status, output } = leave("throw new Error('boom');");
  t.equal(status, 1);
  t.match(output, /^before\nrelease\nafter 1\nError: boom\n/);
});

t.test("ProcessExit leaves the end to the caller who names the signal", async (t) => {
  const { status, signal, output } = leave(
    'process.emit("exit", 143, "SIGTERM"); process.removeAllListeners("SIGTERM"); process.kill(process.pid, ' +
      '"SIGTERM");',
  );
  t.same([status, signal, output], [null, "SIGTERM", "before\nrelease\nafter 143\n"]);
});

t.test("ProcessExit does nothing once it is closed", async (t) => {
  const { signal, output } = leave(
    `exit.close(); process.on("exit", () => process.kill(process.pid, "SIGKILL")); process.exit(7);`,
  );
  t.same([signal, output], ["SIGKILL", "before\nafter 7\n"]);
});
