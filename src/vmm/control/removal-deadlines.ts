import { HostError } from "../../base/errors.ts";

/** Timers as Node has them; tests have their own. */
export interface Timers {
  set(work: () => void, ms: number): unknown;
  clear(timer: unknown): void;
}

const NODE_TIMERS: Timers = {
  set: (work, ms) => setTimeout(work, ms),
  // Cast: what `set` made comes back.
  clear: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout>),
};

/**
 * How long a guest may keep a device that the host wants back: an operating system needs milliseconds, one that boots
 * some seconds.
 */
const GRACE_SECONDS = 30;

/**
 * Stops waiting for guests that do not let go of a device: whoever unbinds it on the host hangs meanwhile. One deadline
 * a device, from the first request. Control thread.
 */
export class RemovalDeadlines {
  readonly #onOverdue: (error: HostError) => void;
  readonly #timers: Timers;
  readonly #running = new Map<string, unknown>();

  /**
   * @param onOverdue Called with what to say; the machine has to be stopped, since that gives the device back for
   *   certain.
   */
  constructor(onOverdue: (error: HostError) => void, timers: Timers = NODE_TIMERS) {
    this.#onOverdue = onOverdue;
    this.#timers = timers;
  }

  start(device: string): void {
    if (this.#running.has(device)) return;
    const expire = (): void => {
      this.#running.delete(device);
      const state = `the host wants it back, and the guest did not let go of it in ${GRACE_SECONDS} s`;
      this.#onOverdue(new HostError(`Cannot go on without ${device}: ${state}`));
    };
    this.#running.set(device, this.#timers.set(expire, GRACE_SECONDS * 1000));
  }

  /** The guest has let go of it. */
  stop(device: string): void {
    if (this.#running.has(device)) this.#timers.clear(this.#running.get(device));
    this.#running.delete(device);
  }

  /** The machine is taken apart, and with it everything goes back. */
  stopAll(): void {
    for (const device of [...this.#running.keys()]) this.stop(device);
  }
}
