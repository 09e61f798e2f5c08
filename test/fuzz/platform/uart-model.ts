import { type ByteRegisters, type Events, hex } from "./device-model.ts";

/** Bytes each FIFO holds. */
const FIFO = 16;

/**
 * A 16550A on a wire that is infinitely fast, with a host that loses nothing: what waits is offered again when the
 * receiver is empty. PC16550D data sheet, §8
 */
export class UartModel implements ByteRegisters {
  readonly #events: Events;
  #received: number[] = [];
  /** On the host's side. */
  readonly #waiting: number[] = [];
  #hasRefused = false;
  #hasOverrun = false;
  #isThrePending = false;
  #hasFifos = false;
  #trigger = 1;
  #ier = 0;
  #lcr = 0;
  #mcr = 0;
  #msr = 0xb0; // CTS, DSR and DCD
  #scr = 0;
  readonly #divisor: [low: number, high: number] = [0x0c, 0];

  constructor(events: Events) {
    this.#events = events;
  }

  /** INTR behind OUT2, which the loop opens. §8.7 */
  get isLineHigh(): boolean {
    return (this.#mcr & 0x18) === 0x08 && this.#source() !== 0x01;
  }

  get waitingBytes(): number {
    return this.#waiting.length;
  }

  type(bytes: readonly number[]): void {
    this.#waiting.push(...bytes);
    this.#offer();
  }

  readByte(offset: number): number {
    const isDivisor = (this.#lcr & 0x80) !== 0;
    switch (offset) {
      case 0:
        return isDivisor ? this.#divisor[0] : this.#take();
      case 1:
        return isDivisor ? this.#divisor[1] : this.#ier;
      case 2: {
        const source = this.#source();
        if (source === 0x02) this.#isThrePending = false; // §8.6: reading takes this one only
        return source | (this.#hasFifos ? 0xc0 : 0);
      }
      case 3:
        return this.#lcr;
      case 4:
        return this.#mcr;
      case 5: {
        const status = 0x60 | (this.#received.length > 0 ? 0x01 : 0) | (this.#hasOverrun ? 0x02 : 0);
        this.#hasOverrun = false;
        return status;
      }
      case 6: {
        const status = this.#msr;
        this.#msr &= 0xf0;
        return status;
      }
      default:
        return this.#scr;
    }
  }

  writeByte(offset: number, value: number): void {
    const isDivisor = (this.#lcr & 0x80) !== 0;
    switch (offset) {
      case 0:
        if (isDivisor) this.#divisor[0] = value;
        else this.#transmit(value);
        return;
      case 1:
        if (isDivisor) this.#divisor[1] = value;
        else this.#enable(value & 0x0f);
        return;
      case 2:
        return this.#setFifos(value);
      case 3:
        this.#lcr = value;
        return;
      case 4:
        return this.#setModem(value & 0x1f);
      case 7:
        this.#scr = value;
        return;
      default: // LSR and MSR are read-only
    }
  }

  /** Bytes may lie here at most; fewer than the host may still offer. */
  get #room(): number {
    return (this.#hasFifos ? FIFO : 1) - this.#received.length;
  }

  get #isLooped(): boolean {
    return (this.#mcr & 0x10) !== 0;
  }

  #offer(): void {
    if (this.#waiting.length === 0) return;
    const room = this.#isLooped ? 0 : Math.max(0, this.#room);
    this.#received.push(...this.#waiting.splice(0, room));
    if (this.#waiting.length > 0) this.#hasRefused = true;
  }

  #announceRoom(): void {
    if (!this.#hasRefused || this.#isLooped) return;
    this.#hasRefused = false;
    this.#offer();
  }

  #take(): number {
    const byte = this.#received.shift();
    if (byte === undefined) return 0;
    if (this.#received.length === 0) this.#announceRoom();
    return byte;
  }

  #transmit(byte: number): void {
    if (!this.#isLooped) this.#events.expected.push(`output ${hex(byte)}`);
    else if (this.#room > 0) this.#received.push(byte);
    else {
      this.#hasOverrun = true;
      // §8.4.1: without FIFOs the byte in the receiver buffer is destroyed, with them the one in the shift register.
      if (!this.#hasFifos) this.#received[0] = byte;
    }
    this.#isThrePending = true;
  }

  #enable(value: number): void {
    if ((value & ~this.#ier & 0x02) !== 0) this.#isThrePending = true;
    this.#ier = value;
  }

  /** §8.5: a change of bit 0 empties the FIFOs; the other bits count together with it. */
  #setFifos(value: number): void {
    const hasFifos = (value & 0x01) !== 0;
    const clears = hasFifos !== this.#hasFifos || (hasFifos && (value & 0x02) !== 0);
    this.#hasFifos = hasFifos;
    this.#trigger = hasFifos ? ([1, 4, 8, 14][value >>> 6] ?? 1) : 1;
    if (!clears) return;
    this.#received = [];
    this.#announceRoom();
  }

  #setModem(value: number): void {
    const wasLooped = this.#isLooped;
    this.#mcr = value;
    // §8.7: RTS, DTR, OUT1, OUT2 become CTS, DSR, RI, DCD.
    const looped = ((value & 0x02) << 3) | ((value & 0x01) << 5) | ((value & 0x04) << 4) | ((value & 0x08) << 4);
    const inputs = this.#isLooped ? looped : 0xb0;
    const changed = (this.#msr ^ inputs) & 0xf0;
    const trailing = changed & this.#msr & 0x40; // §8.8: RI counts when it falls
    this.#msr = inputs | (this.#msr & 0x0f) | ((changed & 0xb0) >>> 4) | (trailing >>> 4);
    if (wasLooped && !this.#isLooped && this.#received.length === 0) this.#announceRoom();
  }

  /** Table IV: line status, received data, timeout, transmitter, modem. */
  #source(): number {
    if ((this.#ier & 0x04) !== 0 && this.#hasOverrun) return 0x06;
    if ((this.#ier & 0x01) !== 0 && this.#received.length > 0)
      return this.#received.length >= this.#trigger ? 0x04 : 0x0c;
    if ((this.#ier & 0x02) !== 0 && this.#isThrePending) return 0x02;
    return (this.#ier & 0x08) !== 0 && (this.#msr & 0x0f) !== 0 ? 0x00 : 0x01;
  }
}
