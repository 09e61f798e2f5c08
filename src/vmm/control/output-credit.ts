import { giveCredit, makeCredit } from "../shared/credit.ts";
import type { Channel } from "../shared/messages.ts";

/** Messages of one channel that may be on their way. Each has at most 64 KiB. */
const MESSAGES = 4;

/**
 * The credit that the device thread has for a guest's output. It is given back once a turn of the event loop: so a turn
 * takes no more output than that, however much the guest writes.
 */
export class OutputCredit {
  readonly words: Readonly<Record<Channel, Int32Array>> = {
    serial: makeCredit(MESSAGES),
    console: makeCredit(MESSAGES),
  };
  readonly #taken: Record<Channel, number> = { serial: 0, console: 0 };
  readonly #ring: () => void;
  #isPlanned = false;

  /** @param ring Wakes the device thread, which waits for credit. */
  constructor(ring: () => void) {
    this.#ring = ring;
  }

  /** A message was taken; call it before it is handed on, since that may throw. */
  took(channel: Channel): void {
    this.#taken[channel]++;
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    setImmediate(() => this.#giveBack());
  }

  #giveBack(): void {
    this.#isPlanned = false;
    let isWanted = false;
    for (const channel of ["serial", "console"] as const) {
      if (giveCredit(this.words[channel], this.#taken[channel])) isWanted = true;
      this.#taken[channel] = 0;
    }
    if (isWanted) this.#ring();
  }
}
