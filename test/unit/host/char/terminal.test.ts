import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import t from "tap";
import { fd } from "../../../../src/base/units.ts";
import { RawTerminal, reopenNonblocking } from "../../../../src/host/char/terminal.ts";
import { HostBench } from "../../../support/host-bench.ts";
import { readNow, TestPipe, TestTerminal, type } from "../../../support/host-descriptors.ts";

const C_LFLAG = 12;
const ISIG = 0o1;
const ICANON = 0o2;
const ECHO = 0o10;

const localFlags = (mode: Uint8Array): number => new DataView(mode.buffer).getUint32(C_LFLAG, true);

t.test("RawTerminal.enter() passes every key at once and echoes none, restore() puts all back", async (t) => {
  const terminal = new TestTerminal(t);
  const before = terminal.mode;
  t.equal(localFlags(before) & (ISIG | ICANON | ECHO), ISIG | ICANON | ECHO);
  const raw = RawTerminal.enter(terminal.terminal);
  t.equal(localFlags(terminal.mode) & (ISIG | ICANON | ECHO), 0);
  type(terminal.user, "\x03q");
  t.equal(readNow(terminal.terminal), "\x03q");
  t.equal(readNow(terminal.user), "");
  type(terminal.terminal, "log\n");
  t.equal(readNow(terminal.user), "log\r\n", "output is processed as before");
  raw?.restore();
  t.same(terminal.mode, before);
  RawTerminal.enter(terminal.terminal);
  raw?.restore();
  t.not(localFlags(terminal.mode), localFlags(before), "a second restore() does nothing");
});

t.test("RawTerminal.enter() answers undefined where there is no terminal", async (t) => {
  const file = openSync("/dev/null", "r");
  t.equal(RawTerminal.enter(fd(file)), undefined);
  closeSync(file);
});

for (const ending of ["process.exit(7)", "throw new Error('boom')"]) {
  t.test(`RawTerminal.restore() works from an exit listener after ${ending}`, async (t) => {
    const terminal = new TestTerminal(t);
    const before = terminal.mode;
    const module = new URL("../../../../src/host/char/terminal.js", import.meta.url).href;
    const program = `
      const { RawTerminal } = await import(${JSON.stringify(module)});
      const raw = RawTerminal.enter(0);
      process.on("exit", () => raw.restore());
      process.stderr.write("raw");
      await new Promise((resolve) => process.stdin.once("data", resolve));
      ${ending}`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
      stdio: [terminal.terminal, "ignore", "pipe"],
    });
    const exited = new Promise((resolve) => child.once("exit", resolve));
    await new Promise((resolve) => child.stderr?.once("data", resolve));
    t.equal(localFlags(terminal.mode) & ECHO, 0);
    type(terminal.user, "x");
    t.ok(Number(await exited) > 0);
    t.same(terminal.mode, before);
  });
}

t.test("reopenNonblocking() opens pipes and terminals anew and nothing else", async (t) => {
  const bench = new HostBench(t);
  const pipe = new TestPipe(t, bench, "pipe");
  const again = reopenNonblocking(pipe.reader, 0);
  t.ok(again !== undefined && again !== pipe.reader);
  if (again !== undefined) closeSync(again);
  const file = openSync(bench.path("file"), "w");
  t.equal(reopenNonblocking(fd(file), 1), undefined, "its position would be another one");
  closeSync(file);
});
