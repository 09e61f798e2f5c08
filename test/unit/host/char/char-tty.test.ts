import { closeSync, openSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import type { CharBackend } from "../../../../src/base/backends.ts";
import { type Fd, fd } from "../../../../src/base/units.ts";
import { CharStream } from "../../../../src/host/char/char-stream.ts";
import { CharTty } from "../../../../src/host/char/char-tty.ts";
import { libc } from "../../../../src/host/libc.ts";
import { bytes, HostBench, text } from "../../../support/host-bench.ts";
import { readNow, TestPipe, TestTerminal, type } from "../../../support/host-descriptors.ts";

const F_GETFL = 3;
const O_NONBLOCK = 0o4000;

interface Tty {
  readonly tty: CharTty;
  readonly quits: number[];
  readonly closed: number[];
}

function makeTty(t: Test, bench: HostBench, input: Fd, output: Fd): Tty {
  const quits: number[] = [];
  const closed: number[] = [];
  const tty = new CharTty({
    name: "serial",
    watcher: bench.loop,
    report: bench.report,
    input,
    output,
    onQuit: () => quits.push(1),
    onOutputClosed: () => closed.push(1),
  });
  t.teardown(() => tty.close());
  return { tty, quits, closed };
}

/** A device that takes everything; answers what it has got. */
function listen(backend: CharBackend): () => string {
  let got = "";
  backend.onInput((offered) => {
    got += text(offered);
    return offered.length;
  });
  return () => got;
}

t.test("CharTty carries keys and output of a terminal, Ctrl-A x quits", async (t) => {
  const bench = new HostBench(t);
  const terminal = new TestTerminal(t);
  const { tty, quits } = makeTty(t, bench, terminal.terminal, terminal.terminal);
  const got = listen(tty);
  type(terminal.user, "ls\n");
  bench.turnUntil(() => got() === "ls\n");
  readNow(terminal.user); // the echo: the backend does not set raw mode
  tty.write(bytes("total 0"));
  t.equal(readNow(terminal.user), "total 0");
  type(terminal.user, "\x01\x01\x01x\n");
  bench.turnUntil(() => got().length === 5);
  t.equal(got(), "ls\n\x01\n");
  t.same(quits, [1]);
});

t.test("CharTty leaves escape keys alone where input is no terminal, and stays quiet after its end", async (t) => {
  const bench = new HostBench(t);
  const input = new TestPipe(t, bench, "in");
  const output = new TestPipe(t, bench, "out");
  const { tty, quits } = makeTty(t, bench, input.reader, output.writer);
  const got = listen(tty);
  type(input.writer, "\x01x");
  bench.turnUntil(() => got() === "\x01x");
  t.same(quits, []);
  input.close(input.writer);
  bench.turnWhileReady();
  t.equal(bench.turnWhileReady(), 0);
  tty.write(bytes("still here"));
  t.equal(readNow(output.reader), "still here");
});

t.test("CharTty reads a regular file to its end, as fast as the device takes it", async (t) => {
  const bench = new HostBench(t);
  const content = "0123456789".repeat(2000);
  writeFileSync(bench.path("script"), content);
  const input = openSync(bench.path("script"), "r");
  const output = new TestPipe(t, bench, "out");
  const { tty } = makeTty(t, bench, fd(input), output.writer);
  let got = "";
  tty.onInput((offered) => {
    const count = Math.min(offered.length, 1000);
    got += text(offered.subarray(0, count));
    return count;
  });
  for (let round = 0; got.length < content.length && round < 1000; round++) {
    bench.turnWhileReady();
    tty.inputReady();
  }
  t.equal(got, content);
  bench.turnWhileReady();
  t.equal(bench.turnWhileReady(), 0, "the end is seen once");
  closeSync(input);
});

t.test("CharTty takes /dev/null as input that has ended", async (t) => {
  const bench = new HostBench(t);
  const input = openSync("/dev/null", "r");
  const output = new TestPipe(t, bench, "out");
  const { tty } = makeTty(t, bench, fd(input), output.writer);
  const got = listen(tty);
  bench.turnWhileReady();
  t.equal(bench.turnWhileReady(), 0);
  t.equal(got(), "");
  closeSync(input);
});

t.test("CharTty offers again what the device did not take, and reads nothing meanwhile", async (t) => {
  const bench = new HostBench(t);
  const input = new TestPipe(t, bench, "in");
  const output = new TestPipe(t, bench, "out");
  const { tty } = makeTty(t, bench, input.reader, output.writer);
  type(input.writer, "abcdef");
  t.equal(bench.turnWhileReady(), 0, "no listener yet");
  let room = 2;
  let got = "";
  tty.onInput((offered) => {
    const count = Math.min(room, offered.length);
    got += text(offered.subarray(0, count));
    room -= count;
    return count;
  });
  bench.turnWhileReady();
  t.equal(got, "ab");
  type(input.writer, "gh");
  t.equal(bench.turnWhileReady(), 0);
  room = 100;
  tty.inputReady();
  t.equal(got, "abcdef");
  bench.turnWhileReady();
  t.equal(got, "abcdefgh");
});

t.test("CharTty does not make descriptors nonblocking that other programs share", async (t) => {
  const bench = new HostBench(t);
  const terminal = new TestTerminal(t);
  const output = new TestPipe(t, bench, "out");
  const { tty } = makeTty(t, bench, terminal.terminal, output.writer);
  listen(tty);
  tty.write(bytes("x"));
  t.equal(libc.fcntl(terminal.terminal, F_GETFL, 0) & O_NONBLOCK, 0);
  t.equal(libc.fcntl(output.writer, F_GETFL, 0) & O_NONBLOCK, 0);
});

for (const isNonblocking of [true, false]) {
  t.test(`CharStream drops the oldest output of a slow reader (nonblocking ${isNonblocking})`, async (t) => {
    const bench = new HostBench(t);
    const output = new TestPipe(t, bench, "out");
    if (isNonblocking) libc.fcntl(output.writer, 4, O_NONBLOCK); // F_SETFL
    const stream = new CharStream({
      name: "serial",
      watcher: bench.loop,
      report: bench.report,
      output: output.writer,
      isNonblocking,
      limitBytes: 1000,
    });
    const line = "0123456789".repeat(10);
    for (let count = 0; count < 2000; count++) stream.write(bytes(line)); // 200,000 bytes; a pipe holds 65,536
    stream.write(bytes("the newest"));
    t.match(bench.reported, [/warn: serial: output is being dropped/]);
    let got = readNow(output.reader);
    bench.turnWhileReady();
    got += readNow(output.reader);
    t.ok(got.endsWith(`${line.slice(0, 90)}the newest`.slice(-100)), got.slice(-120));
    const dropped = 200_010 - got.length;
    t.same(bench.reported.slice(1), [`warn: serial: ${dropped} bytes of output were dropped`]);
    t.equal(bench.turnWhileReady(), 0);
    stream.close();
  });
}

t.test("CharTty reports once that its output has no reader any more and drops later output", async (t) => {
  const bench = new HostBench(t);
  const input = new TestPipe(t, bench, "in");
  const output = new TestPipe(t, bench, "out");
  const { tty, closed } = makeTty(t, bench, input.reader, output.writer);
  const got = listen(tty);
  output.close(output.reader);
  tty.write(bytes("a"));
  tty.write(bytes("b"));
  t.same(closed, [1]);
  type(input.writer, "input goes on");
  bench.turnUntil(() => got() !== "");
  t.equal(bench.turnWhileReady(), 0);
});

t.test("CharTty notices while output waits that the reader has gone", async (t) => {
  const bench = new HostBench(t);
  const input = new TestPipe(t, bench, "in");
  const output = new TestPipe(t, bench, "out");
  const { tty, closed } = makeTty(t, bench, input.reader, output.writer);
  tty.write(new Uint8Array(100_000));
  t.same(closed, []);
  output.close(output.reader);
  bench.turnWhileReady();
  t.same(closed, [1]);
  t.equal(bench.turnWhileReady(), 0);
});

t.test("CharTty.close() may be called twice and stops taking part", async (t) => {
  const bench = new HostBench(t);
  const input = new TestPipe(t, bench, "in");
  const output = new TestPipe(t, bench, "out");
  const { tty } = makeTty(t, bench, input.reader, output.writer);
  const got = listen(tty);
  tty.close();
  tty.close();
  type(input.writer, "late");
  tty.write(bytes("late"));
  t.equal(bench.turnWhileReady(), 0);
  t.equal(got(), "");
  t.equal(readNow(output.reader), "");
});
