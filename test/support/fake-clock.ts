import type { Clock } from "../../src/base/backends.ts";

/** A clock that moves only when a test moves it. */
export class FakeClock implements Clock {
  #wallMs: number;
  #monotonicNs = 1_000_000_000n; // not zero, so that a device which forgets its start shows

  constructor(utc: string) {
    this.#wallMs = Date.parse(utc);
  }

  monotonicNs(): bigint {
    return this.#monotonicNs;
  }

  wallMs(): number {
    return this.#wallMs;
  }

  advanceMs(ms: number): void {
    this.#wallMs += ms;
    this.#monotonicNs += BigInt(Math.round(ms * 1_000_000));
  }
}
