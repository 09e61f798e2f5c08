import { HostError } from "../../src/base/errors.ts";
import type { Doorbell, Doorbells } from "../../src/base/signals.ts";
import type { Gpa, Width } from "../../src/base/units.ts";

/** Doorbells kept in a list; {@link ring} plays the guest's write. */
export class FakeDoorbells implements Doorbells {
  /** How many there may be. */
  room: number = Number.POSITIVE_INFINITY;
  readonly #rings: { readonly address: number; readonly width: Width | 0; readonly onRing: () => void }[] = [];

  /** Addresses with a doorbell, ascending. */
  get addresses(): readonly number[] {
    return this.#rings.map((ring) => ring.address).sort((a, b) => a - b);
  }

  register(address: Gpa, width: Width | 0, onRing: () => void): Doorbell {
    if (this.#rings.length >= this.room) throw new HostError("TSVMM_HOST_CALL", "Cannot ring: no room");
    const entry = { address, width, onRing };
    this.#rings.push(entry);
    return {
      unregister: () => {
        const index = this.#rings.indexOf(entry);
        if (index >= 0) this.#rings.splice(index, 1);
      },
    };
  }

  /** Signals the doorbells at the address for that width; `false` when there is none and the write would trap. */
  ring(address: number, width: Width): boolean {
    const hits = this.#rings.filter((ring) => ring.address === address && (ring.width === 0 || ring.width === width));
    for (const hit of hits) hit.onRing();
    return hits.length > 0;
  }
}
