import type { Report } from "../../base/backends.ts";

/** Output that was lost: told when it begins, and how much it was when it is over. */
export class DroppedOutput {
  readonly #name: string;
  readonly #report: Report;
  #bytes = 0;

  /** @param name Whose output it is. */
  constructor(name: string, report: Report) {
    this.#name = name;
    this.#report = report;
  }

  add(bytes: number, reason: string): void {
    if (bytes === 0) return;
    if (this.#bytes === 0) this.#report("warn", `${this.#name}: output is being dropped: ${reason}`);
    this.#bytes += bytes;
  }

  /** What waited has been written: what is dropped from here on is another loss. */
  settle(): void {
    if (this.#bytes === 0) return;
    this.#report("warn", `${this.#name}: ${this.#bytes} bytes of output were dropped`);
    this.#bytes = 0;
  }
}
