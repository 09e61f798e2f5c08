import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import t from "tap";
import type { CharBackend } from "../../../../src/base/backends.ts";
import { fd } from "../../../../src/base/units.ts";
import { CharFile } from "../../../../src/host/char/char-file.ts";
import { CharApi, CharNull } from "../../../../src/host/char/char-null.ts";
import { CharPty } from "../../../../src/host/char/char-pty.ts";
import { bytes, HostBench, text } from "../../../support/host-bench.ts";
import { readNow, type } from "../../../support/host-descriptors.ts";

t.test("CharFile empties the file and writes output to it", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("log");
  writeFileSync(path, "old content");
  const file = new CharFile({ name: "serial", path, watcher: bench.loop, report: bench.report });
  file.write(bytes("boot\n"));
  file.write(bytes("done\n"));
  t.equal(readFileSync(path, "latin1"), "boot\ndone\n");
  file.close();
  file.close();
  file.write(bytes("late"));
  t.equal(readFileSync(path, "latin1"), "boot\ndone\n");
});

t.test("CharFile leaves a file as it is until the guest begins", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("log");
  const open = (name: string): CharFile =>
    new CharFile({ name: "serial", path: bench.path(name), watcher: bench.loop, report: bench.report });
  writeFileSync(path, "old content");
  const unused = open("log");
  unused.close();
  unused.write(bytes("late"));
  t.equal(readFileSync(path, "latin1"), "old content");
  const silent = open("log");
  t.equal(readFileSync(path, "latin1"), "old content");
  silent.begin();
  t.equal(readFileSync(path, "latin1"), "", "a guest that says nothing leaves an empty file");
  silent.write(bytes("boot\n"));
  silent.begin();
  t.equal(readFileSync(path, "latin1"), "boot\n", "it is emptied once");
  silent.close();
});

t.test("CharFile takes away the file it has made when no guest has begun, and no other", async (t) => {
  const bench = new HostBench(t);
  const open = (name: string): CharFile =>
    new CharFile({ name: "serial", path: bench.path(name), watcher: bench.loop, report: bench.report });
  open("new").close();
  symlinkSync("target", bench.path("link"));
  open("link").close();
  t.same(readdirSync(bench.directory), ["link"]);
  writeFileSync(bench.path("empty"), "");
  open("empty").close();
  const begun = open("begun");
  begun.begin();
  begun.close();
  const filled = open("filled");
  writeFileSync(bench.path("filled"), "of another process");
  filled.close();
  const replaced = open("replaced");
  rmSync(bench.path("replaced"));
  writeFileSync(bench.path("replaced"), "");
  replaced.close();
  t.same(readdirSync(bench.directory).sort(), ["begun", "empty", "filled", "link", "replaced"]);
});

t.test("CharFile says what is wrong with its path", async (t) => {
  const bench = new HostBench(t);
  const at = (path: string) => (): CharFile =>
    new CharFile({ name: "serial", path, watcher: bench.loop, report: bench.report });
  t.throws(at(bench.path("no/such")), { name: "SyscallError", message: /its directory does not exist/ });
  t.throws(at(bench.directory), { name: "SyscallError", message: /it is a directory/ });
  execFileSync("mkfifo", [bench.path("pipe")]);
  t.throws(at(bench.path("pipe")), { name: "SyscallError", errno: "ENXIO", message: /start the reader first/ });
});

t.test("CharFile on a full disk drops output and reports it once", async (t) => {
  const bench = new HostBench(t);
  const file = new CharFile({ name: "serial", path: "/dev/full", watcher: bench.loop, report: bench.report });
  for (let count = 0; count < 100; count++) file.write(bytes("x"));
  t.same(bench.reported, ["warn: serial: output is being dropped: ENOSPC"]);
  file.close();
});

t.test("CharPty is a raw terminal at the path it tells", async (t) => {
  const bench = new HostBench(t);
  const pty = new CharPty({ name: "serial", watcher: bench.loop, report: bench.report });
  t.match(pty.path, /^\/dev\/pts\/\d+$/);
  let got = "";
  pty.onInput((offered) => {
    got += text(offered);
    return offered.length;
  });
  const user = fd(openSync(pty.path, constants.O_RDWR | constants.O_NOCTTY));
  pty.write(bytes("a\r\nb\n"));
  bench.turnWhileReady();
  t.equal(readNow(user), "a\r\nb\n", "line ends stay as they are");
  type(user, "\x03\x04q\n");
  bench.turnUntil(() => got.includes("\n"));
  t.equal(got, "\x03\x04q\n", "control keys are input");
  t.equal(readNow(user), "", "nothing is echoed");
  closeSync(user);
  t.equal(bench.turnWhileReady(), 0, "a program that leaves is no event");
  pty.write(bytes("later"));
  const next = fd(openSync(pty.path, constants.O_RDWR | constants.O_NOCTTY));
  t.equal(readNow(next), "later", "the next one gets what came meanwhile");
  closeSync(next);
  pty.close();
  pty.close();
});

t.test("CharPty does not block without a reader", async (t) => {
  const bench = new HostBench(t);
  const pty = new CharPty({ name: "serial", watcher: bench.loop, report: bench.report });
  for (let count = 0; count < 300; count++) pty.write(new Uint8Array(10_000).fill(0x2e));
  pty.write(bytes("end"));
  const user = fd(openSync(pty.path, constants.O_RDWR | constants.O_NOCTTY));
  let got = "";
  for (let round = 0; !got.endsWith("end") && round < 10_000; round++) {
    got += readNow(user);
    bench.turnWhileReady();
  }
  t.ok(got.endsWith("end"));
  t.ok(got.length < 3_000_003);
  t.equal(bench.reported.length, 2);
  closeSync(user);
  pty.close();
});

t.test("CharApi hands output to the program and input to the guest", async (t) => {
  let output = "";
  let got = "";
  let room = 3;
  const api = new CharApi((chunk) => {
    output += text(chunk);
  });
  api.write(bytes("hello"));
  t.equal(output, "hello");
  api.push(bytes("early"));
  t.equal(api.pendingBytes, 5);
  api.onInput((offered) => {
    const count = Math.min(room, offered.length);
    got += text(offered.subarray(0, count));
    room -= count;
    return count;
  });
  t.equal(got, "ear");
  api.push(bytes("+"));
  room = 9;
  api.inputReady();
  t.equal(got, "early+");
  t.equal(api.pendingBytes, 0);
  api.close();
  api.write(bytes("late"));
  api.push(bytes("late"));
  t.equal(output, "hello");
  t.equal(got, "early+");
});

t.test("CharNull never asks for input and takes output", async (t) => {
  const nothing: CharBackend = new CharNull();
  nothing.onInput(() => {
    t.fail("there is no input");
    return 0;
  });
  nothing.inputReady();
  nothing.write(bytes("x"));
  nothing.close();
});
