import type { TraceSettings } from "../shared/requests.ts";
import { giveTraceCredit, makeTraceCredit, type WhenBehind } from "../shared/trace-credit.ts";
import type { TraceEvent } from "../shared/trace-event.ts";

/** How a trace is told. */
export interface TraceOptions {
  /**
   * What becomes of events when the listener is a thousand behind. `drop`, the default: they are dropped and counted,
   * and an event of kind `lost` tells where. `wait`: the device thread waits, so that none is lost and the guest runs
   * as slowly as the listener.
   */
  readonly whenBehind?: WhenBehind;
}

/** A trace that is on. */
export interface MachineTrace extends AsyncDisposable {
  /** Events dropped so far, as those of kind `lost` have told. */
  readonly lost: number;
  /** Resolves when the listener is told nothing more. Calling it twice is harmless. */
  stop(): Promise<void>;
}

interface Listener {
  readonly tell: (event: TraceEvent) => void;
  readonly whenBehind: WhenBehind;
  lost: number;
  /** Told until the device thread has answered. */
  isStopping: boolean;
}

/** Who listens to the trace; the device thread makes events while anybody does. Control thread. */
export class Traces {
  readonly #credit = makeTraceCredit();
  readonly #listeners = new Set<Listener>();
  readonly #change: (settings: TraceSettings | undefined) => Promise<void>;

  /** @param change Switches the device thread's trace, in the order of the calls; without settings off. */
  constructor(change: (settings: TraceSettings | undefined) => Promise<void>) {
    this.#change = change;
  }

  /**
   * The settings for the device thread; `undefined` without listeners. One listener that waits makes it wait for all.
   */
  get settings(): TraceSettings | undefined {
    const listeners = [...this.#listeners].filter(({ isStopping }) => !isStopping);
    if (listeners.length === 0) return undefined;
    const waits = listeners.some(({ whenBehind }) => whenBehind === "wait");
    return { credit: this.#credit, whenBehind: waits ? "wait" : "drop" };
  }

  /** Listens from now on. @throws HostError when the device thread has ended. */
  async listen(tell: (event: TraceEvent) => void, { whenBehind = "drop" }: TraceOptions = {}): Promise<MachineTrace> {
    const listener: Listener = { tell, whenBehind, lost: 0, isStopping: false };
    this.#listeners.add(listener);
    try {
      await this.#change(this.settings);
    } catch (error) {
      this.#listeners.delete(listener);
      throw error;
    }
    const stop = (): Promise<void> => this.#stop(listener);
    return {
      get lost() {
        return listener.lost;
      },
      stop,
      [Symbol.asyncDispose]: stop,
    };
  }

  /** Tells an event of the device thread, and lets it make another. */
  receive(event: TraceEvent): void {
    try {
      for (const listener of this.#listeners) {
        if (event.kind === "lost") listener.lost += event.count;
        listener.tell(event);
      }
    } finally {
      // What tells of a loss has taken no turn.
      if (event.kind !== "lost") giveTraceCredit(this.#credit);
    }
  }

  /**
   * Events that were sent before the device thread's answer are here before it, and told. A thread that has ended sends
   * no more either.
   */
  async #stop(listener: Listener): Promise<void> {
    listener.isStopping = true;
    if (this.#listeners.has(listener)) await this.#change(this.settings).catch(() => undefined);
    this.#listeners.delete(listener);
  }
}
