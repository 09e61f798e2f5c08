import { invariant } from "../base/invariant.ts";
import type { FdWatch, FdWatcher, RingWatcher, TurnCounter } from "../base/signals.ts";
import { type Fd, fd as toFd } from "../base/units.ts";
import { EPOLL, EPOLL_EVENT } from "./constants.ts";
import { check, ERRNO } from "./errors.ts";
import { libc } from "./libc.ts";

type Interest = "input" | "output" | "both" | "none";
type OnReady = (isReadable: boolean, isWritable: boolean) => void;

const EVENTS_PER_WAIT = 64;
const READABLE: number = EPOLL.EPOLLIN | EPOLL.EPOLLRDHUP | EPOLL.EPOLLHUP | EPOLL.EPOLLERR;
const WRITABLE: number = EPOLL.EPOLLOUT | EPOLL.EPOLLHUP | EPOLL.EPOLLERR;

/**
 * The device thread's wait for descriptors: epoll, level-triggered but for {@link watchRings}, callbacks by token.
 *
 * A callback may close any watch, its own too, and open new ones. An event that was already fetched for a closed watch
 * is dropped. That holds when another file has the descriptor number meanwhile, too.
 */
export class EpollLoop implements FdWatcher, RingWatcher, TurnCounter, Disposable {
  readonly #events: DataView = new DataView(new ArrayBuffer(EVENTS_PER_WAIT * EPOLL_EVENT.size));
  readonly #eventBytes: Uint8Array = new Uint8Array(this.#events.buffer);
  readonly #watches: (Watch | undefined)[] = [];
  readonly #freeSlots: number[] = [];
  #epoll: number;
  #nextGeneration = 1;
  #turns = 0;

  /** @throws SyscallError */
  constructor() {
    this.#epoll = check(
      libc.epollCreate(EPOLL.EPOLL_CLOEXEC),
      "make an event loop",
      "epoll_create1",
      "TSVMM_HOST_CALL",
    );
  }

  /** How often {@link wait} was called. */
  get turns(): number {
    return this.#turns;
  }

  /** The epoll descriptor, readable while {@link wait} would find something; -1 when closed. */
  get fd(): Fd {
    return toFd(this.#epoll);
  }

  /**
   * Regular files and /dev/null cannot be watched: they never block.
   *
   * @throws SyscallError EPERM for those, EEXIST for a descriptor that is watched already.
   */
  watch(fd: Fd, interest: "input" | "output" | "both", onReady: OnReady): FdWatch {
    return this.#watch(fd, interest, 0, onReady);
  }

  /**
   * Watches edge-triggered an eventfd that is never read: calls `onRing` once for all signals between two waits, which
   * spares each a system call. A signal that comes before the wait, or during the call, is seen by the next wait. So is
   * a connection at a listening socket.
   *
   * @throws SyscallError
   */
  watchRings(fd: Fd, onRing: () => void): FdWatch {
    return this.#watch(fd, "input", EPOLL.EPOLLET, onRing);
  }

  #watch(fd: Fd, interest: Interest, trigger: number, onReady: OnReady): FdWatch {
    const slot = this.#freeSlots.pop() ?? this.#watches.length;
    const watch = new Watch(this.#epoll, fd, slot, this.#nextGeneration, trigger, onReady, () => this.#forget(slot));
    this.#nextGeneration = (this.#nextGeneration + 1) >>> 0;
    try {
      watch.setInterest(interest);
    } catch (error) {
      this.#freeSlots.push(slot);
      throw error;
    }
    this.#watches[slot] = watch;
    return watch;
  }

  #forget(slot: number): void {
    this.#watches[slot] = undefined;
    this.#freeSlots.push(slot);
  }

  /**
   * Waits for events and calls their callbacks; nothing is allocated.
   *
   * @param timeoutMs 0 looks without waiting, -1 waits without limit.
   * @returns How many callbacks were called; 0 also when a signal interrupted the wait.
   * @throws SyscallError, and what a callback throws (the other events of the round come again at the next wait).
   */
  wait(timeoutMs: number): number {
    this.#turns++;
    const count = libc.epollWait(this.#epoll, this.#eventBytes, EVENTS_PER_WAIT, timeoutMs);
    if (count < 0) {
      if (libc.errno() === ERRNO.EINTR) return 0;
      check(count, "wait for events", "epoll_wait", "TSVMM_HOST_CALL");
    }
    let dispatched = 0;
    for (let index = 0; index < count; index++) {
      const at = index * EPOLL_EVENT.size;
      const watch = this.#watches[this.#events.getUint32(at + EPOLL_EVENT.data, true)];
      if (watch?.generation !== this.#events.getUint32(at + EPOLL_EVENT.data + 4, true)) continue;
      if (watch.dispatch(this.#events.getUint32(at + EPOLL_EVENT.events, true))) dispatched++;
    }
    return dispatched;
  }

  /** Closes the epoll descriptor; the watched ones stay open. Watches may still be closed afterwards. */
  close(): void {
    if (this.#epoll < 0) return;
    libc.close(this.#epoll);
    this.#epoll = -1;
    for (const watch of this.#watches) watch?.abandon();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** A watched descriptor: a slot in the table, and a generation that tells it from the slot's earlier tenants. */
class Watch implements FdWatch {
  readonly generation: number;
  readonly #fd: Fd;
  /** EPOLLET or 0. */
  readonly #trigger: number;
  readonly #onReady: OnReady;
  readonly #onClosed: () => void;
  readonly #event: Uint8Array = new Uint8Array(EPOLL_EVENT.size);
  #epoll: number;
  #interest: Interest = "none";

  constructor(
    epoll: number,
    fd: Fd,
    slot: number,
    generation: number,
    trigger: number,
    onReady: OnReady,
    onClosed: () => void,
  ) {
    this.#epoll = epoll;
    this.#fd = fd;
    this.#trigger = trigger;
    this.generation = generation;
    this.#onReady = onReady;
    this.#onClosed = onClosed;
    const event = new DataView(this.#event.buffer);
    event.setUint32(EPOLL_EVENT.data, slot, true);
    event.setUint32(EPOLL_EVENT.data + 4, generation, true);
  }

  /**
   * "none" takes the descriptor out of epoll: a hang-up is reported whatever events are asked for, and would come again
   * and again.
   */
  setInterest(interest: Interest): void {
    invariant(this.#epoll >= 0, `descriptor ${this.#fd}'s watch is used after it was closed`);
    if (interest === this.#interest) return;
    const operation =
      interest === "none" ? EPOLL.EPOLL_CTL_DEL : this.#interest === "none" ? EPOLL.EPOLL_CTL_ADD : EPOLL.EPOLL_CTL_MOD;
    const input = interest === "input" || interest === "both" ? EPOLL.EPOLLIN | EPOLL.EPOLLRDHUP : 0;
    const output = interest === "output" || interest === "both" ? EPOLL.EPOLLOUT : 0;
    new DataView(this.#event.buffer).setUint32(EPOLL_EVENT.events, input | output | this.#trigger, true);
    const result = libc.epollControl(this.#epoll, operation, this.#fd, this.#event);
    check(result, `watch descriptor ${this.#fd}`, "epoll_ctl", "TSVMM_HOST_CALL");
    this.#interest = interest;
  }

  /** @returns False when nothing that happened is of interest. */
  dispatch(events: number): boolean {
    const isReadable = (events & READABLE) !== 0 && (this.#interest === "input" || this.#interest === "both");
    const isWritable = (events & WRITABLE) !== 0 && (this.#interest === "output" || this.#interest === "both");
    if (!isReadable && !isWritable) return false;
    this.#onReady(isReadable, isWritable);
    return true;
  }

  close(): void {
    if (this.#epoll < 0) return;
    // Fails only when the descriptor was closed before its watch; the kernel has forgotten it then.
    if (this.#interest !== "none") libc.epollControl(this.#epoll, EPOLL.EPOLL_CTL_DEL, this.#fd, this.#event);
    this.abandon();
    this.#onClosed();
  }

  /** The loop is gone: nothing more may be asked of epoll. */
  abandon(): void {
    this.#epoll = -1;
    this.#interest = "none";
  }
}
