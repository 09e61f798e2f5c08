import { HostError } from "../base/errors.ts";
import type { GuestEvent } from "./shared/messages.ts";

/** How a machine ended. */
export interface MachineExit {
  /**
   * What a process that ran nothing else should exit with: 0 after a guest power-off, 1 after a failure, a debug exit's
   * status.
   */
  readonly status: number;
  readonly reason: "powerOff" | "reset" | "debugExit" | "stopped" | "quit" | "failed";
  /** One sentence that says why. */
  readonly text: string;
  /** Set when `reason` is `failed`. */
  readonly error?: Error;
}

/** The end that guest or user asked for. */
export function exitOf(
  event: Extract<GuestEvent, { kind: "powerOff" | "debugExit" | "quit" | "outputClosed" }>,
): MachineExit {
  switch (event.kind) {
    case "powerOff":
      return { status: 0, reason: "powerOff", text: "the guest powered off" };
    case "debugExit": {
      // As QEMU's isa-debug-exit computes it.
      const status = ((event.value << 1) | 1) & 0xff;
      return { status, reason: "debugExit", text: `the guest wrote ${event.value} to the debug exit port` };
    }
    case "quit":
      return { status: 0, reason: "quit", text: "quit from the terminal" };
    case "outputClosed":
      return { status: 0, reason: "stopped", text: `the ${event.channel} has no reader any more` };
    default:
      return event satisfies never;
  }
}

const SILENT_TRIPLE_FAULT =
  "the guest triple-faulted before it touched any device; is the kernel built for this machine?";

/** The error of a guest that takes a triple fault before its first access to a device. */
export const silentTripleFault = (kernel: string): HostError =>
  new HostError("TSVMM_TRIPLE_FAULT", `Cannot boot ${kernel}: ${SILENT_TRIPLE_FAULT}`);

/** The end that an error makes. */
export const failure = (error: Error): MachineExit => ({ status: 1, reason: "failed", text: error.message, error });

/** The same end with more to say about it. */
export const withMore = (exit: MachineExit, text: string): MachineExit => ({ ...exit, text: `${exit.text}; ${text}` });
