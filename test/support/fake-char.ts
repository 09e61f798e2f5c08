import type { CharBackend } from "../../src/base/backends.ts";

/** A character backend that a test types into and reads from. */
export class FakeChar implements CharBackend {
  /** One element for each call of `write`. */
  readonly writes: string[] = [];
  isClosed = false;
  #take: (bytes: Uint8Array) => number = () => 0;
  #waiting: Uint8Array = new Uint8Array(0);

  /** Everything written, joined. */
  get text(): string {
    return this.writes.join("");
  }

  /** How many typed bytes the device has not taken yet. */
  get waitingBytes(): number {
    return this.#waiting.length;
  }

  /** Offers text to the device; what it refuses waits for {@link inputReady}. */
  type(text: string): void {
    this.#waiting = Uint8Array.from([...this.#waiting, ...new TextEncoder().encode(text)]);
    this.inputReady();
  }

  write(bytes: Uint8Array): void {
    this.writes.push(new TextDecoder().decode(bytes));
  }

  onInput(take: (bytes: Uint8Array) => number): void {
    this.#take = take;
  }

  inputReady(): void {
    if (this.#waiting.length > 0) this.#waiting = this.#waiting.slice(this.#take(this.#waiting));
  }

  close(): void {
    this.isClosed = true;
  }
}
