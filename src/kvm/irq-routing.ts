import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import { invariant } from "../base/invariant.ts";
import type { MsiMessage, MsiRoute, MsiRouter } from "../base/signals.ts";
import { type Fd, fd, type Gsi } from "../base/units.ts";
import { EventFd } from "../host/eventfd.ts";
import { type RoutingEntry, RoutingTable } from "./routing-table.ts";
import type { Vm } from "./vm.ts";

/** What {@link IrqRouting} asks of a machine. */
export type RoutingPort = Pick<Vm, "setGsiRouting" | "assignIrqfd" | "deassignIrqfd" | "signalMsi">;

/**
 * KVM's interrupt routes and their eventfds. Only the device thread may call it.
 *
 * Each route keeps the guest's wish (masked, message) beside the host's state (connected or not). One function makes
 * the second agree with the first. Connecting pushes the table first, then assigns the irqfd, so that no signal ever
 * meets a stale entry. Masking only takes the irqfd away: the entry stays, so that unmasking again does not push a
 * table that grows with the machine.
 *
 * The kernel or a vfio-user server also holds a passed-through device's eventfds. It can clear O_NONBLOCK, and empty or
 * fill the counter, between any two calls of ours. So they are neither read nor written here. Pending bits are polled.
 * KVM raises what it finds in an eventfd when it assigns the irqfd. Our own signals are KVM_SIGNAL_MSI. Devices of our
 * own, whose eventfds stay in this process, write them: 0.45 µs, against 0.7 µs for a poll before each write.
 */
export class IrqRouting implements MsiRouter {
  readonly #vm: RoutingPort;
  readonly #report: Report;
  readonly #table: RoutingTable;
  readonly #makeEvent: () => EventFd;
  readonly #waiting = new Set<Route>(); // to be connected at the end of the batch
  readonly #routes = new Set<Route>();
  #batchDepth = 0;
  #hasReportedShortage = false;
  #pushes = 0;

  /**
   * Puts the table of the bare machine in force, which wires the timer otherwise than KVM does by itself.
   *
   * @param limit How many routes KVM has: KVM_CAP_IRQ_ROUTING.
   * @throws SyscallError
   */
  constructor(vm: RoutingPort, limit: number, report: Report, makeEvent: () => EventFd = EventFd.create) {
    this.#vm = vm;
    this.#makeEvent = makeEvent;
    this.#report = report;
    this.#table = new RoutingTable(limit);
    this.#settle();
  }

  /** What KVM's table has, or gets at the end of the batch. */
  get entries(): readonly RoutingEntry[] {
    return this.#table.entries;
  }

  /** Every route that was allocated and not released, in that order. */
  get routes(): readonly RouteState[] {
    return [...this.#routes].map((route) => route.state);
  }

  /** How often the table was pushed to KVM. */
  get pushes(): number {
    return this.#pushes;
  }

  /**
   * Implements MsiRouter. A guest unmasks as many vectors as its devices have: a host without descriptors left must not
   * end it.
   */
  allocate(name: string): MsiRoute {
    const link: RouterLink = {
      changed: (route) => this.#changed(route),
      released: (route) => this.#routes.delete(route),
      shortage: () => this.#shortage(`No interrupt route is left for ${name}: it and later ones stay silent`, name),
    };
    let event: EventFd | undefined;
    try {
      event = this.#makeEvent();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#shortage(`${name} and later interrupts stay silent: ${error.message}`, name);
    }
    const route = new Route(name, event, this.#vm, this.#table, link);
    this.#routes.add(route);
    return route;
  }

  batch(work: () => void): void {
    this.#batchDepth++;
    try {
      work();
    } finally {
      this.#batchDepth--;
      if (this.#batchDepth === 0) this.#settle();
    }
  }

  /** A route's message or mask changed in a way that needs the table. */
  #changed(route: Route): void {
    this.#waiting.add(route);
    if (this.#batchDepth === 0) this.#settle();
  }

  #settle(): void {
    if (this.#table.isDirty) {
      this.#vm.setGsiRouting(this.#table.encode());
      this.#table.markPushed();
      this.#pushes++;
    }
    for (const route of this.#waiting) {
      this.#waiting.delete(route); // first: a route that cannot be connected is not tried again and again
      route.connect();
    }
  }

  #shortage(text: string, route: string): void {
    if (this.#hasReportedShortage) return;
    this.#hasReportedShortage = true;
    this.#report("error", text, { route });
  }
}

/** How a route is set up; plain data. */
export interface RouteState {
  readonly name: string;
  /** `undefined` before it has been connected once, and where none was left. */
  readonly gsi: number | undefined;
  /** KVM delivers signals of its eventfd now. */
  readonly isConnected: boolean;
  /** False where the host had none left: the route stays silent. */
  readonly hasEventFd: boolean;
}

/** What a route tells its router. */
interface RouterLink {
  changed(route: Route): void;
  released(route: Route): void;
  shortage(): void;
}

class Route implements MsiRoute {
  readonly name: string;
  readonly #vm: RoutingPort;
  readonly #table: RoutingTable;
  readonly #link: RouterLink;
  readonly #event: EventFd | undefined;
  // The guest's side.
  #isMasked = true;
  #message: MsiMessage | undefined;
  // The host's side.
  #gsi: Gsi | undefined;
  #isConnected = false;
  #isPending = false; // injected while disconnected, not yet delivered
  #isReleased = false;

  /** @param event Undefined where the host has none: the route stays silent. */
  constructor(name: string, event: EventFd | undefined, vm: RoutingPort, table: RoutingTable, link: RouterLink) {
    this.name = name;
    this.#event = event;
    this.#vm = vm;
    this.#table = table;
    this.#link = link;
  }

  get isMasked(): boolean {
    return this.#isMasked;
  }

  /**
   * Looks into the eventfd at that moment. Watching it instead would wake the device thread for a bit that few guests
   * read. It would also lag behind a guest that reads at once.
   */
  get isPending(): boolean {
    return this.#isPending || (!this.#isConnected && !this.#isReleased && this.#event?.isSignalled === true);
  }

  get eventFd(): Fd {
    return this.#event?.fd ?? fd(-1);
  }

  get state(): RouteState {
    return { name: this.name, gsi: this.#gsi, isConnected: this.#isConnected, hasEventFd: this.#event !== undefined };
  }

  setMessage(message: MsiMessage): void {
    this.#check("setMessage");
    this.#message = message;
    if (!this.#isMasked) this.#wantConnection(message);
  }

  unmask(): void {
    this.#check("unmask");
    if (!this.#isMasked) return;
    this.#isMasked = false;
    if (this.#message !== undefined) this.#wantConnection(this.#message);
  }

  /**
   * Takes the irqfd away. The race with a signal has two orders. A signal before the irqfd is gone is raised: KVM
   * finishes what it has seen and empties the eventfd in the same step. A signal afterwards stays in the eventfd.
   */
  mask(): void {
    this.#check("mask");
    this.#isMasked = true;
    this.#disconnect();
  }

  /** A write to the eventfd either way: KVM takes it while connected, it waits there otherwise. */
  signal(): void {
    this.#check("signal");
    this.#event?.signal();
  }

  inject(): void {
    this.#check("inject");
    if (this.#event === undefined) return;
    if (this.#isConnected && this.#message !== undefined) this.#vm.signalMsi(this.#message);
    else this.#isPending = true;
  }

  release(): void {
    if (this.#isReleased) return;
    this.#isMasked = true;
    this.#disconnect();
    if (this.#gsi !== undefined) this.#table.releaseGsi(this.#gsi);
    this.#gsi = undefined;
    this.#isPending = false;
    this.#isReleased = true;
    this.#link.released(this);
    this.#event?.close();
  }

  #wantConnection(message: MsiMessage): void {
    if (this.#event === undefined) return;
    this.#gsi ??= this.#table.takeGsi();
    if (this.#gsi === undefined) {
      this.#link.shortage();
      return;
    }
    this.#table.setMessage(this.#gsi, message);
    this.#link.changed(this);
  }

  /**
   * Called by the router once KVM has the table; a no-op when the guest masked the route again in the same batch.
   *
   * KVM raises what waits in the eventfd as it assigns the irqfd, as one interrupt however many signals it was
   * (kvm_irqfd_assign). The count stays there until the next signal or until the irqfd goes, when KVM sets it to zero.
   */
  connect(): void {
    if (this.#isMasked || this.#isConnected || this.#gsi === undefined) return;
    // Where the eventfd has a count too, KVM's own interrupt is the one: it comes from a work queue, at any time.
    const isOwnToRaise = this.#isPending && this.#event?.isSignalled !== true;
    this.#vm.assignIrqfd(this.eventFd, this.#gsi);
    this.#isConnected = true;
    if (isOwnToRaise && this.#message !== undefined) this.#vm.signalMsi(this.#message);
    this.#isPending = false;
  }

  #disconnect(): void {
    if (!this.#isConnected || this.#gsi === undefined) return;
    this.#vm.deassignIrqfd(this.eventFd, this.#gsi);
    this.#isConnected = false;
  }

  #check(call: string): void {
    invariant(!this.#isReleased, `${call} on the released interrupt route ${this.name}`);
  }
}
