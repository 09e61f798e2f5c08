/** What a message-signalled interrupt writes, and where. */
export interface Message {
  readonly addressLow: number;
  readonly addressHigh: number;
  readonly data: number;
}

/** What the guest's registers say of a vector; `undefined` for one that cannot send. */
export type VectorRegisters = { readonly message: Message; readonly isMasked: boolean } | undefined;

/**
 * What must hold of one kind of interrupt of one function. A vector is in use from its first unmask until its kind is
 * disabled. A signal reaches an unmasked vector's guest at once. A masked vector delivers it once, at the next unmask.
 * Disabling drops it.
 */
export class VectorsModel {
  readonly #isOn: () => boolean;
  readonly #registers: (vector: number) => VectorRegisters;
  readonly used: Set<number> = new Set();
  readonly pending: Set<number> = new Set();
  readonly count: number;

  constructor(count: number, isOn: () => boolean, registers: (vector: number) => VectorRegisters) {
    this.count = count;
    this.#isOn = isOn;
    this.#registers = registers;
  }

  get isOn(): boolean {
    return this.#isOn();
  }

  registers(vector: number): VectorRegisters {
    return vector >= 0 && vector < this.count ? this.#registers(vector) : undefined;
  }

  /** The guest changed registers of vectors `first` to `end - 1`. @returns Vectors whose pending signal is due now. */
  changed(first = 0, end: number = this.count): readonly number[] {
    if (!this.isOn) {
      this.used.clear();
      this.pending.clear();
      return [];
    }
    const due: number[] = [];
    for (let vector = first; vector < end; vector++) {
      const registers = this.#registers(vector);
      if (registers === undefined) {
        this.used.delete(vector);
        this.pending.delete(vector);
      } else if (!registers.isMasked) {
        this.used.add(vector);
        if (this.pending.delete(vector)) due.push(vector);
      }
    }
    return due;
  }

  /** The device signals a vector in use. @returns Whether it is due now. */
  signalled(vector: number): boolean {
    const registers = this.#registers(vector);
    if (!this.isOn || registers === undefined || !this.used.has(vector)) return false;
    if (!registers.isMasked) return true;
    this.pending.add(vector);
    return false;
  }
}
