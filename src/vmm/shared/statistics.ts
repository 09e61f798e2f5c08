/** Counters of the device thread. */
export interface DeviceStatistics {
  /** Trapped accesses by the name of what answered; `(unclaimed)` for none. */
  readonly accesses: Readonly<Record<string, number>>;
  readonly functions: readonly FunctionStatistics[];
}

/** What a function tells about itself: for passed-through ones, interrupts and mappings. */
export interface FunctionStatistics {
  readonly name: string;
  readonly counters: Readonly<Record<string, number | string>>;
}
