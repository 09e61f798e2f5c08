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

/**
 * Takes passed-through functions away from a running guest, for three reasons:
 *
 * - The host wants one back (REQ: somebody unbinds its driver, and waits): the guest is asked to let go of the slot, by
 *   ACPI. When it does, all functions of the slot go back. The host asks again and again, and so does this, since a
 *   guest that boots may not listen yet. RemovalDeadlines on the control thread enforces the timeout; it receives
 *   `deviceWanted` and `deviceReleased`.
 * - The host reports an error the device does not recover from (ERR): as if the device had been pulled. It disappears
 *   at once: reads give all ones, and its DMA and interrupts end with its release. The guest is asked to tidy up. A
 *   device of another process whose server is lost goes the same way.
 * - The guest lets go of a slot of its own accord.
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
    const [plugged] = this.#plugged(id);
    if (plugged === undefined) return; // on its way already
    if (!this.#wanted.has(id)) {
      this.#wanted.add(id);
      report("warn", `${id}: the host wants ${plugged.function.name} back; the guest is asked to let go of it`);
      onEvent({ kind: "deviceWanted", device: id });
    }
    acpi.requestEject(plugged.bdf.device);
  }

  /** ERR. */
  hostReportsError(id: string): void {
    this.#pull(id, (name) => `the host reports an error that ${name} does not recover from`);
  }

  /** The process behind a device has ended, hangs, or cannot be understood. Not during an access to the device. */
  serverLost(id: string, reason: string): void {
    this.#pull(id, (name) => `${name} is of no use any more: ${reason}`);
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
