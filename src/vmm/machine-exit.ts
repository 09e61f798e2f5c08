/** How a machine ended. */
export interface MachineExit {
  /** What a process that ran nothing else should exit with: 0 after a guest power-off, 1 after a failure, a debug exit's status. */
  readonly status: number;
  readonly reason: "powerOff" | "reset" | "debugExit" | "stopped" | "quit" | "failed";
  /** One sentence for people. */
  readonly text: string;
  /** Set when `reason` is `failed`. */
  readonly error?: Error;
}

/** The guest's own choice of a status, as QEMU's isa-debug-exit computes it. */
export const debugExit = (value: number): MachineExit => {
  return {
    status: ((value << 1) | 1) & 0xff,
    reason: "debugExit",
    text: `the guest wrote ${value} to the debug exit port`,
  };
};

/** The end that an error makes. */
export const failure = (error: Error): MachineExit => ({ status: 1, reason: "failed", text: error.message, error });
