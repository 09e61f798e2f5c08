import type { CharBackend } from "../../base/backends.ts";
import { InputPump } from "./input-pump.ts";

/** Output goes nowhere, input never comes. */
export class CharNull implements CharBackend, Disposable {
  write(): void {}
  onInput(): void {}
  inputReady(): void {}
  close(): void {}

  [Symbol.dispose](): void {
    this.close();
  }
}

/** A character device whose other side is the program itself. */
export class CharApi implements CharBackend, Disposable {
  readonly #onOutput: (bytes: Uint8Array) => void;
  readonly #pump: InputPump = new InputPump();
  #isClosed = false;

  /** @param onOutput Gets what the guest writes; the bytes are valid during the call only. */
  constructor(onOutput: (bytes: Uint8Array) => void) {
    this.#onOutput = onOutput;
  }

  /** Bytes pushed that the guest has not taken yet: for a caller that wants to wait. */
  get pendingBytes(): number {
    return this.#pump.pendingBytes;
  }

  /** Gives the guest input. All of it is kept until the guest takes it; the bytes must not change meanwhile. */
  push(bytes: Uint8Array): void {
    if (!this.#isClosed) this.#pump.add(bytes);
  }

  write(bytes: Uint8Array): void {
    if (!this.#isClosed) this.#onOutput(bytes);
  }

  onInput(take: (bytes: Uint8Array) => number): void {
    this.#pump.onInput(take);
  }

  inputReady(): void {
    this.#pump.inputReady();
  }

  close(): void {
    this.#isClosed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
