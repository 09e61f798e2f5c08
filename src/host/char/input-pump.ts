type Take = (bytes: Uint8Array) => number;

/**
 * Hands input to a device that takes as much as it has room for, and keeps the rest until there is room again.
 * A source should add more only while {@link isIdle}.
 */
export class InputPump {
  readonly #onIdle: () => void;
  readonly #pending: Uint8Array[] = [];
  #take: Take | undefined;
  #isOffering = false;
  #isReadyAgain = false;

  /** @param onIdle Called when the device has taken everything, or has just come: the source may go on. */
  constructor(onIdle: () => void = () => undefined) {
    this.#onIdle = onIdle;
  }

  /** True when a device listens and everything so far was taken. */
  get isIdle(): boolean {
    return this.#take !== undefined && this.#pending.length === 0;
  }

  get pendingBytes(): number {
    return this.#pending.reduce((sum, bytes) => sum + bytes.length, 0);
  }

  /** Gives bytes to the device, or keeps them; they are not copied and must not change until they were taken. */
  add(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#pending.push(bytes);
    this.#offer();
  }

  /** As in CharBackend. */
  onInput(take: Take): void {
    this.#take = take;
    this.#offer();
    if (this.isIdle) this.#onIdle();
  }

  /** As in CharBackend. */
  inputReady(): void {
    if (this.#pending.length === 0) return;
    this.#offer();
    if (this.isIdle && !this.#isOffering) this.#onIdle();
  }

  #offer(): void {
    // A device may say that it has room while it is taking: then it is asked again, not from inside itself.
    this.#isReadyAgain = true;
    if (this.#isOffering || this.#take === undefined) return;
    this.#isOffering = true;
    try {
      while (this.#isReadyAgain) {
        this.#isReadyAgain = false;
        for (let bytes = this.#pending[0]; bytes !== undefined; bytes = this.#pending[0]) {
          const taken = this.#take(bytes);
          if (taken < bytes.length) {
            this.#pending[0] = bytes.subarray(taken);
            break;
          }
          this.#pending.shift();
        }
      }
    } finally {
      this.#isOffering = false;
    }
  }
}
