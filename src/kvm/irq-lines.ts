import type { InterruptLine, ResampledLines } from "../base/signals.ts";
import type { Fd, Gsi } from "../base/units.ts";
import type { Vm } from "./vm.ts";

/** What {@link IrqLines} asks of a machine. */
export type LinePort = Pick<Vm, "setIrqLine">;

/**
 * Interrupt pins whose level this process sets. Devices that share a pin are a wired OR: it is high while any of them
 * holds it, and KVM hears of changes only. Only the device thread may call it.
 */
export class IrqLines {
  readonly #vm: LinePort;
  readonly #holders = new Map<Gsi, number>();

  constructor(vm: LinePort) {
    this.#vm = vm;
  }

  /** A device's own end of a pin; it starts low. */
  line(gsi: Gsi, name: string): InterruptLine {
    let isHeld = false;
    return {
      name,
      gsi,
      setLevel: (isHigh) => {
        if (isHigh === isHeld) return;
        isHeld = isHigh;
        const before = this.#holders.get(gsi) ?? 0;
        const after = before + (isHigh ? 1 : -1);
        this.#holders.set(gsi, after);
        if ((before === 0) !== (after === 0)) this.#vm.setIrqLine(gsi, isHigh);
      },
    };
  }
}

/** What {@link ResampledIrqLines} asks of a machine. */
export type ResamplePort = Pick<Vm, "assignIrqfd" | "deassignIrqfd">;

/**
 * Pins that eventfds raise and KVM lowers at the guest's end of interrupt (irqfds with a resample eventfd). Several may
 * share a pin: KVM then signals every one's `resample` and those that still need service raise it again. Only the
 * device thread may call it.
 */
export class ResampledIrqLines implements ResampledLines {
  readonly #vm: ResamplePort;

  constructor(vm: ResamplePort) {
    this.#vm = vm;
  }

  /**
   * Implements ResampledLines; `disconnect` lowers the pin and may be called twice. Close the eventfds after it, not
   * before.
   */
  connect(line: Gsi, trigger: Fd, resample: Fd): { disconnect(): void } {
    this.#vm.assignIrqfd(trigger, line, resample);
    let isConnected = true;
    return {
      disconnect: () => {
        if (!isConnected) return;
        isConnected = false;
        this.#vm.deassignIrqfd(trigger, line);
      },
    };
  }
}
