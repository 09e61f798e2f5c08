const CTRL_A = 0x01;
const KEY_X = 0x78;

/**
 * Looks for Ctrl-A commands in what is typed: Ctrl-A x quits, Ctrl-A Ctrl-A is one Ctrl-A for the guest, Ctrl-A with
 * another key is passed on as typed. A Ctrl-A waits for the key after it, however long.
 */
export class EscapeKeys {
  readonly #onQuit: () => void;
  #isEscaped = false;

  constructor(onQuit: () => void) {
    this.#onQuit = onQuit;
  }

  /** @returns What the guest gets. */
  feed(bytes: Uint8Array): Uint8Array {
    if (!this.#isEscaped && !bytes.includes(CTRL_A)) return bytes;
    const passed: number[] = [];
    for (const byte of bytes) {
      if (!this.#isEscaped) {
        if (byte === CTRL_A) this.#isEscaped = true;
        else passed.push(byte);
        continue;
      }
      this.#isEscaped = false;
      if (byte === KEY_X) this.#onQuit();
      else if (byte === CTRL_A) passed.push(CTRL_A);
      else passed.push(CTRL_A, byte);
    }
    return Uint8Array.from(passed);
  }
}
