/** What the nested host tells through its port, in order. */
export type LabEvent =
  | { readonly kind: "ready"; readonly text: string }
  | { readonly kind: "problem"; readonly text: string }
  | { readonly kind: "begin"; readonly scenario: string }
  | { readonly kind: "output"; readonly bytes: Buffer }
  | { readonly kind: "end"; readonly scenario: string; readonly status: number }
  | { readonly kind: "done" };

const NEWLINE = 0x0a;

/**
 * Parses the nested host's reports. Lines that begin with the byte 0x1e and this run's token are reports; all else is
 * output of the running scenario. Both come through one port, so their order is known.
 */
export class ReportStream {
  readonly #marker: Buffer;
  readonly #onEvent: (event: LabEvent) => void;
  #pending: Buffer = Buffer.alloc(0);

  constructor(token: string, onEvent: (event: LabEvent) => void) {
    this.#marker = Buffer.from(`\x1e${token} `);
    this.#onEvent = onEvent;
  }

  /** Takes the next bytes, cut anywhere. */
  push(chunk: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    while (this.#pending.length > 0) {
      const start = this.#pending.indexOf(this.#marker);
      if (start > 0 || start < 0) {
        // Without a marker, hold back what may be the beginning of one.
        const length = start > 0 ? start : this.#pending.length - this.#heldBack();
        if (length === 0) return;
        this.#onEvent({ kind: "output", bytes: this.#pending.subarray(0, length) });
        this.#pending = this.#pending.subarray(length);
        continue;
      }
      const end = this.#pending.indexOf(NEWLINE, this.#marker.length);
      if (end < 0) return;
      this.#report(this.#pending.toString("utf8", this.#marker.length, end));
      this.#pending = this.#pending.subarray(end + 1);
    }
  }

  /** How many bytes at the end of what is pending could begin a marker. */
  #heldBack(): number {
    const start = this.#pending.lastIndexOf(this.#marker.subarray(0, 1));
    if (start < 0) return 0;
    const tail = this.#pending.subarray(start);
    return tail.length < this.#marker.length && this.#marker.subarray(0, tail.length).equals(tail) ? tail.length : 0;
  }

  #report(line: string): void {
    const [kind = "", first = "", second = ""] = line.split(" ");
    const text = line.slice(kind.length + 1);
    if (kind === "ready" || kind === "problem") this.#onEvent({ kind, text });
    else if (kind === "begin") this.#onEvent({ kind, scenario: first });
    else if (kind === "end") this.#onEvent({ kind, scenario: first, status: Number.parseInt(second, 10) });
    else if (kind === "done") this.#onEvent({ kind });
  }
}
