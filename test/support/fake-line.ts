import type { InterruptLine } from "../../src/base/signals.ts";
import { type Gsi, gsi } from "../../src/base/units.ts";

/** An interrupt pin that remembers its level and how often it rose. */
export class FakeLine implements InterruptLine {
  readonly name = "fake line";
  readonly gsi: Gsi;
  isHigh = false;
  rises = 0;

  constructor(pin = 11) {
    this.gsi = gsi(pin);
  }

  setLevel(isHigh: boolean): void {
    if (isHigh && !this.isHigh) this.rises++;
    this.isHigh = isHigh;
  }
}
