import { lstatSync, unlinkSync } from "node:fs";
import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import { type Fd, fd } from "../base/units.ts";
import { SOCKADDR_UN, SOCKET } from "./constants.ts";
import { check, ERRNO, errnoName, SyscallError } from "./errors.ts";
import { libc } from "./libc.ts";

const PATH_BYTES: number = SOCKADDR_UN.size - SOCKADDR_UN.sun_path;

/** A struct sockaddr_un for a path. @throws HostError when it is too long. */
function socketAddress(path: string): Uint8Array {
  const encoded = new TextEncoder().encode(path);
  if (encoded.length === 0 || encoded.length >= PATH_BYTES) {
    throw new HostError(
      `Cannot make socket ${path}: its path must have 1 to ${PATH_BYTES - 1} bytes`,
      "use a shorter path",
    );
  }
  const address = new Uint8Array(SOCKADDR_UN.size);
  address[SOCKADDR_UN.sun_family] = SOCKET.AF_UNIX;
  address.set(encoded, SOCKADDR_UN.sun_path);
  return address;
}

function makeSocket(path: string): Fd {
  const type = SOCKET.SOCK_STREAM | SOCKET.SOCK_NONBLOCK | SOCKET.SOCK_CLOEXEC;
  return fd(check(libc.socket(SOCKET.AF_UNIX, type, 0), `make socket ${path}`, "socket"));
}

/**
 * Listens at a path, nonblocking. A socket file that no process listens at any more is replaced.
 *
 * @returns The listening socket; the caller closes it and removes the path.
 * @throws HostError when another process listens there, when something else than a socket is there, and when the path is too long.
 */
export function listenAt(path: string, backlog: number): Fd {
  const address = socketAddress(path);
  const listener = makeSocket(path);
  try {
    let result = libc.bind(listener, address, address.length);
    if (result < 0 && libc.errno() === ERRNO.EADDRINUSE) {
      removeStale(path, address);
      result = libc.bind(listener, address, address.length);
    }
    check(result, `make socket ${path}`, "bind", {
      ENOENT: "its directory does not exist",
      EACCES: "this user may not write to its directory",
    });
    check(libc.listen(listener, backlog), `listen at socket ${path}`, "listen");
    return listener;
  } catch (error) {
    libc.close(listener);
    throw error;
  }
}

/**
 * Takes the next connection at a listener, nonblocking; the caller closes it. To be called until nobody is there, from an edge-triggered
 * watch: a client for whom no descriptor is left would keep a level-triggered one awake.
 *
 * @returns `undefined` when nobody is there. A client that cannot be let in is reported, and waits for the next call.
 */
export function acceptAt(listener: Fd, path: string, report: Report): Fd | undefined {
  for (;;) {
    const socket = libc.accept4(listener, SOCKET.SOCK_NONBLOCK | SOCKET.SOCK_CLOEXEC);
    if (socket >= 0) return fd(socket);
    const errno = libc.errno();
    if (errno === ERRNO.EINTR) continue;
    if (errno !== ERRNO.EAGAIN) {
      report("warn", new SyscallError(`let a client in at ${path}`, "accept4", errnoName(errno)).message);
    }
    return undefined;
  }
}

/** Connects to a listening socket, nonblocking; the caller closes it. @throws SyscallError */
export function connectTo(path: string): Fd {
  const address = socketAddress(path);
  const socket = makeSocket(path);
  try {
    check(libc.connect(socket, address, address.length), `connect to socket ${path}`, "connect", {
      ENOENT: "nobody has made it",
      ECONNREFUSED: "nobody listens there any more",
    });
    return socket;
  } catch (error) {
    libc.close(socket);
    throw error;
  }
}

function removeStale(path: string, address: Uint8Array): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return; // its owner has just removed it
  if (!found.isSocket()) {
    throw new HostError(`Cannot make socket ${path}: something else has that name`, "remove it or use another path");
  }
  const probe = makeSocket(path);
  const isRefused = libc.connect(probe, address, address.length) < 0 && libc.errno() === ERRNO.ECONNREFUSED;
  libc.close(probe);
  if (!isRefused) {
    throw new HostError(`Cannot make socket ${path}: another process listens there`, "use another path");
  }
  unlinkSync(path);
}
