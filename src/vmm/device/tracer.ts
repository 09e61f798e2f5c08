import type { TraceSettings } from "../shared/requests.ts";
import { takeTraceCredit, traceGate } from "../shared/trace-credit.ts";
import type { TraceEvent } from "../shared/trace-event.ts";

/**
 * The trace's switch on the device thread, off at first. What is wired through `trace.ts` looks here at each step:
 * `tracer.emit?.({ … })` makes no event while it is off.
 */
export class Tracer {
  /** Takes an event; `undefined` while the trace is off. */
  emit: ((event: TraceEvent) => void) | undefined;
  readonly #post: (event: TraceEvent) => void;
  #lost = 0;

  /** @param post Sends an event to the control thread. */
  constructor(post: (event: TraceEvent) => void) {
    this.#post = post;
  }

  /**
   * Switches the trace on, over or, without settings, off. What was lost until then is told first, whether there is
   * room or not.
   */
  set(settings: TraceSettings | undefined): void {
    if (this.#lost > 0) this.#tellLost();
    this.emit = settings === undefined ? undefined : this.#emitter(settings);
  }

  #emitter({ credit, whenBehind }: TraceSettings): (event: TraceEvent) => void {
    if (whenBehind === "wait") {
      const waitForTurn = traceGate(credit);
      return (event) => {
        waitForTurn();
        this.#post(event);
      };
    }
    return (event) => {
      if (!takeTraceCredit(credit)) {
        this.#lost++;
        return;
      }
      if (this.#lost > 0) this.#tellLost();
      this.#post(event);
    };
  }

  #tellLost(): void {
    const count = this.#lost;
    this.#lost = 0;
    this.#post({ kind: "lost", count });
  }
}
