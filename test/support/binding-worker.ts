import { parentPort, workerData } from "node:worker_threads";
import { SOCKADDR_UN, SOCKET } from "../../src/host/constants.ts";
import { libc } from "../../src/host/libc.ts";
import { whileLocked } from "../../src/host/lock-file.ts";

/*
 * A start at a socket's path that has bound it, holds its lock and does not listen yet. It posts "bound", then listens
 * after a moment and stays until it is ended.
 */

const MOMENT_MS = 100;

// Cast: the test makes this worker with exactly these data.
const { path } = workerData as { readonly path: string };
const socket = libc.socket(SOCKET.AF_UNIX, SOCKET.SOCK_STREAM | SOCKET.SOCK_CLOEXEC, 0);
const address = new Uint8Array(SOCKADDR_UN.size);
address[SOCKADDR_UN.sun_family] = SOCKET.AF_UNIX;
address.set(new TextEncoder().encode(path), SOCKADDR_UN.sun_path);
whileLocked(`${path}.tsvmm-lock`, "make a socket", () => {
  libc.bind(socket, address, address.length);
  parentPort?.postMessage("bound");
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, MOMENT_MS);
  libc.listen(socket, 1);
});
parentPort?.once("message", () => libc.close(socket));
