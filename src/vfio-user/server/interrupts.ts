import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import type { FdWatch, FdWatcher } from "../../base/signals.ts";
import type { Fd } from "../../base/units.ts";
import { closeAll } from "../../host/descriptor-socket.ts";
import { ERRNO } from "../../host/errors.ts";
import { EventFd } from "../../host/eventfd.ts";
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
} from "../../vfio/abi.ts";

/** A SET_IRQS of the client. */
export interface IrqRequest {
  readonly index: number;
  readonly flags: number;
  readonly start: number;
  readonly count: number;
  readonly descriptors: readonly Fd[];
}

const ACTIONS: number = VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_ACTION_TRIGGER;

/**
 * The eventfds that a client gave for a device's interrupts. The pin is a level: each signal masks it until the client unmasks it, by a
 * message or by an eventfd, and a level that is still high then signals again.
 */
export class ClientInterrupts {
  readonly #counts: readonly number[];
  readonly #watcher: FdWatcher;
  readonly #report: Report;
  /** By index (INTx, MSI, MSI-X) and vector; absent while the kind is off. */
  readonly #triggers: Map<number, (Fd | undefined)[]> = new Map();
  #unmask: { readonly file: Fd; readonly watch: FdWatch } | undefined;
  #isHigh = false;
  #isMasked = false;
  #isDisabled = false;
  #hasFailed = false;

  /** @param counts Vectors of INTx, MSI and MSI-X, in this order. */
  constructor(counts: readonly number[], watcher: FdWatcher, report: Report) {
    this.#counts = counts;
    this.#watcher = watcher;
    this.#report = report;
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

  /** The client is gone. */
  clear(): void {
    for (const index of [...this.#triggers.keys()]) this.#switchOff(index);
    this.#isHigh = false;
  }

  #set(request: IrqRequest): number {
    const { index, flags, start, count, descriptors } = request;
    const action = flags & ACTIONS;
    const data = flags & ~ACTIONS;
    const isOff = action === VFIO_IRQ_SET_ACTION_TRIGGER && data === VFIO_IRQ_SET_DATA_NONE && count === 0;
    if (start + count > this.count(index)) return ERRNO.EINVAL;
    if (isOff && descriptors.length === 0) {
      this.#switchOff(index);
      return 0;
    }
    if (count === 0 || (data !== VFIO_IRQ_SET_DATA_NONE && data !== VFIO_IRQ_SET_DATA_EVENTFD)) return ERRNO.EINVAL;
    const hasEvents = data === VFIO_IRQ_SET_DATA_EVENTFD;
    if (descriptors.length !== 0 && (!hasEvents || descriptors.length !== count)) return ERRNO.EINVAL;
    if (action === VFIO_IRQ_SET_ACTION_TRIGGER) {
      if (hasEvents) this.#connect(index, start, count, descriptors);
      else for (let vector = start; vector < start + count; vector++) this.#ring(this.#triggers.get(index)?.[vector]);
      return 0;
    }
    // Only the pin has a mask here: those of messages are the client's own.
    if (index !== VFIO_PCI_INTX_IRQ_INDEX) return ERRNO.EINVAL;
    if (action === VFIO_IRQ_SET_ACTION_UNMASK && hasEvents) return this.#watchUnmask(descriptors[0]);
    if (hasEvents || (action !== VFIO_IRQ_SET_ACTION_MASK && action !== VFIO_IRQ_SET_ACTION_UNMASK))
      return ERRNO.EINVAL;
    this.#isMasked = action === VFIO_IRQ_SET_ACTION_MASK;
    this.#drive();
    return 0;
  }

  /** One kind is on at a time, as with a real device. */
  #connect(index: number, start: number, count: number, descriptors: readonly Fd[]): void {
    for (const other of [...this.#triggers.keys()]) if (other !== index) this.#switchOff(other);
    const triggers = this.#triggers.get(index) ?? [];
    this.#triggers.set(index, triggers);
    for (let place = 0; place < count; place++) {
      const old = triggers[start + place];
      if (old !== undefined) closeAll([old]);
      triggers[start + place] = descriptors[place];
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
    const event = EventFd.attach(file);
    try {
      const watch = this.#watcher.watch(file, "input", () => {
        event.drain();
        this.#isMasked = false;
        this.#drive();
      });
      this.#unmask = { file, watch };
      return 0;
    } catch (error) {
      if (error instanceof HostError) return ERRNO.EINVAL; // a file that cannot be watched is no eventfd
      throw error;
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
      EventFd.attach(trigger).signal();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      if (!this.#hasFailed) this.#report("warn", `an interrupt cannot be sent: ${error.message}`);
      this.#hasFailed = true;
    }
  }
}
