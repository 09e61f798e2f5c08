import type { LogSettings } from "./log.ts";
import type { MachineExit } from "./machine-exit.ts";
import type { Channel, LogLevel } from "./shared/messages.ts";
import type { DeviceStatistics } from "./shared/statistics.ts";
import type { ExitKind } from "./shared/vcpu-control.ts";

export type { MachineTrace, TraceOptions } from "./control/traces.ts";

/** Counters since start, over all resets of the guest. */
export interface MachineStatistics extends DeviceStatistics {
  /** Userspace exits by kind, all vCPUs together. */
  readonly exits: Readonly<Record<ExitKind, number>>;
  readonly resets: number;
}

export interface MachineOptions {
  /** Default: nothing is logged. */
  readonly log?: LogSettings;
  /**
   * Stops a start that is under way, for instance while a device's process is slow: it rejects with the signal's
   * reason.
   */
  readonly signal?: AbortSignal;
  /**
   * How long an end waits for the device thread without any progress of it, in milliseconds; 30,000 when absent. A
   * device's reset and the unpinning of RAM are progress. A thread that is still in a call of the kernel then is left
   * behind, and guest RAM stays in use with it.
   */
  readonly endTimeoutMs?: number;
  /** Default time of a `waitFor` on the machine's channels, in milliseconds; 60,000 when absent. */
  readonly waitTimeoutMs?: number;
}

/** What a machine tells its listeners, and the arguments. */
export interface MachineEvents {
  /** The guest was reset and starts anew. */
  reset: [];
  exit: [MachineExit];
  /** The serial port or console is a pty at this path. */
  pty: [channel: Channel, path: string];
  log: [level: LogLevel, text: string, details: Readonly<Record<string, unknown>> | undefined];
}
