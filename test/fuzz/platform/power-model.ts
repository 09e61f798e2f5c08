import type { Width } from "../../../src/base/units.ts";
import { type ByteRegisters, bytewise, type DeviceModel, type Events } from "./device-model.ts";

/** What the power management timer counts by. */
export interface Uptime {
  readonly ns: bigint;
}

/**
 * Hardware-reduced ACPI: sleep control and status, reset, the PM timer (ACPI 6.5 §4.8.3), and the registers of the
 * DSDT's event method. Those are a status byte and 32 requests to eject a slot, both cleared by writing ones, and the
 * ejected slots.
 */
export class PowerModel implements ByteRegisters {
  readonly #events: Events;
  readonly #uptime: Uptime;
  readonly #requests: number[] = [0, 0, 0, 0];
  #status = 0;

  constructor(events: Events, uptime: Uptime) {
    this.#events = events;
    this.#uptime = uptime;
  }

  get isLineHigh(): boolean {
    return this.#status !== 0;
  }

  pressButton(): void {
    this.#status |= 0x01;
  }

  requestEject(slot: number): void {
    this.#status |= 0x02;
    const byte = slot >>> 3;
    this.#requests[byte] = (this.#requests[byte] ?? 0) | (1 << (slot & 7));
  }

  readByte(offset: number): number {
    if (offset === 3) return this.#status;
    if (offset >= 4 && offset < 8) return this.#requests[offset - 4] ?? 0;
    if (offset < 8 || offset > 11) return 0; // not kept, or write-only
    const ticks = BigInt.asUintN(32, (this.#uptime.ns * 3_579_545n) / 1_000_000_000n);
    return Number((ticks >> BigInt(8 * (offset - 8))) & 0xffn);
  }

  writeByte(offset: number, value: number): void {
    if (offset === 0 && (value & 0x20) !== 0 && ((value >>> 2) & 7) === 5) this.#events.expected.push("power off");
    else if (offset === 2 && value === 1) this.#events.expected.push("reset");
    else if (offset === 3) this.#status &= ~value;
    else if (offset >= 4 && offset < 8) this.#requests[offset - 4] = (this.#requests[offset - 4] ?? 0) & ~value;
    else if (offset >= 12)
      for (let bit = 0; bit < 8; bit++)
        if (((value >>> bit) & 1) !== 0) this.#events.expected.push(`eject ${8 * (offset - 12) + bit}`);
  }
}

/** A keyboard controller without a keyboard; its output port's bit 0 is the processors' reset line. */
export class KeyboardModel implements ByteRegisters {
  readonly #events: Events;
  #output = 0;
  #isFull = false;
  #wasCommand = true;
  #command = 0;
  #commandByte = 0;
  #controlB = 0;

  constructor(events: Events) {
    this.#events = events;
  }

  readByte(offset: number, found: number): number | string | undefined {
    switch (offset) {
      case 0:
        this.#isFull = false;
        return this.#output;
      case 1: // port 0x61: the refresh bit changes with each look
        return (found & ~0x10) === (this.#controlB | 0x20) ? undefined : `${found}, written was ${this.#controlB}`;
      case 4:
        return 0x14 | (this.#wasCommand ? 0x08 : 0) | (this.#isFull ? 0x01 : 0);
      default:
        return 0;
    }
  }

  writeByte(offset: number, value: number): void {
    if (offset === 1) this.#controlB = value & 0x0f;
    else if (offset === 0) this.#takeData(value);
    else if (offset === 4) this.#takeCommand(value);
  }

  #takeData(value: number): void {
    const command = this.#command;
    this.#command = 0;
    this.#wasCommand = false;
    if (command === 0x60) this.#commandByte = value;
    else if (command === 0xd1) this.#pull(value);
    else if (command === 0xd2 || command === 0xd3) this.#answer(value);
    else this.#answer(0xfe); // a device that is not there
  }

  #takeCommand(value: number): void {
    this.#wasCommand = true;
    this.#command = [0x60, 0xd1, 0xd2, 0xd3, 0xd4].includes(value) ? value : 0;
    if (value === 0x20) this.#answer(this.#commandByte);
    else if (value === 0xaa) this.#answer(0x55);
    else if (value === 0xa9 || value === 0xab)
      this.#answer(0x01); // the clock line is stuck low
    else if (value === 0xd0) this.#answer(0x03);
    else if (value >= 0xf0) this.#pull(value);
  }

  #pull(value: number): void {
    if ((value & 0x01) === 0) this.#events.expected.push("reset");
  }

  #answer(value: number): void {
    this.#output = value;
    this.#isFull = true;
  }
}

/** Port 0x80 keeps the last code. */
export function postCodeModel(): DeviceModel {
  let last = 0;
  return bytewise("post-code", {
    readByte: () => last,
    writeByte: (_offset, value) => {
      last = value;
    },
  });
}

/** The debug exit port hands a write on as one value. */
export function debugExitModel(events: Events): DeviceModel {
  return {
    judgeRead: (_offset, width, found) => (found === 2 ** (8 * width) - 1 ? undefined : `debug-exit reads ${found}`),
    write: (_offset: number, _width: Width, value: number) => events.expected.push(`exit ${value}`),
  };
}
