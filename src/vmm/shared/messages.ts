import type { CpuStart } from "../../base/cpu-state.ts";
import type { Fd } from "../../base/units.ts";
import type { CpuidEntry } from "../../kvm/cpuid.ts";
import type { SpinLimits } from "./mailbox.ts";
import type { PlainError } from "./plain-error.ts";
import type { ReplyMessage, RequestMessage } from "./requests.ts";
import type { TraceEvent } from "./trace-event.ts";

/* Everything that crosses threads, apart from the shared words of mailbox.ts and vcpu-control.ts. Plain data only. */

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error";

/** A log line from any worker. */
export interface LogMessage {
  readonly kind: "log";
  readonly level: LogLevel;
  readonly text: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** What every worker is given beside its own data. */
export interface LoadingWorker {
  /**
   * How far the thread is: 0 until its code is loaded, then one of {@link STAGE}; behind it the words of
   * thread-progress.ts.
   */
  readonly stage: Int32Array;
}

export const STAGE = {
  loaded: 1,
  /** It has given back everything it had, and threads of its own have ended. */
  finished: 2,
} as const;

/** Called by a worker's entry file, when everything it imports is there and when it is done. */
export function announceStage({ stage }: LoadingWorker, reached: (typeof STAGE)[keyof typeof STAGE]): void {
  Atomics.store(stage, 0, reached);
  Atomics.notify(stage, 0);
}

/** Given to a worker when it is made; what it needs before the machine is known. */
export interface DeviceWorkerData {
  readonly mailboxes: SharedArrayBuffer;
  readonly doorbell: Fd;
  /**
   * One word, 1 once the machine is on its way out: for waits of the device thread, which reads no message meanwhile.
   */
  readonly stopping: Int32Array;
  /** `auto`: adaptive; `never`: a host with one CPU, where polling keeps the vCPU from running. */
  readonly pollMicroseconds: number | "auto" | "never";
  /** Words of credit.ts: messages of output that may be on their way. */
  readonly outputCredit: Readonly<Record<Channel, Int32Array>>;
  /** URLs of modules with factories of kinds that are not of this program. */
  readonly addedKinds: readonly string[];
}

export interface VcpuWorkerData {
  readonly index: number;
  readonly mailboxes: SharedArrayBuffer;
  readonly controls: SharedArrayBuffer;
  readonly doorbell: Fd;
  readonly spins: SpinLimits;
}

/** Control → device thread. Each is followed by a ring of the doorbell. */
export type ToDeviceThread =
  | RequestMessage
  | { readonly kind: "stop" } // take the devices apart and end the thread
  | { readonly kind: "input"; readonly channel: Channel; readonly bytes: Uint8Array }
  | { readonly kind: "powerButton" }
  | { readonly kind: "examine"; readonly device: string } // a function whose error was reported a while ago
  | { readonly kind: "resize"; readonly columns: number; readonly rows: number };

/** A character device that the typed API talks to. */
export type Channel = "serial" | "console";

/** Device thread → control. */
export type FromDeviceThread =
  | LogMessage
  | ReplyMessage
  | { readonly kind: "trace"; readonly event: TraceEvent }
  | { readonly kind: "failed"; readonly error: PlainError }
  | { readonly kind: "step"; readonly text: string } // what it does now, which may take long
  | { readonly kind: "guest"; readonly event: GuestEvent }
  | { readonly kind: "pty"; readonly channel: Channel; readonly path: string }
  | {
      readonly kind: "output";
      readonly channel: Channel;
      readonly bytes: Uint8Array;
      /** Lost between these bytes and the last ones. */
      readonly droppedBytes: number;
    };

/** What the guest, the person at its terminal or the host asked of the machine as a whole. */
export type GuestEvent =
  | { readonly kind: "powerOff" }
  | { readonly kind: "reset" }
  | { readonly kind: "debugExit"; readonly value: number }
  | { readonly kind: "quit" } // Ctrl-A x
  | { readonly kind: "outputClosed"; readonly channel: Channel }
  | { readonly kind: "deviceWanted"; readonly device: string } // by the host; the guest has been asked
  | { readonly kind: "deviceReleased"; readonly device: string } // it is the host's again
  | { readonly kind: "deviceErred"; readonly device: string } // it answered; to be looked at again
  | { readonly kind: "deviceFailed"; readonly device: string; readonly state: string }; // and the machine is to stop

/** Control → vCPU worker. */
export type ToVcpu =
  | {
      readonly kind: "run";
      readonly vcpuFd: Fd;
      readonly mmapSize: number;
      readonly cpuid: readonly CpuidEntry[];
      readonly hostCpus?: readonly number[];
      readonly start?: CpuStart;
    }
  | { readonly kind: "stop" };

/** vCPU worker → control. */
export type FromVcpu =
  | (LogMessage & { readonly level: Exclude<LogLevel, "trace"> })
  | { readonly kind: "stopped"; readonly reason: VcpuStop };

/** Why a vCPU left its run loop. */
export type VcpuStop =
  | { readonly kind: "asked" }
  | { readonly kind: "tripleFault" }
  | { readonly kind: "failed"; readonly error: PlainError };
