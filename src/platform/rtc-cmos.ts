import type { Clock } from "../base/backends.ts";
import { BankDevice, RegisterBank } from "../base/registers.ts";
import { GIB, hex, KIB, MIB } from "../base/units.ts";

type CmosPort = "index" | "data";

/** Ports 0x70 and 0x71. */
export const CMOS_SIZE = 2;

const REGISTERS: RegisterBank<CmosPort> = new RegisterBank("rtc-cmos", CMOS_SIZE, [
  [0, 1, "index", "rw"],
  [1, 1, "data", "rw"],
]);

/** Where the century lives; the FADT's CENTURY. */
export const CMOS_CENTURY = 0x32;

// MC146818A, "Address Map"
const SECONDS = 0x00;
const MINUTES = 0x02;
const HOURS = 0x04;
const WEEKDAY = 0x06;
const DAY = 0x07;
const MONTH = 0x08;
const YEAR = 0x09;
const REGISTER_A = 0x0a;
const REGISTER_B = 0x0b;
const REGISTER_C = 0x0c;
const REGISTER_D = 0x0d;

const A_UPDATE_IN_PROGRESS = 0x80;
const A_DEFAULT = 0x26; // 32768 Hz time base, 1024 Hz periodic rate
const B_SET = 0x80;
const B_UPDATE_INTERRUPT = 0x10;
const B_BINARY = 0x04;
const B_24_HOURS = 0x02;
const C_INTERRUPT = 0x80;
const C_UPDATE_ENDED = 0x10;
const D_VALID = 0x80;
const HOUR_PM = 0x80;

/** A moment of UTC in the clock's own units. A field may hold what no calendar has: the rest of it is carried. */
interface Calendar {
  readonly century: number;
  readonly year: number; // of the century
  readonly month: number; // 1 is January
  readonly day: number;
  readonly hours: number;
  readonly minutes: number;
  readonly seconds: number;
  readonly milliseconds: number;
}

/** Two digits of century and two of year: the registers count from 0000-01-01 and begin anew after 9999-12-31. */
const FIRST_MS = -62_167_219_200_000;
/** 25 times the calendar's 400 years of 146,097 days: the days of the week come out even too. */
const PERIOD_MS: number = 25 * 146_097 * 86_400_000;

/** The same moment within what the registers can show. */
const wrapped = (ms: number): number => FIRST_MS + ((((ms - FIRST_MS) % PERIOD_MS) + PERIOD_MS) % PERIOD_MS);

function calendarAt(ms: number): Calendar {
  const date = new Date(ms);
  return {
    century: Math.floor(date.getUTCFullYear() / 100),
    year: date.getUTCFullYear() % 100,
    month: date.getUTCMonth() + 1,
    day: date.getUTCDate(),
    hours: date.getUTCHours(),
    minutes: date.getUTCMinutes(),
    seconds: date.getUTCSeconds(),
    milliseconds: date.getUTCMilliseconds(),
  };
}

/** Milliseconds since 1970; the 31st of February counts on into March. */
function millisecondsOf(calendar: Calendar): number {
  const date = new Date(0);
  date.setUTCFullYear(100 * calendar.century + calendar.year, calendar.month - 1, calendar.day);
  return wrapped(date.setUTCHours(calendar.hours, calendar.minutes, calendar.seconds, calendar.milliseconds));
}

/** RAM as the firmware of a PC would leave it in CMOS. */
export interface CmosMemory {
  /** RAM from address 0, below 4 GiB, in bytes. */
  readonly lowBytes: number;
  /** RAM from 4 GiB up, in bytes. */
  readonly highBytes: number;
}

/**
 * An MC146818 real-time clock and 128 bytes of CMOS behind an index and a data port. The time is the host's, in UTC,
 * plus what the guest added by setting it. There is no interrupt: alarm and periodic registers keep what is written and
 * have no effect. The update-ended flag is true to the second, so that a guest can poll for it.
 */
export class RtcCmos extends BankDevice<CmosPort> {
  readonly name = "rtc-cmos";
  readonly #clock: Clock;
  readonly #bytes = new DataView(new ArrayBuffer(128));
  #index = 0;
  #offsetMs = 0;
  /**
   * Set while the guest has stopped the clock to set it, to the part of a second; the time registers are in `#bytes`
   * then.
   */
  #stoppedMs: number | undefined;
  #secondSeen: number;

  constructor(clock: Clock, memory: CmosMemory) {
    super(REGISTERS);
    this.#clock = clock;
    this.#secondSeen = this.#second();
    this.#bytes.setUint8(REGISTER_A, A_DEFAULT);
    this.#bytes.setUint8(REGISTER_B, B_24_HOURS);
    const low = memory.lowBytes;
    this.#setSize(0x15, Math.min(low, 640 * KIB) / KIB);
    this.#setSize(0x17, (low - MIB) / KIB);
    this.#setSize(0x30, (low - MIB) / KIB);
    this.#setSize(0x34, (Math.min(low, 4 * GIB) - 16 * MIB) / (64 * KIB));
    const highUnits = Math.min(Math.floor(memory.highBytes / (64 * KIB)), 0xff_ffff);
    this.#bytes.setUint8(0x5b, highUnits & 0xff);
    this.#bytes.setUint16(0x5c, highUnits >>> 8, true);
  }

  override describe(offset: number): string | undefined {
    return offset === 1 ? `data of register ${hex(this.#index)}` : super.describe(offset);
  }

  readRegister(name: CmosPort): number {
    return name === "index" ? 0xff : this.#readByte(this.#index); // the index port is write-only on a PC
  }

  writeRegister(name: CmosPort, value: number): void {
    if (name === "index")
      this.#index = value & 0x7f; // bit 7 masks NMI, which nothing raises
    else this.#writeByte(this.#index, value);
  }

  #readByte(index: number): number {
    switch (index) {
      case SECONDS:
      case MINUTES:
      case HOURS:
      case DAY:
      case MONTH:
      case YEAR:
      case CMOS_CENTURY:
        if (this.#stoppedMs === undefined) this.#latch(this.#now());
        return this.#bytes.getUint8(index);
      case WEEKDAY:
        return this.#encode(new Date(millisecondsOf(this.#now())).getUTCDay() + 1); // 1 is Sunday
      case REGISTER_C:
        return this.#takeFlags();
      case REGISTER_D:
        return D_VALID;
      default:
        return this.#bytes.getUint8(index); // register A too: an update takes no time, so none is ever in progress
    }
  }

  #writeByte(index: number, value: number): void {
    switch (index) {
      case SECONDS:
      case MINUTES:
      case HOURS:
      case DAY:
      case MONTH:
      case YEAR:
      case CMOS_CENTURY:
        return this.#writeTime(index, value);
      case WEEKDAY: // follows from the date
      case REGISTER_C:
      case REGISTER_D:
        return;
      case REGISTER_A:
        this.#bytes.setUint8(index, value & ~A_UPDATE_IN_PROGRESS);
        return;
      case REGISTER_B:
        this.#setRegisterB(value);
        return;
      default:
        this.#bytes.setUint8(index, value);
    }
  }

  /**
   * Stopped, the registers wait side by side, so that a day may be set after its month; running, each is carried at
   * once.
   */
  #writeTime(index: number, value: number): void {
    if (this.#stoppedMs !== undefined) {
      this.#bytes.setUint8(index, value);
      return;
    }
    const now = this.#now();
    this.#latch(now);
    this.#bytes.setUint8(index, value);
    this.#setTime(now.milliseconds);
  }

  #setRegisterB(value: number): void {
    const isStopped = (value & B_SET) !== 0;
    // Both read and write the registers in the old mode: the new one holds for what the guest writes from now on.
    if (isStopped && this.#stoppedMs === undefined) {
      const now = this.#now();
      this.#latch(now);
      this.#stoppedMs = now.milliseconds;
    } else if (!isStopped && this.#stoppedMs !== undefined) {
      this.#setTime(this.#stoppedMs);
      this.#stoppedMs = undefined;
    }
    this.#bytes.setUint8(REGISTER_B, value);
  }

  #now(): Calendar {
    if (this.#stoppedMs !== undefined) return this.#latched(this.#stoppedMs);
    return calendarAt(wrapped(this.#clock.wallMs() + this.#offsetMs));
  }

  /** Puts a time into the registers, in the mode that register B says. */
  #latch(now: Calendar): void {
    this.#bytes.setUint8(CMOS_CENTURY, this.#encode(now.century));
    this.#bytes.setUint8(YEAR, this.#encode(now.year));
    this.#bytes.setUint8(MONTH, this.#encode(now.month));
    this.#bytes.setUint8(DAY, this.#encode(now.day));
    this.#bytes.setUint8(HOURS, this.#encodeHours(now.hours));
    this.#bytes.setUint8(MINUTES, this.#encode(now.minutes));
    this.#bytes.setUint8(SECONDS, this.#encode(now.seconds));
  }

  /** What the registers say. */
  #latched(milliseconds: number): Calendar {
    const field = (index: number): number => this.#decode(this.#bytes.getUint8(index));
    return {
      century: field(CMOS_CENTURY),
      year: field(YEAR),
      month: field(MONTH),
      day: field(DAY),
      hours: this.#decodeHours(this.#bytes.getUint8(HOURS)),
      minutes: field(MINUTES),
      seconds: field(SECONDS),
      milliseconds,
    };
  }

  /** The clock goes on from what the registers say. */
  #setTime(milliseconds: number): void {
    this.#offsetMs = millisecondsOf(this.#latched(milliseconds)) - this.#clock.wallMs();
  }

  #second(): number {
    return Math.floor(millisecondsOf(this.#now()) / 1000);
  }

  /** Register C: reading clears it. */
  #takeFlags(): number {
    if (this.#stoppedMs !== undefined) return 0; // no update ends while SET is on
    const second = this.#second();
    if (second === this.#secondSeen) return 0;
    this.#secondSeen = second;
    return C_UPDATE_ENDED | (this.#has(B_UPDATE_INTERRUPT) ? C_INTERRUPT : 0);
  }

  #has(bitOfB: number): boolean {
    return (this.#bytes.getUint8(REGISTER_B) & bitOfB) !== 0;
  }

  #encode(value: number): number {
    return this.#has(B_BINARY) ? value : (Math.floor(value / 10) << 4) | (value % 10);
  }

  #decode(value: number): number {
    return this.#has(B_BINARY) ? value : 10 * (value >>> 4) + (value & 0x0f);
  }

  #encodeHours(hours: number): number {
    if (this.#has(B_24_HOURS)) return this.#encode(hours);
    return this.#encode(hours % 12 === 0 ? 12 : hours % 12) | (hours >= 12 ? HOUR_PM : 0);
  }

  #decodeHours(value: number): number {
    if (this.#has(B_24_HOURS)) return this.#decode(value);
    return (this.#decode(value & ~HOUR_PM) % 12) + ((value & HOUR_PM) !== 0 ? 12 : 0);
  }

  /** A size in whole units, within what two bytes hold. */
  #setSize(index: number, units: number): void {
    this.#bytes.setUint16(index, Math.max(0, Math.min(Math.floor(units), 0xffff)), true);
  }
}
