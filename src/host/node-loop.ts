import { UndoStack } from "../base/undo-stack.ts";
import { POLL, POLLFD } from "./constants.ts";
import { EpollLoop } from "./epoll.ts";
import { EventFd } from "./eventfd.ts";
import { pollInBackground } from "./libc.ts";

/**
 * Watched descriptors on Node's event loop, for programs whose main thread is theirs: servers of devices, not the
 * machine's device thread.
 *
 * A background thread sleeps in poll on the epoll descriptor; what it finds is dispatched by Node's loop, so timers,
 * promises and descriptors take turns. That costs some 40 µs an event. The process stays alive until {@link close}. One
 * that exits without it wakes the background thread first: Node waits for its threads, and would wait for this one
 * until the next event.
 */
export class NodeLoop implements Disposable {
  readonly epoll: EpollLoop;
  readonly #wake: EventFd;
  readonly #descriptors: Uint8Array = new Uint8Array(new ArrayBuffer(POLLFD.size));
  readonly #onError: (error: unknown) => void;
  readonly #onExit: () => void = () => this.close();
  #isClosed = false;
  /** Resolves when nothing is dispatched any more and all is given back. */
  readonly closed: Promise<void>;

  /**
   * @param onError What to do with an exception of a callback; the loop goes on.
   * @throws SyscallError
   */
  constructor(onError: (error: unknown) => void) {
    this.#onError = onError;
    const undo = new UndoStack();
    try {
      this.epoll = undo.own(new EpollLoop());
      this.#wake = undo.own(EventFd.create());
      this.epoll.watch(this.#wake.fd, "input", () => this.#wake.drain());
    } catch (error) {
      throw undo.after(error);
    }
    const view = new DataView(this.#descriptors.buffer);
    view.setInt32(POLLFD.fd, this.epoll.fd, true);
    view.setInt16(POLLFD.events, POLL.POLLIN, true);
    process.once("exit", this.#onExit);
    this.closed = this.#run();
  }

  /** Stops dispatching, now; watches may still be closed afterwards. Calling it twice is harmless. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#wake.signal();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #run(): Promise<void> {
    while (!this.#isClosed) {
      await pollInBackground(this.#descriptors, 1, -1);
      // One round, then the others' turn: a busy descriptor must not keep timers from running.
      try {
        if (!this.#isClosed) this.epoll.wait(0);
      } catch (error) {
        this.#onError(error);
      }
    }
    process.off("exit", this.#onExit);
    this.epoll.close();
    this.#wake.close();
  }
}
