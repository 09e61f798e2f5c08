import type { MsiMessage, MsiRoute, MsiRouter } from "../../src/base/signals.ts";
import { type Fd, fd } from "../../src/base/units.ts";

/** One interrupt that reached the pretended local APIC. */
export interface FakeDelivery {
  readonly route: string;
  readonly message: MsiMessage;
}

/**
 * A route without eventfd and KVM. It keeps the rules of MsiRoute: it starts masked, keeps a signal while masked, and
 * delivers it once at unmask. It is stricter than a real one: use after release and unmasking without a message throw.
 */
export class FakeMsiRoute implements MsiRoute {
  readonly name: string;
  readonly eventFd: Fd = fd(-1);
  readonly #router: FakeMsiRouter;
  #message: MsiMessage | undefined;
  #isMasked = true;
  #isPending = false;
  #isReleased = false;

  constructor(router: FakeMsiRouter, name: string) {
    this.#router = router;
    this.name = name;
  }

  get isMasked(): boolean {
    return this.#isMasked;
  }

  get isPending(): boolean {
    return this.#isPending;
  }

  get isReleased(): boolean {
    return this.#isReleased;
  }

  /** The message set last. */
  get message(): MsiMessage | undefined {
    return this.#message;
  }

  setMessage(message: MsiMessage): void {
    this.#alive("setMessage");
    this.#message = message;
    this.#router.note("message", this);
  }

  mask(): void {
    this.#alive("mask");
    this.#isMasked = true;
    this.#router.note("mask", this);
  }

  unmask(): void {
    this.#alive("unmask");
    if (this.#message === undefined) throw new Error(`${this.name} was unmasked without a message`);
    this.#isMasked = false;
    this.#router.note("unmask", this);
    if (!this.#isPending) return;
    this.#isPending = false;
    this.#deliver();
  }

  signal(): void {
    this.#alive("signal");
    if (this.#isMasked) this.#isPending = true;
    else this.#deliver();
  }

  inject(): void {
    this.signal();
  }

  release(): void {
    this.#alive("release");
    this.#isReleased = true;
    this.#router.note("release", this);
  }

  #deliver(): void {
    if (this.#message === undefined) return;
    this.#router.log.push(`deliver ${this.name}`);
    this.#router.deliveries.push({ route: this.name, message: this.#message });
  }

  #alive(action: string): void {
    if (this.#isReleased) throw new Error(`${this.name}.${action} was called after release`);
  }
}

/** An MsiRouter for tests: records routes, deliveries, and in `log` what was done to which route in which order. */
export class FakeMsiRouter implements MsiRouter {
  /** Every route ever handed out, released ones too. */
  readonly routes: FakeMsiRoute[] = [];
  readonly deliveries: FakeDelivery[] = [];
  /**
   * "allocate gpu msix 3", "message …", "unmask …", "mask …", "release …", "deliver …", and "push" for each table
   * update.
   */
  readonly log: string[] = [];
  #depth = 0;
  #isDirty = false;

  /** Routes not yet released. */
  get live(): readonly FakeMsiRoute[] {
    return this.routes.filter((route) => !route.isReleased);
  }

  /** How often the routing table was pushed. */
  get pushes(): number {
    return this.log.filter((entry) => entry === "push").length;
  }

  allocate(name: string): FakeMsiRoute {
    const route = new FakeMsiRoute(this, name);
    this.routes.push(route);
    this.log.push(`allocate ${name}`);
    return route;
  }

  batch(work: () => void): void {
    this.#depth++;
    try {
      work();
    } finally {
      this.#depth--;
      if (this.#depth === 0) this.#push();
    }
  }

  /** The live route of that name. */
  route(name: string): FakeMsiRoute | undefined {
    return this.live.find((route) => route.name === name);
  }

  /** Called by the routes: an action that changes the table. */
  note(action: "message" | "mask" | "unmask" | "release", route: FakeMsiRoute): void {
    this.log.push(`${action} ${route.name}`);
    this.#isDirty = true;
    if (this.#depth === 0) this.#push();
  }

  #push(): void {
    if (!this.#isDirty) return;
    this.#isDirty = false;
    this.log.push("push");
  }
}
