import type { Fd } from "../../base/units.ts";
import type { StoragePort } from "../../host/disk/storage-ring.ts";
import type { GuestRamAttachment } from "../../host/memory/guest-ram.ts";
import type { MemoryLayout } from "./memory-map.ts";
import type { PlainError } from "./plain-error.ts";
import type { MachinePlan } from "./plan.ts";
import type { ResolvedMachine } from "./resolved-machine.ts";
import type { DeviceSnapshot } from "./snapshot.ts";
import type { DeviceStatistics } from "./statistics.ts";
import type { WhenBehind } from "./trace-credit.ts";

/*
 * What the control thread asks of the device thread, each with its answer. A request carries a token, and its reply the
 * same. Requests are answered in the order they were sent. Each gets one reply, unless the thread ends before. Plain
 * data only.
 */

/** KVM's descriptors of a power cycle; the control thread owns them. */
export interface MachineFiles {
  readonly kvm: Fd;
  readonly vm: Fd;
  /** The boot processor's; its own thread runs it. */
  readonly vcpu: Fd;
}

/** Storage workers of the writable disks, by the disk's id. */
export type StoragePorts = Readonly<Record<string, StoragePort>>;

/** What a power cycle's devices are made of. */
export interface BuildParts {
  readonly machine: ResolvedMachine;
  readonly files: MachineFiles;
  readonly ram: GuestRamAttachment;
  readonly layout: MemoryLayout;
}

/** How events of the trace are sent. */
export interface TraceSettings {
  /** See trace-credit.ts. */
  readonly credit: Int32Array;
  readonly whenBehind: WhenBehind;
}

/** Requests by name: what is asked, and what is answered. */
export interface DeviceRequests {
  /** Makes the devices of one power cycle; refused with a SpecError or HostError, and nothing is left then. */
  readonly build: { readonly asks: BuildParts & { readonly storage: StoragePorts }; readonly answer: MachinePlan };
  /**
   * The guest starts: files that its output goes to are emptied. Refused with nothing emptied when one is another
   * file's.
   */
  readonly begin: { readonly asks: undefined; readonly answer: undefined };
  /** Takes the devices apart, keeps the host's ends. The vCPUs have stopped. Answers the counters of the cycle. */
  readonly dismantle: { readonly asks: undefined; readonly answer: DeviceStatistics };
  readonly statistics: { readonly asks: undefined; readonly answer: DeviceStatistics };
  /** Looks at everything; refused while there is no power cycle. */
  readonly snapshot: { readonly asks: undefined; readonly answer: DeviceSnapshot };
  /**
   * Switches the trace on, over or, without settings, off; it outlives the power cycle. What was traced until then is
   * sent before the reply.
   */
  readonly trace: { readonly asks: TraceSettings | undefined; readonly answer: undefined };
}

export type RequestName = keyof DeviceRequests;
export type Asks<Name extends RequestName> = DeviceRequests[Name]["asks"];
export type Answer<Name extends RequestName> = DeviceRequests[Name]["answer"];

/** Control → device thread. With a union of names it is the union of their messages. */
export type RequestMessage<Name extends RequestName = RequestName> = {
  readonly [One in Name]: {
    readonly kind: "request";
    readonly token: number;
    readonly name: One;
    readonly asks: Asks<One>;
  };
}[Name];

/** Device thread → control. */
export type ReplyMessage =
  | { readonly kind: "reply"; readonly token: number; readonly answer: Answer<RequestName> }
  | { readonly kind: "refusal"; readonly token: number; readonly error: PlainError };

/** How the device thread carries each request out; what a handler throws is the refusal. */
export type RequestHandlers = { readonly [Name in RequestName]: (asks: Asks<Name>) => Answer<Name> };
