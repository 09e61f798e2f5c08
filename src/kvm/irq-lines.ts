import type { InterruptLine, ResampledLines } from "../base/signals.ts";
import type { Fd, Gsi } from "../base/units.ts";
import type { Vm } from "./vm.ts";

/** What {@link IrqLines} asks of a machine. */
export type LinePort = Pick<Vm, "setIrqLine">;

/** A device's end of a pin, and whether it holds the pin high. */
export interface LineLevel {
  readonly name: string;
  readonly gsi: Gsi;
  readonly isUp: boolean;
}

/**
 * Interrupt pins whose level this process sets. Devices that share a pin are a wired OR: it is high while any of them
 * holds it, and KVM hears of changes only. Only the device thread may call it.
 */
export class IrqLines {
  readonly #vm: LinePort;
  readonly #holders = new Map<Gsi, number>();
  readonly #levels: (() => LineLevel)[] = [];

  constructor(vm: LinePort) {
    this.#vm = vm;
  }

  /** Every device's end of a pin, in the order of their making. */
  get levels(): readonly LineLevel[] {
    return this.#levels.map((level) => level());
  }

  /** A device's own end of a pin; it starts low. */
  line(gsi: Gsi, name: string): InterruptLine {
    let isHeld = false;
    this.#levels.push(() => ({ name, gsi, isUp: isHeld }));
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
  readonly #connected = new Set<{ readonly gsi: Gsi }>();

  constructor(vm: ResamplePort) {
    this.#vm = vm;
  }

  /** Pins that are driven so, one entry for each device. */
  get driven(): readonly Gsi[] {
    return [...this.#connected].map(({ gsi }) => gsi);
  }

  /**
   * Implements ResampledLines; `disconnect` lowers the pin and may be called twice. Close the eventfds after it, not
   * before.
   */
  connect(line: Gsi, trigger: Fd, resample: Fd): { disconnect(): void } {
    this.#vm.assignIrqfd(trigger, line, resample);
    const pin = { gsi: line };
    this.#connected.add(pin);
    return {
      disconnect: () => {
        if (!this.#connected.delete(pin)) return;
        this.#vm.deassignIrqfd(trigger, line);
      },
    };
  }
}
