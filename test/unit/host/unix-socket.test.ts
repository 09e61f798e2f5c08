import { once } from "node:events";
import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { Worker } from "node:worker_threads";
import t from "tap";
import { libc } from "../../../src/host/libc.ts";
import { connectTo, UnixListener } from "../../../src/host/unix-socket.ts";
import { HostBench } from "../../support/host-bench.ts";

const IN_USE = { name: "HostError", message: /: another process listens there \(use another path\)$/ };

t.test("UnixListener.listen() replaces a socket that was left behind, and leaves no lock file", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("socket");
  libc.close(UnixListener.listen(path, 1).fd);
  writeFileSync(`${path}.tsvmm-lock`, ""); // of a crash
  const listener = UnixListener.listen(path, 1);
  libc.close(connectTo(path));
  t.throws(() => UnixListener.listen(path, 1), IN_USE);
  t.same(readdirSync(bench.directory), ["socket"]);
  listener.close();
  listener.close();
  t.same(readdirSync(bench.directory), []);
});

t.test("UnixListener.listen() waits for a start that has bound the path and does not listen yet", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("socket");
  const worker = new Worker(new URL("../../support/binding-worker.js", import.meta.url), { workerData: { path } });
  t.teardown(() => worker.terminate());
  await once(worker, "message");
  const before = lstatSync(path).ino;
  t.throws(() => UnixListener.listen(path, 1), IN_USE);
  t.equal(lstatSync(path).ino, before, "the other's socket is where it was");
  libc.close(connectTo(path));
  const ended = once(worker, "exit");
  worker.postMessage("end");
  await ended;
});

t.test("UnixListener.close() leaves alone what is at its path by now", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("socket");
  const first = UnixListener.listen(path, 1);
  rmSync(path);
  const second = UnixListener.listen(path, 1);
  first.close();
  libc.close(connectTo(path));
  renameSync(path, bench.path("moved"));
  writeFileSync(path, "a file");
  second.close();
  t.ok(existsSync(path));
});

t.test("UnixListener.listen() refuses what is no socket, and a lock that is a symbolic link", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("socket");
  writeFileSync(path, "precious");
  t.throws(() => UnixListener.listen(path, 1), { name: "HostError", message: /something else has that name/ });
  const lock = `${path}.tsvmm-lock`;
  writeFileSync(lock, "precious too");
  t.throws(() => UnixListener.listen(path, 1), {
    name: "HostError",
    message: /to be its lock, is something else \(remove it\)/,
  });
  t.equal(readFileSync(lock, "utf8"), "precious too");
  rmSync(lock);
  symlinkSync("socket", lock);
  t.throws(() => UnixListener.listen(path, 1), { name: "SyscallError", errno: "ELOOP" });
});
