import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import { NODE_TIMERS, type Timers } from "../../base/timers.ts";
import { holderText, takersOfDevices } from "../../host-pci/open-files.ts";
import type { GuestEvent } from "../shared/messages.ts";

/** Whether the machine goes on while the host waits for a device that the guest keeps. */
export type UnbindPolicy = "wait" | "stop";

export interface RemovalWatchParts {
  readonly report: Report;
  /** The machine has to be stopped, since that gives the device back for certain; called with what to say. */
  readonly onFailure: (error: HostError) => void;
  /** Asks the device thread to look at a function again. */
  readonly lookAgain: (device: string) => void;
  readonly policyOf: (device: string) => UnbindPolicy;
  /** Who waits on the host: "process 77 (bash)"; `undefined` where it is not seen. */
  readonly whoWaits?: () => string | undefined;
  readonly timers?: Timers;
}

/** What the device thread tells of a device that goes, or may have to. */
export type DeviceEvent = Extract<GuestEvent, { readonly device: string }>;

/** One line in so many seconds says who waits; the kernel repeats its request as often. */
const LINE_SECONDS = 10;
/** With `on-unbind=stop`: an operating system needs milliseconds to let go of a device, one that boots some seconds. */
const GRACE_SECONDS = 30;
/** The kernel resets the link after ERR, and a device may take one second to answer. PCI Express Base 3.0 §6.6.1 */
const SECOND_LOOK_SECONDS = 2;

/**
 * Timers for devices that leave. It reports who waits for a device that the guest keeps. With `on-unbind=stop` it stops
 * the machine for it. It requests the second look at a function after an error. Control thread.
 */
export class RemovalWatch {
  readonly #parts: RemovalWatchParts;
  readonly #timers: Timers;
  readonly #waits = new Map<string, unknown>();
  readonly #looks = new Map<string, unknown>();

  constructor(parts: RemovalWatchParts) {
    this.#parts = parts;
    this.#timers = parts.timers ?? NODE_TIMERS;
  }

  take(event: DeviceEvent): void {
    const { device } = event;
    switch (event.kind) {
      case "deviceWanted": // the wait counts from the first request, however often the host asks
        if (!this.#waits.has(device)) this.#wait(device, 0);
        return;
      case "deviceErred":
        if (!this.#looks.has(device)) this.#lookLater(device);
        return;
      case "deviceReleased":
        return this.#forget(device);
      case "deviceFailed":
        return this.#parts.onFailure(
          new HostError("TSVMM_DEVICE_FAILED", `Cannot go on with ${device}: ${event.state}`),
        );
      default:
        return event satisfies never;
    }
  }

  /** The machine is taken apart, and with it everything goes back. */
  stopAll(): void {
    for (const device of [...this.#waits.keys(), ...this.#looks.keys()]) this.#forget(device);
  }

  #forget(device: string): void {
    for (const timers of [this.#waits, this.#looks]) {
      if (timers.has(device)) this.#timers.clear(timers.get(device));
      timers.delete(device);
    }
  }

  #lookLater(device: string): void {
    const look = (): void => {
      this.#looks.delete(device);
      this.#parts.lookAgain(device);
    };
    this.#looks.set(device, this.#timers.set(look, SECOND_LOOK_SECONDS * 1000));
  }

  #wait(device: string, seconds: number): void {
    const { policyOf, onFailure } = this.#parts;
    const next = (): void => {
      const waited = seconds + LINE_SECONDS;
      if (policyOf(device) === "wait" || waited < GRACE_SECONDS) {
        this.#tell(device, waited);
        return this.#wait(device, waited);
      }
      this.#waits.delete(device);
      const state = `the host wants it back, and the guest did not let go of it in ${waited} s`;
      onFailure(new HostError("TSVMM_REMOVAL_OVERDUE", `Cannot go on without ${device}: ${state}`));
    };
    this.#waits.set(device, this.#timers.set(next, LINE_SECONDS * 1000));
  }

  #tell(device: string, seconds: number): void {
    const { report, whoWaits = seenWaiter } = this.#parts;
    const who = whoWaits() ?? "the host";
    const advice = "remove it in the guest, or stop the machine";
    report(
      "warn",
      `${device}: ${who} has waited ${seconds} s for it; the guest keeps it and is asked again (${advice})`,
    );
  }
}

const seenWaiter = (): string | undefined => takersOfDevices().map(holderText)[0];
