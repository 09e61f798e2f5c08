import type { Report } from "../../../base/backends.ts";
import type { PciRoot, PluggedFunction } from "../../../pci/root.ts";
import type { AcpiPm } from "../../../platform/acpi-pm.ts";
import type { GuestEvent } from "../../shared/messages.ts";
import type { PassedFunction, PassedFunctions } from "./passed-functions.ts";

/** What removals are made of. */
export interface RemovalParts {
  readonly root: Pick<PciRoot, "functions" | "unplug">;
  readonly acpi: Pick<AcpiPm, "requestEject">;
  readonly passed: Pick<PassedFunctions, "of" | "release">;
  /** Runs work outside a guest's access. */
  readonly defer: (work: () => void) => void;
  readonly report: Report;
  readonly onEvent: (event: GuestEvent) => void;
}

/** What becomes of a function whose error the host reports. `report`: it stays as long as it answers. */
export type ErrorPolicy = "report" | "pull" | "stop";

/**
 * Takes passed-through functions away from a running guest, for three reasons:
 *
 * - The host wants one back (REQ: its driver is unbound, and the kernel waits). The guest gets an ACPI eject request
 *   for the slot. When it ejects, all functions of the slot go back. Each REQ repeats the request, since a guest that
 *   boots may not have read it. RemovalWatch on the control thread reports the wait; it receives `deviceWanted` and
 *   `deviceReleased`. A function that does not answer is removed at once: it was pulled, and the host only tidies up.
 * - The host reports an error (ERR), and the function is examined. The kernel signals ERR for non-fatal errors and for
 *   errors of a sibling below the same port (Linux drivers/pci/pcie/err.c). So a function that answers stays. One that
 *   does not answer is pulled: reads give all ones, and its DMA and interrupts end with its release. The guest gets an
 *   eject request. The kernel may reset the link only after ERR, so RemovalWatch requests a second look. A device of
 *   another process whose server is lost is pulled too.
 * - The guest ejects a slot by itself.
 *
 * Device thread only.
 */
export class Removals {
  readonly #parts: RemovalParts;
  readonly #wanted = new Set<string>();

  constructor(parts: RemovalParts) {
    this.#parts = parts;
  }

  /** REQ. */
  hostWants(id: string): void {
    const { report, onEvent, acpi } = this.#parts;
    const [plugged, passed] = this.#plugged(id);
    if (plugged === undefined || passed === undefined) return; // on its way already
    const isFirst = !this.#wanted.has(id);
    this.#wanted.add(id);
    if (isFirst) onEvent({ kind: "deviceWanted", device: id });
    if (!passed.function.isPresent()) {
      return this.#pull(id, (name) => `${name} does not answer: it was pulled out, or its link is down`);
    }
    if (isFirst) {
      report("warn", `${id}: the host wants ${plugged.function.name} back; the guest is asked to let go of it`);
    }
    acpi.requestEject(plugged.bdf.device);
  }

  /** ERR. */
  hostReportsError(id: string, policy: ErrorPolicy = "report"): void {
    const [plugged, passed] = this.#plugged(id);
    if (plugged === undefined || passed === undefined) return;
    if (policy === "pull") return this.#pull(id, (name) => `the host reports an error of ${name}`);
    if (policy === "stop") {
      const state = `the host reports an error of ${plugged.function.name}`;
      return this.#parts.onEvent({ kind: "deviceFailed", device: id, state });
    }
    if (this.#look(id, passed, "the host reports an error")) this.#parts.onEvent({ kind: "deviceErred", device: id });
  }

  /** The second look at a function whose error was reported, when the kernel has had time to reset its link. */
  lookAgain(id: string): void {
    const [, passed] = this.#plugged(id);
    if (passed !== undefined) this.#look(id, passed, undefined);
  }

  /** The process behind a device has ended, hangs, or cannot be understood. Not during an access to the device. */
  serverLost(id: string, reason: string): void {
    this.#pull(id, (name) => `${name} was lost: ${reason}`);
  }

  /** The guest's `_EJ0`. Slots of other devices are not listed as ejectable, but a guest can write anything. */
  guestEjects(slot: number): void {
    for (const plugged of this.#parts.root.functions) {
      const passed = plugged.bdf.device === slot ? this.#parts.passed.of(plugged.function) : undefined;
      if (passed === undefined) continue;
      this.#parts.report("info", `${passed.id}: the guest has let go of ${plugged.function.name}`);
      this.#take(plugged, passed);
    }
  }

  /** @returns Whether the function stays. */
  #look(id: string, { function: fn }: PassedFunction, event: string | undefined): boolean {
    const { report } = this.#parts;
    const signs = fn.examine();
    if (!signs.isAnswering) {
      this.#pull(id, (name) => `${name} does not answer after an error: ${signs.found}`);
      return false;
    }
    if (event !== undefined) {
      report("warn", `${id}: ${event} of ${fn.name}; it answers, and stays: ${signs.found}`, fn.hostEvents);
    }
    if (signs.wasReset) {
      const state = "was reset without the guest, and its decode is on again";
      report("warn", `${id}: ${fn.name} ${state}; the guest's driver has to set it up anew`);
    }
    return true;
  }

  #pull(id: string, why: (name: string) => string): void {
    const { report, acpi } = this.#parts;
    const [plugged, passed] = this.#plugged(id);
    if (plugged === undefined || passed === undefined) return;
    report("error", `${id}: ${why(plugged.function.name)}; it is taken from the guest`);
    this.#take(plugged, passed);
    acpi.requestEject(plugged.bdf.device);
  }

  #plugged(id: string): readonly [PluggedFunction, PassedFunction] | readonly [] {
    for (const plugged of this.#parts.root.functions) {
      const passed = this.#parts.passed.of(plugged.function);
      if (passed?.id === id) return [plugged, passed];
    }
    return [];
  }

  /** Off the bus at once; given back when the guest's access is over, since that can take as long as a reset. */
  #take({ bdf }: PluggedFunction, taken: PassedFunction): void {
    const { root, passed, defer, report, onEvent } = this.#parts;
    root.unplug(bdf.device, bdf.function);
    defer(() => {
      passed.release(taken);
      report("info", `${taken.id}: given back to the host`);
      onEvent({ kind: "deviceReleased", device: taken.id });
    });
  }
}
