import { existsSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import { CharSocket } from "../../../../src/host/char/char-socket.ts";
import { libc } from "../../../../src/host/libc.ts";
import { connectTo, UnixListener } from "../../../../src/host/unix-socket.ts";
import { bytes, HostBench, text } from "../../../support/host-bench.ts";
import { readNow, type, withoutDescriptors } from "../../../support/host-descriptors.ts";

function makeSocket(t: Test, bench: HostBench): { readonly socket: CharSocket; readonly path: string } {
  const path = bench.path("serial.sock");
  const socket = new CharSocket({ name: "serial", path, watcher: bench.loop, report: bench.report });
  t.teardown(() => socket.close());
  return { socket, path };
}

function listen(socket: CharSocket): () => string {
  let got = "";
  socket.onInput((offered) => {
    got += text(offered);
    return offered.length;
  });
  return () => got;
}

t.test("CharSocket carries bytes both ways", async (t) => {
  const bench = new HostBench(t);
  const { socket, path } = makeSocket(t, bench);
  const got = listen(socket);
  const client = connectTo(path);
  bench.turnWhileReady();
  socket.write(bytes("login: "));
  t.equal(readNow(client), "login: ");
  type(client, "root\n");
  bench.turnWhileReady();
  t.equal(got(), "root\n");
  libc.close(client);
});

t.test("CharSocket keeps the newest 64 KiB of output until a client comes", async (t) => {
  const bench = new HostBench(t);
  const { socket, path } = makeSocket(t, bench);
  socket.write(bytes("lost"));
  socket.write(new Uint8Array(65536 - 3).fill(0x2e));
  socket.write(bytes("end"));
  const client = connectTo(path);
  bench.turnWhileReady();
  const got = readNow(client);
  t.equal(got.length, 65536);
  t.ok(got.startsWith("..."));
  t.ok(got.endsWith(".end"));
  libc.close(client);
});

t.test("CharSocket keeps a client waiting, and itself asleep, while no descriptor is left", async (t) => {
  const bench = new HostBench(t);
  const { socket, path } = makeSocket(t, bench);
  const got = listen(socket);
  const first = connectTo(path);
  withoutDescriptors(() => bench.turnWhileReady());
  t.match(bench.reported, [
    /^warn: serial: Cannot let a client in at .*: accept4 failed with EMFILE \(raise the limit/,
  ]);
  t.equal(bench.loop.wait(0), 0, "not told again and again");
  type(first, "1");
  const second = connectTo(path);
  bench.turnWhileReady();
  t.equal(got(), "1", "let in with the next");
  t.equal(libc.read(second, new Uint8Array(1), 1), 0, "hung up on");
  libc.close(first);
  libc.close(second);
});

t.test("CharSocket turns a second client away and serves the next one when the first has left", async (t) => {
  const bench = new HostBench(t);
  const { socket, path } = makeSocket(t, bench);
  const got = listen(socket);
  const first = connectTo(path);
  bench.turnWhileReady();
  const second = connectTo(path);
  bench.turnWhileReady();
  t.equal(libc.read(second, new Uint8Array(1), 1), 0, "hung up on");
  t.match(bench.reported, [/info: serial: a second client at .* was turned away/]);
  type(first, "1");
  libc.close(first);
  bench.turnWhileReady();
  t.equal(got(), "1", "what was sent before leaving arrives");
  socket.write(bytes("between"));
  const third = connectTo(path);
  bench.turnWhileReady();
  t.equal(readNow(third), "between");
  type(third, "3");
  bench.turnWhileReady();
  t.equal(got(), "13");
  t.equal(bench.turnWhileReady(), 0);
  for (const client of [second, third]) libc.close(client);
});

t.test("CharSocket replaces a client that left while the guest took no input", async (t) => {
  const bench = new HostBench(t);
  const { socket, path } = makeSocket(t, bench);
  const first = connectTo(path);
  bench.turnWhileReady();
  libc.close(first);
  t.equal(bench.turnWhileReady(), 0, "its input is not read");
  const second = connectTo(path);
  bench.turnWhileReady();
  socket.write(bytes("hello"));
  t.equal(readNow(second), "hello");
  libc.close(second);
});

t.test("CharSocket replaces the socket of a dead process and refuses one in use", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("serial.sock");
  libc.close(UnixListener.listen(path, 1).fd); // the path stays, without a listener
  t.ok(existsSync(path));
  const { socket } = makeSocket(t, bench);
  t.throws(() => new CharSocket({ name: "other", path, watcher: bench.loop, report: bench.report }), {
    name: "HostError",
    message: /another process listens there \(use another path\)/,
  });
  socket.close();
  socket.close();
  t.notOk(existsSync(path), "close() removes the path");
});

t.test("CharSocket refuses paths where no socket can be", async (t) => {
  const bench = new HostBench(t);
  const at = (path: string) => (): CharSocket =>
    new CharSocket({ name: "serial", path, watcher: bench.loop, report: bench.report });
  writeFileSync(bench.path("file"), "precious");
  t.throws(at(bench.path("file")), { name: "HostError", message: /something else has that name/ });
  t.ok(existsSync(bench.path("file")));
  t.throws(at(bench.path("no/such/directory")), { name: "SyscallError", errno: "ENOENT" });
  t.throws(at(bench.path("x".repeat(108))), { name: "HostError", message: /1 to 107 bytes/ });
  t.throws(() => connectTo(bench.path("absent")), { name: "SyscallError", message: /no server has made it/ });
});
