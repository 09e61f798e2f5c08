import type { MsiMessage, MsiRoute, MsiRouter } from "../../../src/base/signals.ts";
import { type Fd, fd } from "../../../src/base/units.ts";

/** An interrupt that reached the pretended local APIC. */
export interface Delivery {
  /** As routes are called: `virtio-blk msix 1`. */
  readonly route: string;
  readonly message: MsiMessage;
}

/** Eventfd numbers of routes start here, so that none is taken for a real descriptor. */
const FIRST_FD = 1_000_000;

class FuzzRoute implements MsiRoute {
  readonly name: string;
  readonly eventFd: Fd;
  readonly #router: FuzzRouter;
  #message: MsiMessage | undefined;
  #isReleased = false;
  isMasked = true;
  isPending = false;

  constructor(router: FuzzRouter, name: string, eventFd: Fd) {
    this.#router = router;
    this.name = name;
    this.eventFd = eventFd;
  }

  setMessage(message: MsiMessage): void {
    this.#alive("setMessage");
    this.#message = message;
  }

  mask(): void {
    this.#alive("mask");
    this.isMasked = true;
  }

  unmask(): void {
    this.#alive("unmask");
    if (this.#message === undefined) throw new Error(`${this.name} was unmasked without a message`);
    this.isMasked = false;
    if (!this.isPending) return;
    this.isPending = false;
    this.#deliver();
  }

  signal(): void {
    this.#alive("signal");
    if (this.isMasked && !this.#router.ignoresMasks) this.isPending = true;
    else this.#deliver();
  }

  inject(): void {
    this.signal();
  }

  release(): void {
    this.#alive("release");
    this.#isReleased = true;
    this.#router.forget(this);
  }

  #deliver(): void {
    if (this.#message !== undefined) this.#router.deliveries.push({ route: this.name, message: this.#message });
  }

  #alive(action: string): void {
    if (this.#isReleased) throw new Error(`${this.name}: ${action} after release`);
  }
}

/** Routes that know which are alive and keep nothing of those that are not, so that millions may come and go. */
export class FuzzRouter implements MsiRouter {
  /** Of the current operation; the checks take them. */
  readonly deliveries: Delivery[] = [];
  /** A fault to put in, so that a test can see it found. */
  readonly ignoresMasks: boolean;
  readonly #live: Map<number, FuzzRoute> = new Map();
  #nextFd = FIRST_FD;
  #depth = 0;

  constructor(ignoresMasks = false) {
    this.ignoresMasks = ignoresMasks;
  }

  get liveNames(): readonly string[] {
    return [...this.#live.values()].map((route) => route.name);
  }

  get liveCount(): number {
    return this.#live.size;
  }

  /** The live route with that eventfd. */
  byFd(eventFd: number): MsiRoute | undefined {
    return this.#live.get(eventFd);
  }

  allocate(name: string): MsiRoute {
    const route = new FuzzRoute(this, name, fd(this.#nextFd++));
    this.#live.set(route.eventFd, route);
    return route;
  }

  batch(work: () => void): void {
    this.#depth++;
    if (this.#depth > 8) throw new Error("batches nest without an end");
    try {
      work();
    } finally {
      this.#depth--;
    }
  }

  forget(route: MsiRoute): void {
    this.#live.delete(route.eventFd);
  }
}
