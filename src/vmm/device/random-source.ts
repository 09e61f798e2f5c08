import { closeSync, openSync, readSync } from "node:fs";
import type { EntropyBackend } from "../../base/backends.ts";
import { openError } from "../../base/errors.ts";

/** A file that bytes nobody can predict are read from: /dev/urandom, or a hardware generator's node. */
export class RandomSource implements EntropyBackend {
  readonly #path: string;
  readonly #descriptor: number;

  /** @throws SpecError or HostError when it cannot be opened. */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#descriptor = openSync(path, "r");
    } catch (error) {
      throw openError("--rng", path, error);
    }
  }

  /** @throws Error when the source ends: silently weak randomness would be worse than a stopped machine. */
  fill(target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const count = readSync(this.#descriptor, target, done, target.length - done, null);
      if (count === 0) throw new Error(`Cannot read random bytes from ${this.#path}: the file has ended`);
      done += count;
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}
