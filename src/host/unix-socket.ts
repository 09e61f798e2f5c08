import { lstatSync, unlinkSync } from "node:fs";
import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import { fileId } from "../base/file-id.ts";
import { allOrNothing } from "../base/undo-stack.ts";
import { type Fd, fd } from "../base/units.ts";
import { SOCKADDR_UN, SOCKET } from "./constants.ts";
import { check, ERRNO, errnoName, SyscallError } from "./errors.ts";
import { libc } from "./libc.ts";
import { whileLocked } from "./lock-file.ts";

const PATH_BYTES: number = SOCKADDR_UN.size - SOCKADDR_UN.sun_path;

/** A struct sockaddr_un for a path. @throws HostError when it is too long. */
function socketAddress(path: string): Uint8Array {
  const encoded = new TextEncoder().encode(path);
  if (encoded.length === 0 || encoded.length >= PATH_BYTES) {
    throw new HostError(
      "TSVMM_SOCKET_NAME",
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
  return fd(check(libc.socket(SOCKET.AF_UNIX, type, 0), `make socket ${path}`, "socket", "TSVMM_SOCKET_FAILED"));
}

/** A listening socket and its path. */
export class UnixListener implements Disposable {
  readonly path: string;
  /** For watching; -1 after {@link close}. */
  get fd(): Fd {
    return this.#fd;
  }
  #fd: Fd;
  readonly #file: string | undefined;

  private constructor(path: string, listener: Fd) {
    this.path = path;
    this.#fd = listener;
    this.#file = idOf(path);
  }

  /**
   * Listens at a path, nonblocking. A socket file that no process listens at any more is replaced.
   *
   * Between bind(2) and listen(2) a socket looks like one that a dead process has left. So both calls are made under a
   * lock file beside the path: of several starts one succeeds, the others are refused.
   *
   * @throws HostError when another process listens there, when something else than a socket is there, and when the path
   *   is too long.
   */
  static listen(path: string, backlog: number): UnixListener {
    const address = socketAddress(path);
    const action = `make socket ${path}`;
    return whileLocked(`${path}.tsvmm-lock`, action, () => {
      return allOrNothing((undo) => {
        const listener = undo.own(new UnixListener(path, bindAt(path, address, action)));
        check(libc.listen(listener.fd, backlog), `listen at socket ${path}`, "listen", "TSVMM_SOCKET_FAILED");
        return listener;
      });
    });
  }

  /**
   * Takes the next connection, nonblocking; the caller closes it. To be called until no client waits, from an
   * edge-triggered watch: a client for whom no descriptor is left would keep a level-triggered one awake.
   *
   * @returns `undefined` when no client waits. A client that cannot be let in is reported, and waits for the next call.
   */
  accept(report: Report): Fd | undefined {
    for (;;) {
      const socket = libc.accept4(this.#fd, SOCKET.SOCK_NONBLOCK | SOCKET.SOCK_CLOEXEC);
      if (socket >= 0) return fd(socket);
      const errno = libc.errno();
      if (errno === ERRNO.EINTR) continue;
      if (errno !== ERRNO.EAGAIN) {
        report(
          "warn",
          new SyscallError("TSVMM_SOCKET_FAILED", `let a client in at ${this.path}`, "accept4", errnoName(errno))
            .message,
        );
      }
      return undefined;
    }
  }

  /** Removes the path, unless it leads to another file by now, and stops listening. Calling it twice is harmless. */
  close(): void {
    if (this.#fd < 0) return;
    // In this order: no process replaces a socket that has a listener.
    if (this.#file !== undefined && idOf(this.path) === this.#file) {
      try {
        unlinkSync(this.path);
      } catch {
        // somebody removed it already, or its directory may no longer be written
      }
    }
    libc.close(this.#fd);
    this.#fd = fd(-1);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function bindAt(path: string, address: Uint8Array, action: string): Fd {
  return allOrNothing((undo) => {
    const socket = undo.own(makeSocket(path), libc.close);
    let result = libc.bind(socket, address, address.length);
    if (result < 0 && libc.errno() === ERRNO.EADDRINUSE) {
      removeStale(path, address);
      result = libc.bind(socket, address, address.length);
    }
    check(result, action, "bind", "TSVMM_SOCKET_FAILED");
    return socket;
  });
}

/** `undefined` where there is nothing, or nothing that can be looked at. */
function idOf(path: string): string | undefined {
  try {
    return fileId(lstatSync(path, { bigint: true }));
  } catch {
    return undefined;
  }
}

/** Connects to a listening socket, nonblocking; the caller closes it. @throws SyscallError */
export function connectTo(path: string): Fd {
  const address = socketAddress(path);
  return allOrNothing((undo) => {
    const socket = undo.own(makeSocket(path), libc.close);
    check(libc.connect(socket, address, address.length), `connect to socket ${path}`, "connect", {
      otherwise: "TSVMM_SOCKET_FAILED",
      ENOENT: "TSVMM_SOCKET_ABSENT",
      ECONNREFUSED: "TSVMM_SOCKET_REFUSED",
      EACCES: "TSVMM_SOCKET_DENIED",
    });
    return socket;
  });
}

function removeStale(path: string, address: Uint8Array): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return; // its owner has just removed it
  if (!found.isSocket()) {
    throw new HostError(
      "TSVMM_SOCKET_NAME",
      `Cannot make socket ${path}: something else has that name`,
      "remove it or use another path",
    );
  }
  const probe = makeSocket(path);
  const isRefused = libc.connect(probe, address, address.length) < 0 && libc.errno() === ERRNO.ECONNREFUSED;
  libc.close(probe);
  if (!isRefused) {
    throw new HostError("TSVMM_SOCKET_IN_USE", `Cannot make socket ${path}: another process listens there`);
  }
  unlinkSync(path);
}
