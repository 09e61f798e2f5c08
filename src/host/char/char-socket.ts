import type { CharBackend, Report } from "../../base/backends.ts";
import type { FdWatch, FdWatcher, RingWatcher } from "../../base/signals.ts";
import { UndoStack } from "../../base/undo-stack.ts";
import { type Fd, KIB } from "../../base/units.ts";
import { POLL, POLLFD } from "../constants.ts";
import { libc } from "../libc.ts";
import { UnixListener } from "../unix-socket.ts";
import { ByteQueue } from "./byte-queue.ts";
import { CharStream } from "./char-stream.ts";

/** The newest output that waits for a client. */
const KEPT_BYTES: number = 64 * KIB;

/**
 * A unix socket that a program connects to, such as socat or nc -U; one at a time, a second one is hung up on. What the
 * guest writes without a client is kept: the newest 64 KiB.
 */
export class CharSocket implements CharBackend, Disposable {
  readonly #name: string;
  readonly #watcher: FdWatcher;
  readonly #report: Report;
  readonly #kept: ByteQueue = new ByteQueue(KEPT_BYTES);
  readonly #listener: UnixListener;
  readonly #listenerWatch: FdWatch;
  #take: ((bytes: Uint8Array) => number) | undefined;
  #client: { readonly socket: Fd; readonly stream: CharStream } | undefined;
  #isClosed = false;

  /** @throws HostError when the path is taken or cannot be made. */
  constructor(options: {
    readonly name: string;
    readonly path: string;
    readonly watcher: FdWatcher & RingWatcher;
    readonly report: Report;
  }) {
    this.#name = options.name;
    this.#watcher = options.watcher;
    this.#report = options.report;
    const undo = new UndoStack();
    try {
      this.#listener = undo.own(UnixListener.listen(options.path, 1));
      this.#listenerWatch = options.watcher.watchRings(this.#listener.fd, () => this.#acceptAll());
    } catch (error) {
      throw undo.after(error);
    }
  }

  write(bytes: Uint8Array): void {
    if (this.#client?.stream.hasOutput === true) this.#client.stream.write(bytes);
    else this.#kept.push(bytes);
  }

  onInput(take: (bytes: Uint8Array) => number): void {
    this.#take = take;
    this.#client?.stream.onInput(take);
  }

  inputReady(): void {
    this.#client?.stream.inputReady();
  }

  /** Hangs up and removes the path. Calling it twice is harmless. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#hangUp();
    this.#listenerWatch.close();
    this.#listener.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #acceptAll(): void {
    for (let socket = this.#accept(); socket !== undefined; socket = this.#accept()) this.#meet(socket);
  }

  #accept(): Fd | undefined {
    return this.#listener.accept((level, text) => this.#report(level, `${this.#name}: ${text}`));
  }

  #meet(socket: Fd): void {
    // A client may have left unnoticed: its input is not watched while the guest takes none.
    if (this.#client !== undefined && hasHungUp(this.#client.socket)) this.#hangUp();
    if (this.#client !== undefined) {
      libc.close(socket);
      this.#report("info", `${this.#name}: a second client at ${this.#listener.path} was turned away`);
      return;
    }
    this.#serve(socket);
  }

  #serve(socket: Fd): void {
    const stream = new CharStream({
      name: this.#name,
      watcher: this.#watcher,
      report: this.#report,
      input: socket,
      output: socket,
      // A client that only stopped sending may still listen.
      onInputEnd: () => {
        if (hasHungUp(socket)) this.#hangUp();
      },
    });
    this.#client = { socket, stream };
    for (let bytes = this.#kept.peek(); bytes.length > 0; bytes = this.#kept.peek()) {
      stream.write(bytes);
      this.#kept.drop(bytes.length);
    }
    if (this.#take !== undefined) stream.onInput(this.#take);
  }

  #hangUp(): void {
    const client = this.#client;
    if (client === undefined) return;
    this.#client = undefined;
    client.stream.close();
    libc.close(client.socket);
  }
}

function hasHungUp(socket: Fd): boolean {
  const request = new DataView(new ArrayBuffer(POLLFD.size));
  request.setInt32(POLLFD.fd, socket, true);
  libc.poll(new Uint8Array(request.buffer), 1, 0);
  return (request.getInt16(POLLFD.revents, true) & (POLL.POLLHUP | POLL.POLLERR)) !== 0;
}
