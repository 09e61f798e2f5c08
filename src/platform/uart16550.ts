import { BankDevice, RegisterBank } from "../base/registers.ts";
import type { InterruptLine } from "../base/signals.ts";

type UartRegister = "data" | "IER" | "IIR_FCR" | "LCR" | "MCR" | "LSR" | "MSR" | "SCR";

export const UART_SIZE = 8;

/**
 * PC16550D §8, table II. With LCR's DLAB bit the first two are the divisor; the third reads as IIR and writes as FCR.
 */
const REGISTERS: RegisterBank<UartRegister> = new RegisterBank("uart16550", UART_SIZE, [
  [0, 1, "data", "rw"],
  [1, 1, "IER", "rw"],
  [2, 1, "IIR_FCR", "rw"],
  [3, 1, "LCR", "rw"],
  [4, 1, "MCR", "rw"],
  [5, 1, "LSR", "ro"],
  [6, 1, "MSR", "ro"],
  [7, 1, "SCR", "rw"],
]);

const IER_RECEIVED = 0x01;
const IER_TRANSMITTER_EMPTY = 0x02;
const IER_LINE_STATUS = 0x04;
const IER_MODEM_STATUS = 0x08;
const IER_WRITABLE = 0x0f;

const IIR_NONE = 0x01;
const IIR_LINE_STATUS = 0x06;
const IIR_RECEIVED = 0x04;
const IIR_TIMEOUT = 0x0c;
const IIR_TRANSMITTER_EMPTY = 0x02;
const IIR_MODEM_STATUS = 0x00;
const IIR_FIFOS_ENABLED = 0xc0;

const FCR_ENABLE = 0x01;
const FCR_CLEAR_RECEIVER = 0x02;
const FCR_TRIGGER_SHIFT = 6;
const TRIGGER_LEVELS = [1, 4, 8, 14] as const;
const FIFO_SIZE = 16;

const LCR_DLAB = 0x80;

const MCR_DTR = 0x01;
const MCR_RTS = 0x02;
const MCR_OUT1 = 0x04;
const MCR_OUT2 = 0x08;
const MCR_LOOP = 0x10;
const MCR_WRITABLE = 0x1f;

const LSR_DATA_READY = 0x01;
const LSR_OVERRUN = 0x02;
const LSR_TRANSMITTER_IDLE = 0x60; // THRE and TEMT: what is written leaves at once

const MSR_CTS = 0x10;
const MSR_DSR = 0x20;
const MSR_RI = 0x40;
const MSR_DCD = 0x80;
const MSR_DELTA_CTS = 0x01;
const MSR_DELTA_DSR = 0x02;
const MSR_TRAILING_RI = 0x04;
const MSR_DELTA_DCD = 0x08;
/** The other end is always there. */
const MSR_CONNECTED: number = MSR_CTS | MSR_DSR | MSR_DCD;

/** What the chip is soldered to. Each is called on the device thread, from inside a guest's access. */
export interface UartSocket {
  /** Follows INTR, gated by OUT2 as on every PC. */
  readonly line: InterruptLine;
  /** A byte left the transmitter. */
  transmit(byte: number): void;
  /** The receiver is empty again after {@link Uart16550.receive} refused bytes. It may call `receive` at once. */
  onRoom(): void;
}

/**
 * A 16550A with its FIFOs; it knows no file, terminal or thread. The wire is infinitely fast: THR is empty as soon as
 * it is written, and the four character times of the receiver's timeout have always passed. Baud rate, word length and
 * parity are kept but have no effect, since a guest that never set them still expects its bytes whole. PC16550D data
 * sheet, §8
 */
export class Uart16550 extends BankDevice<UartRegister> {
  readonly name: string;
  readonly #socket: UartSocket;
  readonly #received = new DataView(new ArrayBuffer(FIFO_SIZE)); // a ring
  #receivedStart = 0;
  #receivedCount = 0;
  #hasRefused = false;
  #hasOverrun = false;
  #isTransmitterEmptyPending = false;
  #hasFifos = false;
  #trigger = 1;
  #interruptEnable = 0;
  #lineControl = 0;
  #modemControl = 0;
  #modemStatus: number = MSR_CONNECTED;
  #scratch = 0;
  #divisor = 0x000c; // 9600 baud
  #isLineHigh = false;

  constructor(name: string, socket: UartSocket) {
    super(REGISTERS);
    this.name = name;
    this.#socket = socket;
  }

  /**
   * Puts bytes on the receiving wire.
   *
   * @returns How many were taken, from the start. The rest must be offered again when {@link UartSocket.onRoom} is
   *   called: nothing is lost.
   */
  receive(bytes: Uint8Array): number {
    const isLooped = (this.#modemControl & MCR_LOOP) !== 0; // the wire is cut off
    const room = isLooped ? 0 : this.#capacity - this.#receivedCount;
    const count = Math.max(0, Math.min(room, bytes.length));
    for (let index = 0; index < count; index++) this.#pushReceived(bytes[index] ?? 0);
    if (count < bytes.length) this.#hasRefused = true;
    this.#updateLine();
    return count;
  }

  /** Back to the state after power-on. Bytes the guest had not read are lost, as in hardware. */
  reset(): void {
    this.#interruptEnable = 0;
    this.#lineControl = 0;
    this.#modemControl = 0;
    this.#modemStatus = MSR_CONNECTED;
    this.#scratch = 0;
    this.#divisor = 0x000c;
    this.#hasFifos = false;
    this.#trigger = 1;
    this.#hasOverrun = false;
    this.#isTransmitterEmptyPending = false;
    this.#clearReceiver();
    this.#updateLine();
  }

  override describe(offset: number): string | undefined {
    const isDivisor = offset < 2 && (this.#lineControl & LCR_DLAB) !== 0;
    return isDivisor ? (offset === 0 ? "DLL" : "DLM") : super.describe(offset);
  }

  readRegister(name: UartRegister): number {
    const isDivisor = (this.#lineControl & LCR_DLAB) !== 0;
    switch (name) {
      case "data":
        return isDivisor ? this.#divisor & 0xff : this.#takeReceived();
      case "IER":
        return isDivisor ? this.#divisor >>> 8 : this.#interruptEnable;
      case "IIR_FCR":
        return this.#identifyInterrupt() | (this.#hasFifos ? IIR_FIFOS_ENABLED : 0);
      case "LCR":
        return this.#lineControl;
      case "MCR":
        return this.#modemControl;
      case "LSR": {
        const status =
          LSR_TRANSMITTER_IDLE | (this.#receivedCount > 0 ? LSR_DATA_READY : 0) | (this.#hasOverrun ? LSR_OVERRUN : 0);
        this.#hasOverrun = false;
        this.#updateLine();
        return status;
      }
      case "MSR": {
        const status = this.#modemStatus;
        this.#modemStatus &= 0xf0;
        this.#updateLine();
        return status;
      }
      case "SCR":
        return this.#scratch;
      default:
        return name satisfies never;
    }
  }

  writeRegister(name: UartRegister, value: number): void {
    const isDivisor = (this.#lineControl & LCR_DLAB) !== 0;
    switch (name) {
      case "data":
        if (isDivisor) this.#divisor = (this.#divisor & 0xff00) | value;
        else this.#transmit(value);
        return;
      case "IER":
        if (isDivisor) this.#divisor = (this.#divisor & 0x00ff) | (value << 8);
        else this.#setInterruptEnable(value & IER_WRITABLE);
        return;
      case "IIR_FCR":
        this.#setFifoControl(value);
        return;
      case "LCR":
        this.#lineControl = value;
        return;
      case "MCR":
        this.#setModemControl(value & MCR_WRITABLE);
        return;
      case "SCR":
        this.#scratch = value;
        return;
      case "LSR":
      case "MSR":
        return;
      default:
        name satisfies never;
    }
  }

  get #capacity(): number {
    return this.#hasFifos ? FIFO_SIZE : 1;
  }

  #transmit(byte: number): void {
    if ((this.#modemControl & MCR_LOOP) === 0) {
      this.#socket.transmit(byte);
    } else if (this.#receivedCount < this.#capacity) {
      this.#pushReceived(byte);
    } else {
      this.#hasOverrun = true;
      // Without FIFOs the new byte replaces the old one; with them it is the new byte that is lost.
      if (!this.#hasFifos) this.#received.setUint8(this.#receivedStart, byte);
    }
    this.#isTransmitterEmptyPending = true;
    this.#updateLine();
  }

  #pushReceived(byte: number): void {
    this.#received.setUint8((this.#receivedStart + this.#receivedCount) % FIFO_SIZE, byte);
    this.#receivedCount++;
  }

  #takeReceived(): number {
    if (this.#receivedCount === 0) return 0;
    const byte = this.#received.getUint8(this.#receivedStart);
    this.#receivedStart = (this.#receivedStart + 1) % FIFO_SIZE;
    this.#receivedCount--;
    if (this.#receivedCount === 0) this.#announceRoom();
    this.#updateLine();
    return byte;
  }

  #clearReceiver(): void {
    this.#receivedStart = 0;
    this.#receivedCount = 0;
    this.#announceRoom();
  }

  /**
   * Only when empty: a guest that drains a burst then gets the next sixteen bytes in one go, without another interrupt.
   */
  #announceRoom(): void {
    if (!this.#hasRefused || (this.#modemControl & MCR_LOOP) !== 0) return;
    this.#hasRefused = false;
    this.#socket.onRoom();
  }

  #setInterruptEnable(value: number): void {
    const enabled = value & ~this.#interruptEnable;
    this.#interruptEnable = value;
    // Enabling the source while THR is empty raises it, even if it was taken before: Linux's 8250 driver tests for
    // this.
    if ((enabled & IER_TRANSMITTER_EMPTY) !== 0) this.#isTransmitterEmptyPending = true;
    this.#updateLine();
  }

  #setFifoControl(value: number): void {
    const hasFifos = (value & FCR_ENABLE) !== 0;
    const isSwitched = hasFifos !== this.#hasFifos;
    this.#hasFifos = hasFifos;
    // The other bits count only together with the enable bit.
    this.#trigger = hasFifos ? (TRIGGER_LEVELS[value >>> FCR_TRIGGER_SHIFT] ?? 1) : 1;
    if (isSwitched || (hasFifos && (value & FCR_CLEAR_RECEIVER) !== 0)) this.#clearReceiver();
    this.#updateLine();
  }

  #setModemControl(value: number): void {
    const wasLooped = (this.#modemControl & MCR_LOOP) !== 0;
    this.#modemControl = value;
    const isLooped = (value & MCR_LOOP) !== 0;
    this.#setModemInputs(isLooped ? loopedInputs(value) : MSR_CONNECTED);
    if (wasLooped && !isLooped && this.#receivedCount === 0) this.#announceRoom();
    this.#updateLine();
  }

  #setModemInputs(inputs: number): void {
    const before = this.#modemStatus;
    const changed = (before ^ inputs) & 0xf0;
    this.#modemStatus =
      inputs |
      (before & 0x0f) |
      ((changed & MSR_CTS) !== 0 ? MSR_DELTA_CTS : 0) |
      ((changed & MSR_DSR) !== 0 ? MSR_DELTA_DSR : 0) |
      ((changed & before & MSR_RI) !== 0 ? MSR_TRAILING_RI : 0) |
      ((changed & MSR_DCD) !== 0 ? MSR_DELTA_DCD : 0);
  }

  /** The highest of the enabled sources. Reading IIR takes the transmitter's, and no other. PC16550D §8.6 */
  #identifyInterrupt(): number {
    const source = this.#interruptSource();
    if (source === IIR_TRANSMITTER_EMPTY) {
      this.#isTransmitterEmptyPending = false;
      this.#updateLine();
    }
    return source;
  }

  #interruptSource(): number {
    const enabled = this.#interruptEnable;
    if ((enabled & IER_LINE_STATUS) !== 0 && this.#hasOverrun) return IIR_LINE_STATUS;
    if ((enabled & IER_RECEIVED) !== 0 && this.#receivedCount > 0) {
      return this.#receivedCount >= this.#trigger ? IIR_RECEIVED : IIR_TIMEOUT;
    }
    if ((enabled & IER_TRANSMITTER_EMPTY) !== 0 && this.#isTransmitterEmptyPending) return IIR_TRANSMITTER_EMPTY;
    if ((enabled & IER_MODEM_STATUS) !== 0 && (this.#modemStatus & 0x0f) !== 0) return IIR_MODEM_STATUS;
    return IIR_NONE;
  }

  #updateLine(): void {
    // The loop forces the OUT2 pin inactive, and with it the gate of the PC's interrupt line.
    const isGateOpen = (this.#modemControl & (MCR_OUT2 | MCR_LOOP)) === MCR_OUT2;
    const isHigh = isGateOpen && this.#interruptSource() !== IIR_NONE;
    if (isHigh === this.#isLineHigh) return;
    this.#isLineHigh = isHigh;
    this.#socket.line.setLevel(isHigh);
  }
}

/** The loop ties the modem outputs to the inputs. PC16550D §8.7 */
function loopedInputs(modemControl: number): number {
  return (
    ((modemControl & MCR_RTS) !== 0 ? MSR_CTS : 0) |
    ((modemControl & MCR_DTR) !== 0 ? MSR_DSR : 0) |
    ((modemControl & MCR_OUT1) !== 0 ? MSR_RI : 0) |
    ((modemControl & MCR_OUT2) !== 0 ? MSR_DCD : 0)
  );
}
