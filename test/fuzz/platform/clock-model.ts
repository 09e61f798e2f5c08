import type { ByteRegisters } from "./device-model.ts";

const CENTURY = 0x32;
/** Seconds, minutes, hours, day, month, year, century; their alarms and the day of the week are not time. */
const TIME = [0x00, 0x02, 0x04, 0x07, 0x08, 0x09, CENTURY];
const WEEKDAY = 0x06;

/** The time that the registers can show: 0000-01-01 to 9999-12-31, after which it begins anew. */
const FIRST_MS: number = Date.parse("0000-01-01T00:00:00Z");
const PERIOD_MS: number = Date.parse("9999-12-31T23:59:59Z") + 1000 - FIRST_MS;

/** The host's clock, as far as the guest's follows it. */
export interface HostTime {
  readonly wallMs: number;
}

/**
 * An MC146818 with a century, whose time is the host's plus what the guest added by setting it. After an invalid date,
 * or a field set on its own, the time is unknown until the guest sets all of it. It must be a valid time all the same.
 */
export class ClockModel implements ByteRegisters {
  readonly #host: HostTime;
  #index = 0;
  #registerB = 0x02;
  /** From the host's time to the guest's; `undefined` while it is not known. */
  #offsetMs: number | undefined = 0;
  /** The guest's part of a second minus the host's: it is known always, since only whole seconds can be set. */
  #phaseMs = 0;
  /** While SET is on: the registers, as far as they are known, and the part of a second. */
  #stopped: { readonly fields: Map<number, number>; readonly partMs: number } | undefined;
  readonly #bytes = new Map<number, number>();
  /** The second may have changed since register C was read. */
  #mayHaveTicked = true;

  constructor(host: HostTime) {
    this.#host = host;
  }

  /** The host's clock moved. */
  ticked(): void {
    this.#mayHaveTicked = true;
  }

  readByte(offset: number, found: number): number | string | undefined {
    if (offset === 0) return 0xff; // the index cannot be read
    const index = this.#index;
    if (TIME.includes(index)) return this.#readTime(index, found);
    switch (index) {
      case WEEKDAY:
        return this.#readWeekday(found);
      case 0x0b:
        return this.#registerB;
      case 0x0c:
        return this.#readFlags(found);
      case 0x0d:
        return 0x80; // the battery is good
      default:
        return this.#bytes.get(index);
    }
  }

  writeByte(offset: number, value: number): void {
    if (offset === 0) {
      this.#index = value & 0x7f;
      return;
    }
    const index = this.#index;
    if (TIME.includes(index)) {
      this.#mayHaveTicked = true;
      if (this.#stopped === undefined) this.#offsetMs = undefined;
      else this.#stopped.fields.set(index, value);
    } else if (index === 0x0b) this.#setRegisterB(value);
    else if (index === 0x0a)
      this.#bytes.set(index, value & 0x7f); // UIP is the chip's
    else if (index !== WEEKDAY && index !== 0x0c && index !== 0x0d) this.#bytes.set(index, value);
  }

  #readTime(index: number, found: number): number | string | undefined {
    if (this.#stopped !== undefined) return this.#stopped.fields.get(index);
    const now = this.#now();
    if (now !== undefined) return this.#encode(index, now);
    return this.#isTime(index, found) ? undefined : `${found} is no time in mode ${this.#registerB & 0x06}`;
  }

  #readWeekday(found: number): number | string | undefined {
    const now = this.#stopped === undefined ? this.#now() : undefined;
    if (now !== undefined) return new Date(now).getUTCDay() + 1;
    return found >= 1 && found <= 7 ? undefined : `${found} is no day of the week`;
  }

  /** Register C: the update-ended flag, and the interrupt flag with it where register B enables it. */
  #readFlags(found: number): number | string | undefined {
    const isPossible = this.#mayHaveTicked && this.#stopped === undefined;
    if (this.#stopped === undefined) this.#mayHaveTicked = false;
    const flags = 0x10 | ((this.#registerB & 0x10) !== 0 ? 0x80 : 0);
    return found === 0 || (isPossible && found === flags) ? undefined : `flags ${found} without an update`;
  }

  #now(): number | undefined {
    if (this.#offsetMs === undefined) return undefined;
    const since = (this.#host.wallMs + this.#offsetMs - FIRST_MS) % PERIOD_MS;
    return FIRST_MS + ((since + PERIOD_MS) % PERIOD_MS);
  }

  #setRegisterB(value: number): void {
    const stops = (value & 0x80) !== 0;
    this.#mayHaveTicked = true;
    if (stops && this.#stopped === undefined) {
      const now = this.#now();
      const fields = new Map(now === undefined ? [] : TIME.map((index) => [index, this.#encode(index, now)]));
      this.#stopped = { fields, partMs: this.#partOf(this.#host.wallMs + this.#phaseMs) };
    } else if (!stops && this.#stopped !== undefined) {
      const { fields, partMs } = this.#stopped;
      this.#offsetMs = this.#offsetOf(fields, partMs);
      this.#phaseMs = partMs - this.#partOf(this.#host.wallMs);
      this.#stopped = undefined;
    }
    this.#registerB = value; // the mode before it is that of the registers written until now
  }

  /** What the stopped registers say, when it is a time. */
  #offsetOf(fields: ReadonlyMap<number, number>, partMs: number): number | undefined {
    const values = TIME.map((index) => fields.get(index));
    if (values.some((value, at) => value === undefined || !this.#isTime(TIME[at] ?? 0, value))) return undefined;
    const [seconds = 0, minutes = 0, hours = 0, day = 0, month = 0, year = 0, century = 0] = values.map((value, at) =>
      this.#decode(TIME[at] ?? 0, value ?? 0),
    );
    const pad = (value: number): string => String(value).padStart(2, "0");
    const date = `${pad(century)}${pad(year)}-${pad(month)}-${pad(day)}`;
    const ms = Date.parse(`${date}T${pad(hours)}:${pad(minutes)}:${pad(seconds)}Z`);
    // A day that the month does not have is carried, by rules that the chip's data sheet does not give.
    if (Number.isNaN(ms) || !new Date(ms).toISOString().startsWith(date)) return undefined;
    return ms + partMs - this.#host.wallMs;
  }

  #partOf(ms: number): number {
    return ((ms % 1000) + 1000) % 1000;
  }

  get #isBinary(): boolean {
    return (this.#registerB & 0x04) !== 0;
  }

  get #has24Hours(): boolean {
    return (this.#registerB & 0x02) !== 0;
  }

  #encode(index: number, ms: number): number {
    const text = new Date(ms).toISOString();
    const field = (at: number): number => Number(text.slice(at, at + 2));
    const fields = new Map<number, number>([
      ...([
        [CENTURY, field(0)],
        [0x09, field(2)],
        [0x08, field(5)],
        [0x07, field(8)],
      ] as const),
      ...([
        [0x04, field(11)],
        [0x02, field(14)],
        [0x00, field(17)],
      ] as const),
    ]);
    const value = fields.get(index) ?? 0;
    const digits = (number: number): number => (this.#isBinary ? number : Number.parseInt(String(number), 16));
    if (index !== 0x04 || this.#has24Hours) return digits(value);
    return digits(((value + 11) % 12) + 1) | (value >= 12 ? 0x80 : 0);
  }

  #decode(index: number, value: number): number {
    const digits = (byte: number): number => (this.#isBinary ? byte : Number(byte.toString(16)));
    if (index !== 0x04 || this.#has24Hours) return digits(value);
    return (digits(value & 0x7f) % 12) + ((value & 0x80) !== 0 ? 12 : 0);
  }

  /** Whether a register holds what it can hold as a time. MC146818A, table 3 */
  #isTime(index: number, value: number): boolean {
    const number = index === 0x04 && !this.#has24Hours ? value & 0x7f : value;
    if (!this.#isBinary && !/^\d{1,2}$/.test(number.toString(16))) return false;
    const digits = this.#isBinary ? number : Number(number.toString(16));
    const hours = this.#has24Hours ? ([0, 23] as const) : ([1, 12] as const);
    const limits = [[0, 59], [0, 59], hours, [1, 31], [1, 12], [0, 99], [0, 99]] as const;
    const [least, most] = limits[TIME.indexOf(index)] ?? [0, 0];
    return digits >= least && digits <= most;
  }
}
