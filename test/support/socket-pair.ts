import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Test } from "tap";
import { type Fd, fd } from "../../src/base/units.ts";
import { SOCKET } from "../../src/host/constants.ts";
import { libc } from "../../src/host/libc.ts";
import { connectTo, UnixListener } from "../../src/host/unix-socket.ts";

/** A path for a socket in a directory that goes with the test. */
export function socketPath(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), "tsvmm-socket-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, "socket");
}

/** The path of a socket without a listener. */
export function deadSocket(t: Test): string {
  const path = socketPath(t);
  libc.close(UnixListener.listen(path, 1).fd);
  return path;
}

/** Takes a waiting connection; the caller closes it. */
export function acceptOne(listener: Fd): Fd {
  const accepted = libc.accept4(listener, SOCKET.SOCK_NONBLOCK | SOCKET.SOCK_CLOEXEC);
  if (accepted < 0) throw new Error("No client has connected");
  return fd(accepted);
}

/** Two connected stream sockets, nonblocking; the caller closes them. */
export function socketPair(t: Test): readonly [client: Fd, server: Fd] {
  const path = socketPath(t);
  const listener = UnixListener.listen(path, 1);
  const client = connectTo(path);
  const server = acceptOne(listener.fd);
  listener.close();
  return [client, server];
}
