import type { Clock } from "../base/backends.ts";
import type { BusDevice } from "../base/bus.ts";
import { RegisterBank } from "../base/registers.ts";
import { GIB, hex, KIB, MIB, type Width } from "../base/units.ts";

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

/** A moment of UTC in the clock's own units; a field may hold what no calendar has while the guest sets the clock. */
interface Calendar {
  readonly year: number;
  readonly month: number; // 1 is January
  readonly day: number;
  readonly hours: number;
  readonly minutes: number;
  readonly seconds: number;
  readonly milliseconds: number;
}

function calendarAt(ms: number): Calendar {
  const date = new Date(ms);
  return {
    year: date.getUTCFullYear(),
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
  date.setUTCFullYear(calendar.year, calendar.month - 1, calendar.day);
  return date.setUTCHours(calendar.hours, calendar.minutes, calendar.seconds, calendar.milliseconds);
}

/** RAM as the firmware of a PC would leave it in CMOS. */
export interface CmosMemory {
  /** RAM from address 0, below 4 GiB, in bytes. */
  readonly lowBytes: number;
  /** RAM from 4 GiB up, in bytes. */
  readonly highBytes: number;
}

/**
 * An MC146818 real-time clock and 128 bytes of CMOS behind an index and a data port. The time is the host's, in UTC, plus what the
 * guest added by setting it. There is no interrupt: alarm and periodic registers keep what is written and nothing happens, while
 * the update-ended flag is true to the second, so that a guest can wait for it by polling.
 */
export class RtcCmos implements BusDevice {
  readonly name = "rtc-cmos";
  readonly #clock: Clock;
  readonly #bytes = new DataView(new ArrayBuffer(128));
  #index = 0;
  #offsetMs = 0;
  /** What the time registers hold while the guest has stopped the clock to set it. */
  #stopped: Calendar | undefined;
  #secondSeen: number;

  constructor(clock: Clock, memory: CmosMemory) {
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

  describe(offset: number): string | undefined {
    return offset === 1 ? `data of register ${hex(this.#index)}` : REGISTERS.nameAt(offset);
  }

  read(offset: number, width: Width): number {
    return REGISTERS.read(this, offset, width);
  }

  write(offset: number, width: Width, value: number): void {
    REGISTERS.write(this, offset, width, value);
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
        return this.#encode(this.#now().seconds);
      case MINUTES:
        return this.#encode(this.#now().minutes);
      case HOURS:
        return this.#encodeHours(this.#now().hours);
      case WEEKDAY:
        return this.#encode(new Date(millisecondsOf(this.#now())).getUTCDay() + 1); // 1 is Sunday
      case DAY:
        return this.#encode(this.#now().day);
      case MONTH:
        return this.#encode(this.#now().month);
      case YEAR:
        return this.#encode(this.#now().year % 100);
      case CMOS_CENTURY:
        return this.#encode(Math.floor(this.#now().year / 100));
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
        this.#setNow({ ...this.#now(), seconds: this.#decode(value) });
        return;
      case MINUTES:
        this.#setNow({ ...this.#now(), minutes: this.#decode(value) });
        return;
      case HOURS:
        this.#setNow({ ...this.#now(), hours: this.#decodeHours(value) });
        return;
      case DAY:
        this.#setNow({ ...this.#now(), day: this.#decode(value) });
        return;
      case MONTH:
        this.#setNow({ ...this.#now(), month: this.#decode(value) });
        return;
      case YEAR: {
        const { year } = this.#now();
        this.#setNow({ ...this.#now(), year: year - (year % 100) + this.#decode(value) });
        return;
      }
      case CMOS_CENTURY:
        this.#setNow({ ...this.#now(), year: 100 * this.#decode(value) + (this.#now().year % 100) });
        return;
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

  #setRegisterB(value: number): void {
    const isStopped = (value & B_SET) !== 0;
    const calendar = this.#now();
    if (isStopped) {
      this.#stopped = calendar;
    } else if (this.#stopped !== undefined) {
      this.#stopped = undefined;
      this.#setNow(calendar);
    }
    this.#bytes.setUint8(REGISTER_B, value);
  }

  #now(): Calendar {
    return this.#stopped ?? calendarAt(this.#clock.wallMs() + this.#offsetMs);
  }

  /** Stopped, the fields wait side by side, so that a day may be set after its month; running, each is carried at once. */
  #setNow(calendar: Calendar): void {
    if (this.#stopped !== undefined) this.#stopped = calendar;
    else this.#offsetMs = millisecondsOf(calendar) - this.#clock.wallMs();
  }

  #second(): number {
    return Math.floor(millisecondsOf(this.#now()) / 1000);
  }

  /** Register C: reading clears it. */
  #takeFlags(): number {
    const second = this.#second();
    if (second === this.#secondSeen) return 0;
    this.#secondSeen = second;
    return C_UPDATE_ENDED | (this.#has(B_UPDATE_INTERRUPT) ? C_INTERRUPT : 0);
  }

  #has(bitOfB: number): boolean {
    return (this.#bytes.getUint8(REGISTER_B) & bitOfB) !== 0;
  }

  #encode(value: number): number {
    return (this.#has(B_BINARY) ? value : (Math.floor(value / 10) << 4) | (value % 10)) & 0xff;
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
