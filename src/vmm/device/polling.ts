/** Sleeps without polling after the processor was lost: at first, and at most. */
const FIRST_PAUSE = 64;
const LONGEST_PAUSE = 4096;
/** What finding work saves against being woken for it, in microseconds: an exit takes 5.5 one way and 10 the other. */
const SAVED_BY_FINDING = 5;

/**
 * How long the device thread keeps looking for the next access before it sleeps.
 *
 * Adaptive, like KVM halt polling: doubles after a sleep shorter than the maximum window, halves after a longer one. A
 * guest that works its devices is answered without a wake-up; an idle one costs nothing.
 *
 * Between looks the thread yields. If another program waits for the CPU, a yield costs a time slice of the scheduler,
 * some 3 ms. A wake-up would have answered the request in 100 µs. If a yield takes longer than the maximum window,
 * another program had the CPU. Polling is then disabled for a number of sleeps, which doubles each time (64 to 4096).
 * Exception: polling has saved more time since the last loss than the yield cost (5 µs per request found).
 */
export class PollWindow {
  readonly #maximum: number;
  readonly #isFixed: boolean;
  #microseconds: number;
  /** Sleeps until polling is tried again, and how many there will be after the next loss. */
  #sleepsLeft = 0;
  #nextPause = FIRST_PAUSE;
  /** Microseconds that polling has saved since the processor was lost last. */
  #saved = 0;

  /**
   * @param maximum Microseconds; 0 for never polling.
   * @param isFixed The window is always `maximum`.
   */
  constructor(maximum: number, isFixed: boolean) {
    this.#maximum = maximum;
    this.#isFixed = isFixed;
    this.#microseconds = isFixed ? maximum : 0;
  }

  /** The window now. */
  get microseconds(): number {
    return this.#microseconds;
  }

  /** Tells how long nothing was to be done before a sleep ended, from the last work to the next, in microseconds. */
  slept(microseconds: number): void {
    if (this.#isFixed) return;
    if (this.#sleepsLeft > 0) {
      this.#sleepsLeft--;
      return;
    }
    if (this.#nextPause > FIRST_PAUSE) this.#nextPause--;
    if (microseconds <= this.#maximum)
      this.#microseconds = Math.min(this.#maximum, Math.max(this.#maximum / 8, this.#microseconds * 2));
    else this.#microseconds = this.#microseconds < this.#maximum / 8 ? 0 : this.#microseconds / 2;
  }

  /** Tells that a look within the window found work. */
  found(): void {
    this.#saved += SAVED_BY_FINDING;
  }

  /** Tells how long a yield between two looks took, in microseconds. */
  yielded(microseconds: number): void {
    if (this.#isFixed || microseconds <= this.#maximum) return;
    const hasPaid = this.#saved >= microseconds;
    this.#saved = 0;
    if (hasPaid) {
      this.#nextPause = FIRST_PAUSE;
      return;
    }
    this.#microseconds = 0;
    this.#sleepsLeft = this.#nextPause;
    this.#nextPause = Math.min(LONGEST_PAUSE, this.#nextPause * 2);
  }
}

/**
 * Looks at the mailboxes that the longest automatic window takes; some 100 µs on a fast host, more on a slow one, as it
 * should.
 */
const LOOKS_OF_WINDOW = 4000;
/**
 * Looks timed together, and how often: the quickest counts, since a thread that loses its processor meanwhile is as
 * slow as no host is.
 */
const LOOKS_OF_SAMPLE = 200;
const SAMPLES = 10;

/**
 * The longest automatic window on this host, in microseconds: the time of a number of looks. A fixed time would be far
 * too short where everything is slow (an emulated host) and so never pay there.
 *
 * @param look One look at the mailboxes.
 * @param now Microseconds that never go back.
 */
export function calibrateWindow(look: () => void, now: () => number): number {
  let quickest = Number.POSITIVE_INFINITY;
  for (let sample = 0; sample < SAMPLES; sample++) {
    const started = now();
    for (let i = 0; i < LOOKS_OF_SAMPLE; i++) look();
    quickest = Math.min(quickest, now() - started);
  }
  return Math.min((quickest * LOOKS_OF_WINDOW) / LOOKS_OF_SAMPLE, 5000);
}
