import type { Clock, Report } from "../base/backends.ts";
import { BankDevice, RegisterBank } from "../base/registers.ts";
import type { InterruptLine } from "../base/signals.ts";
import { hex } from "../base/units.ts";

type PmRegister = "sleepControl" | "sleepStatus" | "reset" | "eventStatus" | "ejectRequests" | "pmTimer" | "eject";

/** Offsets from the block's base port; the FADT and the DSDT name the same ones. */
export const ACPI_PM_PORTS = {
  sleepControl: 0,
  sleepStatus: 1,
  reset: 2,
  eventStatus: 3,
  ejectRequests: 4,
  pmTimer: 8,
  eject: 12,
} as const;
export const ACPI_PM_SIZE = 16;
/** What the guest writes to the reset register; the FADT's RESET_VALUE. */
export const ACPI_RESET_VALUE = 1;
/** SLP_TYP of the off state; the DSDT's `_S5_`. */
export const ACPI_S5_TYPE = 5;
/** Bit of the event status register: the power button was pressed. */
export const ACPI_EVENT_POWER_BUTTON = 0x01;
/** Bit of the event status register: `ejectRequests` has a bit set. */
export const ACPI_EVENT_EJECT = 0x02;

const REGISTERS: RegisterBank<PmRegister> = new RegisterBank("acpi-pm", ACPI_PM_SIZE, [
  [0, 1, "sleepControl", "rw"], // ACPI 6.5 §4.8.3.7
  [1, 1, "sleepStatus", "rw"], // ACPI 6.5 §4.8.3.7
  [2, 1, "reset", "wo"], // ACPI 6.5 §4.8.3.6
  [3, 1, "eventStatus", "w1"], // ours, read by the DSDT's _EVT; write 1 to clear
  [4, 4, "ejectRequests", "w1"], // ours, read by the DSDT's _EVT; a bit a PCI slot, write 1 to clear
  [8, 4, "pmTimer", "ro"], // ACPI 6.5 §4.8.3.3
  [12, 4, "eject", "wo"], // ours, written by the DSDT's _EJ0: bits of the slots that the guest has let go of
]);

const SLP_TYP = 0x1c;
const SLP_TYP_SHIFT = 2;
const SLP_EN = 0x20;
const PM_TIMER_HZ = 3_579_545n;

/** What the block asks the machine to do. All may be called from inside a guest's access, more than once. */
export interface AcpiPmEvents {
  powerOff(): void;
  reset(): void;
  /** The guest has let go of all functions in a PCI slot, asked or not. */
  ejectSlot(slot: number): void;
}

/**
 * The few registers of a hardware-reduced ACPI machine: sleep control and status, reset, and the power management
 * timer. Behind the generic event device are a status byte, requests to let go of PCI slots, and the answers. All fit
 * {@link ACPI_PM_SIZE} ports.
 *
 * The event line is level-triggered: it is high while a status bit is set. The DSDT's `_EVT` clears the bits before it
 * acts on them. So a press between the two raises the line again.
 */
export class AcpiPm extends BankDevice<PmRegister> {
  readonly name = "acpi-pm";
  readonly #clock: Clock;
  readonly #eventLine: InterruptLine;
  readonly #events: AcpiPmEvents;
  readonly #report: Report | undefined;
  readonly #startNs: bigint;
  #eventStatus = 0;
  #ejectRequests = 0;
  #wasReported = false;

  constructor(clock: Clock, eventLine: InterruptLine, events: AcpiPmEvents, report?: Report) {
    super(REGISTERS);
    this.#clock = clock;
    this.#eventLine = eventLine;
    this.#events = events;
    this.#report = report;
    this.#startNs = clock.monotonicNs();
  }

  /** Presses the power button: a guest that listens powers itself off in order, later or never. */
  pressPowerButton(): void {
    this.#setEventStatus(this.#eventStatus | ACPI_EVENT_POWER_BUTTON);
  }

  /**
   * Asks the guest to let go of what is in a PCI slot, 0 to 31. Asking again is harmless, and useful: a guest may not
   * listen yet.
   */
  requestEject(slot: number): void {
    this.#ejectRequests = (this.#ejectRequests | (1 << slot)) >>> 0;
    this.#setEventStatus(this.#eventStatus | ACPI_EVENT_EJECT);
  }

  /** Forgets events the guest has not taken, as after power-on. */
  reset(): void {
    this.#ejectRequests = 0;
    this.#setEventStatus(0);
  }

  readRegister(name: PmRegister): number {
    switch (name) {
      case "sleepControl": // SLP_EN is write-only and nothing else is kept
      case "sleepStatus": // WAK_STS: nothing ever wakes, since only S5 exists
      case "reset":
      case "eject":
        return 0;
      case "eventStatus":
        return this.#eventStatus;
      case "ejectRequests":
        return this.#ejectRequests;
      case "pmTimer": {
        const elapsedNs = this.#clock.monotonicNs() - this.#startNs;
        return Number(BigInt.asUintN(32, (elapsedNs * PM_TIMER_HZ) / 1_000_000_000n));
      }
      default:
        return name satisfies never;
    }
  }

  writeRegister(name: PmRegister, value: number): void {
    switch (name) {
      case "sleepControl": {
        if ((value & SLP_EN) === 0) return;
        const type = (value & SLP_TYP) >>> SLP_TYP_SHIFT;
        if (type === ACPI_S5_TYPE) this.#events.powerOff();
        else this.#reportOnce(`Guest asked for sleep type ${type}: only power off (${ACPI_S5_TYPE}) exists`);
        return;
      }
      case "reset":
        if (value === ACPI_RESET_VALUE) this.#events.reset();
        else this.#reportOnce(`Guest wrote ${hex(value)} to the reset register: ${ACPI_RESET_VALUE} resets`);
        return;
      case "eventStatus":
        this.#setEventStatus(this.#eventStatus & ~value);
        return;
      case "ejectRequests":
        this.#ejectRequests = (this.#ejectRequests & ~value) >>> 0;
        return;
      case "eject":
        for (let slot = 0; slot < 32; slot++) if (((value >>> slot) & 1) !== 0) this.#events.ejectSlot(slot);
        return;
      case "sleepStatus":
      case "pmTimer":
        return;
      default:
        name satisfies never;
    }
  }

  #setEventStatus(status: number): void {
    this.#eventStatus = status;
    this.#eventLine.setLevel(status !== 0);
  }

  #reportOnce(text: string): void {
    if (this.#wasReported) return;
    this.#wasReported = true;
    this.#report?.("warn", text, { device: this.name });
  }
}
