import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import type { FdWatch, RingWatcher } from "../../base/signals.ts";
import type { Fd } from "../../base/units.ts";
import { closeAll } from "../../host/descriptor-socket.ts";
import { ERRNO } from "../../host/errors.ts";
import type { EventSignals } from "../../host/event-signals.ts";
import {
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
} from "../../vfio/abi.ts";
import { type IrqRequest, parseIrqRequest } from "./irq-request.ts";

/** What interrupts need of the process. */
export interface InterruptParts {
  readonly signals: EventSignals;
  readonly watcher: RingWatcher;
  readonly report: Report;
}

/**
 * The eventfds that a client gave for a device's interrupts. The pin is a level: each signal masks it until the client
 * unmasks it, by a message or by an eventfd. A level that is still high then signals again.
 *
 * The client holds the same files and may do with them what it likes, at any moment. So only eventfds are taken, and
 * they are signalled without waiting. The unmask eventfd is never read: an edge-triggered watch reports each write.
 */
export class ClientInterrupts {
  readonly #counts: readonly number[];
  readonly #parts: InterruptParts;
  /** By VFIO's index and vector; absent while the kind is off. */
  readonly #triggers: Map<number, (Fd | undefined)[]> = new Map();
  #unmask: { readonly file: Fd; readonly watch: FdWatch } | undefined;
  #isHigh = false;
  #isMasked = false;
  #isDisabled = false;
  #hasFailed = false;

  /**
   * @param counts Vectors of INTx, MSI and MSI-X, in this order; an error and a request event come with each device.
   */
  constructor(counts: readonly number[], parts: InterruptParts) {
    this.#counts = [...counts, 1, 1];
    this.#parts = parts;
  }

  /** Vectors of a kind, by VFIO's index. */
  count(index: number): number {
    return this.#counts[index] ?? 0;
  }

  get usesMessages(): boolean {
    return this.#triggers.has(VFIO_PCI_MSI_IRQ_INDEX) || this.#triggers.has(VFIO_PCI_MSIX_IRQ_INDEX);
  }

  get isHigh(): boolean {
    return this.#isHigh;
  }

  signal(vector: number): void {
    const index = this.#triggers.has(VFIO_PCI_MSIX_IRQ_INDEX) ? VFIO_PCI_MSIX_IRQ_INDEX : VFIO_PCI_MSI_IRQ_INDEX;
    this.#ring(this.#triggers.get(index)?.[vector]);
  }

  setIntx(isHigh: boolean): void {
    this.#isHigh = isHigh;
    this.#drive();
  }

  /** What the guest's command register says of the pin. */
  set isIntxDisabled(isDisabled: boolean) {
    this.#isDisabled = isDisabled;
    this.#drive();
  }

  /**
   * Does what a client wants; takes the descriptors over in any case.
   *
   * @returns An errno, or 0.
   */
  set(request: IrqRequest): number {
    const error = this.#set(request);
    if (error !== 0) closeAll(request.descriptors);
    return error;
  }

  /** The client is gone: no descriptor, mask or level of it stays for the next one. */
  clear(): void {
    for (const index of this.#counts.keys()) this.#switchOff(index);
    this.#isHigh = false;
    this.#isDisabled = false;
    this.#hasFailed = false;
  }

  #set(request: IrqRequest): number {
    const { index, descriptors } = request;
    if (!descriptors.every((file) => this.#parts.signals.isEventFd(file))) return ERRNO.EINVAL;
    const action = parseIrqRequest(request, this.count(index));
    const triggers = this.#triggers.get(index);
    // Only the pin has a mask here, while it is on: those of messages are the client's own.
    const hasMask = index === VFIO_PCI_INTX_IRQ_INDEX && triggers !== undefined;
    switch (action?.kind) {
      case undefined:
        return ERRNO.EINVAL;
      case "off":
        this.#switchOff(index);
        return 0;
      case "connect":
        this.#connect(index, action.start, action.files);
        return 0;
      case "trigger":
        if (triggers === undefined) return ERRNO.EINVAL;
        for (const vector of action.vectors) this.#ring(triggers[vector]);
        return 0;
      case "mask":
        if (!hasMask) return ERRNO.EINVAL;
        if (action.vectors.length > 0) this.#isMasked = action.isMasked;
        this.#drive();
        return 0;
      case "unmaskOn":
        return hasMask ? this.#watchUnmask(action.file) : ERRNO.EINVAL;
      default:
        return action satisfies never;
    }
  }

  /** One of INTx, MSI and MSI-X is on at a time, as with a real device. */
  #connect(index: number, start: number, files: readonly (Fd | undefined)[]): void {
    if (index < VFIO_PCI_ERR_IRQ_INDEX) {
      for (let other = 0; other < VFIO_PCI_ERR_IRQ_INDEX; other++) if (other !== index) this.#switchOff(other);
    }
    const triggers = this.#triggers.get(index) ?? [];
    this.#triggers.set(index, triggers);
    for (const [place, file] of files.entries()) {
      const old = triggers[start + place];
      if (old !== undefined) closeAll([old]);
      triggers[start + place] = file;
    }
    if (index === VFIO_PCI_INTX_IRQ_INDEX) this.#drive();
  }

  #switchOff(index: number): void {
    closeAll(this.#triggers.get(index)?.filter((trigger) => trigger !== undefined) ?? []);
    this.#triggers.delete(index);
    if (index !== VFIO_PCI_INTX_IRQ_INDEX) return;
    this.#watchUnmask(undefined);
    this.#isMasked = false;
  }

  #watchUnmask(file: Fd | undefined): number {
    this.#unmask?.watch.close();
    if (this.#unmask !== undefined) closeAll([this.#unmask.file]);
    this.#unmask = undefined;
    if (file === undefined) return 0;
    try {
      const watch = this.#parts.watcher.watchRings(file, () => {
        this.#isMasked = false;
        this.#drive();
      });
      this.#unmask = { file, watch };
      return 0;
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#parts.report("warn", `the pin cannot be unmasked: ${error.message}`);
      return ERRNO.EINVAL;
    }
  }

  #drive(): void {
    if (!this.#isHigh || this.#isMasked || this.#isDisabled) return;
    const trigger = this.#triggers.get(VFIO_PCI_INTX_IRQ_INDEX)?.[0];
    if (trigger === undefined) return;
    this.#isMasked = true;
    this.#ring(trigger);
  }

  #ring(trigger: Fd | undefined): void {
    if (trigger === undefined) return;
    try {
      this.#parts.signals.signal(trigger);
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      if (!this.#hasFailed) this.#parts.report("warn", `an interrupt cannot be sent: ${error.message}`);
      this.#hasFailed = true;
    }
  }
}
