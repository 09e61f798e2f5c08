import { isSameMessage, type MsiMessage, type MsiRoute, type MsiRouter } from "../base/signals.ts";

/** Told when the set of vectors a guest uses changes. A passed-through function arms the host's vectors from it. */
export interface VectorHost {
  /**
   * Called once per guest write that changes the set, after the routes were changed and before unused ones are
   * released.
   *
   * @param used The route of each vector that the guest has unmasked since it enabled this kind of interrupt. It stays
   *   there, masked or not, until disable. Empty places are `undefined`. A copy: it may be kept. As many places as the
   *   function may send messages: of MSI those that the guest enabled.
   */
  vectorsChanged(kind: "msi" | "msix", isEnabled: boolean, used: readonly (MsiRoute | undefined)[]): void;
  /**
   * Called after a guest write of the control word that changed nothing while the kind is enabled. A driver does that
   * after it has reset its device, which loses the bit.
   *
   * @param offset Of the control word in configuration space.
   */
  controlRewritten?(kind: "msi" | "msix", offset: number, control: number): void;
}

/** What a guest's registers say of one vector. */
export interface VectorState {
  readonly message: MsiMessage;
  readonly isMasked: boolean;
}

/** One vector as the guest has it, and its way to the guest; plain data. */
export interface VectorInspection {
  readonly index: number;
  /** By its own bit, or with all others of the function. */
  readonly isMasked: boolean;
  readonly isPending: boolean;
  readonly message: MsiMessage;
  /** The route's name; absent until the guest first unmasks the vector while this kind of interrupt is on. */
  readonly route?: string;
}

/** The vectors of a kind that a function has; plain data. */
export interface VectorsInspection {
  readonly isEnabled: boolean;
  /** How many the function offers. */
  readonly count: number;
  /** Those that the guest has given a message, has unmasked, or that are pending. */
  readonly vectors: readonly VectorInspection[];
}

/** Message-signalled interrupts of a function, by the capabilities it has; plain data. */
export interface FunctionVectors {
  readonly msi?: VectorsInspection;
  readonly msix?: VectorsInspection;
}

const NO_MESSAGE: MsiMessage = { addressLow: 0, addressHigh: 0, data: 0 };

const isEmpty = ({ addressLow, addressHigh, data }: MsiMessage): boolean =>
  addressLow === 0 && addressHigh === 0 && data === 0;

/**
 * The routes of a function's vectors: the half that MSI and MSI-X share. It makes routes agree with the guest's
 * registers.
 *
 * A vector takes a route when the guest first unmasks it while enabled. So a device with 2,048 vectors, of which the
 * guest uses three, costs three. Disabling masks and releases all, which forgets what was pending, as the specification
 * wants.
 */
export class VectorSet {
  readonly #kind: "msi" | "msix";
  readonly #name: string;
  readonly #router: MsiRouter;
  readonly #host: VectorHost | undefined;
  readonly #routes: (MsiRoute | undefined)[];
  readonly #messages: (MsiMessage | undefined)[]; // what each route was told last
  readonly #pending: Set<number> = new Set(); // signalled while masked and without a route
  #isEnabled = false;
  #places: number;

  /** @param name Of the function; routes are called `<name> msix 3`. */
  constructor(kind: "msi" | "msix", name: string, count: number, router: MsiRouter, host: VectorHost | undefined) {
    this.#kind = kind;
    this.#name = name;
    this.#router = router;
    this.#host = host;
    this.#routes = new Array(count).fill(undefined);
    this.#places = count;
    this.#messages = new Array(count).fill(undefined);
  }

  get isEnabled(): boolean {
    return this.#isEnabled;
  }

  /**
   * Makes the routes of vectors `first` to `end - 1` agree with the guest: one table update, at most one call to the
   * host.
   *
   * @param state What the registers say of a vector; `undefined` for one that cannot deliver at all.
   * @param places How many messages the guest lets the function send; all of them when absent.
   */
  sync(
    isEnabled: boolean,
    first: number,
    end: number,
    state: (vector: number) => VectorState | undefined,
    places: number = this.#routes.length,
  ): void {
    const retired: MsiRoute[] = [];
    const overdue: MsiRoute[] = [];
    let isChanged = isEnabled !== this.#isEnabled || (isEnabled && places !== this.#places);
    this.#isEnabled = isEnabled;
    this.#places = places;
    this.#router.batch(() => {
      for (let vector = first; vector < end; vector++) {
        const wanted = isEnabled ? state(vector) : undefined;
        const route = this.#routes[vector];
        if (wanted === undefined) {
          if (this.#retire(vector, retired)) isChanged = true;
        } else if (wanted.isMasked) {
          if (route !== undefined && !route.isMasked) route.mask();
        } else {
          if (route === undefined) isChanged = true;
          this.#open(vector, wanted.message, overdue);
        }
      }
    });
    // After the table update: an interrupt sent before it would have no way yet.
    for (const route of overdue) route.signal();
    if (isChanged) this.#host?.vectorsChanged(this.#kind, isEnabled, this.#routes.slice(0, places));
    if (retired.length > 0)
      this.#router.batch(() =>
        retired.forEach((route) => {
          route.release();
        }),
      );
  }

  /** Delivers the vector now, keeps it pending while masked, drops it while this kind of interrupt is disabled. */
  signal(vector: number): void {
    if (!this.#isEnabled || !(vector >= 0 && vector < this.#routes.length)) return;
    const route = this.#routes[vector];
    if (route === undefined) this.#pending.add(vector);
    else route.signal();
  }

  isPending(vector: number): boolean {
    return this.#pending.has(vector) || this.#routes[vector]?.isPending === true;
  }

  /** Pending bits of vectors `first` to `first + 31`, the first one in bit 0. */
  pendingWord(first: number): number {
    let word = 0;
    for (let bit = 0; bit < 32; bit++) if (this.isPending(first + bit)) word |= 1 << bit;
    return word >>> 0;
  }

  /**
   * Looks at the vectors that the guest has given a message, has unmasked, or that are pending.
   *
   * @param state What the registers say of a vector; `undefined` for one that cannot deliver at all.
   */
  inspect(state: (vector: number) => VectorState | undefined): readonly VectorInspection[] {
    const found: VectorInspection[] = [];
    for (const [index, route] of this.#routes.entries()) {
      const wanted = state(index);
      const isPending = this.isPending(index);
      const isTouched = wanted !== undefined && (!wanted.isMasked || !isEmpty(wanted.message));
      if (route === undefined && !isPending && !isTouched) continue;
      found.push({
        index,
        isMasked: wanted?.isMasked ?? true,
        isPending,
        message: wanted?.message ?? NO_MESSAGE,
        ...(route === undefined ? {} : { route: route.name }),
      });
    }
    return found;
  }

  /** Masks and takes away the route; it is released after the host has let go of it. */
  #retire(vector: number, retired: MsiRoute[]): boolean {
    this.#pending.delete(vector);
    const route = this.#routes[vector];
    if (route === undefined) return false;
    if (!route.isMasked) route.mask();
    retired.push(route);
    this.#routes[vector] = undefined;
    this.#messages[vector] = undefined;
    return true;
  }

  #open(vector: number, message: MsiMessage, overdue: MsiRoute[]): void {
    const route = this.#routes[vector] ?? this.#router.allocate(`${this.#name} ${this.#kind} ${vector}`);
    this.#routes[vector] = route;
    if (!isSameMessage(this.#messages[vector], message)) {
      this.#messages[vector] = message;
      route.setMessage(message);
    }
    if (route.isMasked) route.unmask();
    if (this.#pending.delete(vector)) overdue.push(route);
  }
}
