import { RegisterBank, type RegisterHandler } from "../../base/registers.ts";
import { gpa, hex, MIB, TWO_POW_32, type Width } from "../../base/units.ts";
import type { PciIdentity } from "../../pci/config-space.ts";
import type { DeviceBar, DeviceHost, DeviceInterrupts, UserPciDevice } from "../server/device.ts";

/** Names of the registers of QEMU's edu device. */
export type EduRegister =
  | "identification"
  | "liveness"
  | "factorial"
  | "status"
  | "interruptStatus"
  | "interruptRaise"
  | "interruptAcknowledge"
  | `dma${"Source" | "Destination" | "Count" | "Command"}${"Low" | "High"}`;

/** QEMU's edu device, docs/specs/edu. The 64-bit DMA registers are two of 32 here. */
const REGISTERS: RegisterBank<EduRegister> = new RegisterBank("edu", 0xa0, [
  [0x00, 4, "identification", "ro"],
  [0x04, 4, "liveness", "rw"],
  [0x08, 4, "factorial", "rw"],
  [0x20, 4, "status", "rw"],
  [0x24, 4, "interruptStatus", "ro"],
  [0x60, 4, "interruptRaise", "wo"],
  [0x64, 4, "interruptAcknowledge", "wo"],
  [0x80, 4, "dmaSourceLow", "rw"],
  [0x84, 4, "dmaSourceHigh", "rw"],
  [0x88, 4, "dmaDestinationLow", "rw"],
  [0x8c, 4, "dmaDestinationHigh", "rw"],
  [0x90, 4, "dmaCountLow", "rw"],
  [0x94, 4, "dmaCountHigh", "rw"],
  [0x98, 4, "dmaCommandLow", "rw"],
  [0x9c, 4, "dmaCommandHigh", "rw"],
]);

/** 0xRRrr00ed: revision 1.0, and who it is. */
const IDENTIFICATION = 0x0100_00ed;
const STATUS_COMPUTING = 0x01;
const STATUS_INTERRUPT = 0x80;
const INTERRUPT_FACTORIAL = 0x001;
const INTERRUPT_DMA = 0x100;
const DMA_RUN = 0x1;
const DMA_TO_RAM = 0x2;
const DMA_INTERRUPT = 0x4;
/** The buffer as DMA addresses it; registers cannot see it. */
const BUFFER_ADDRESS = 0x4_0000;
const BUFFER_BYTES = 4096;
/** The device drives 28 address lines. */
const DMA_ADDRESS_LIMIT = 0x1000_0000;

/** From the 34th on a factorial is a multiple of 2^32. */
const LAST_FACTORIAL = 33;

/**
 * The educational device of QEMU, register for register. It inverts a number, computes a factorial with a delay, and
 * interrupts on demand. It does DMA between guest RAM and a buffer of its own. It answers at BAR 0 with the pin or one
 * MSI message.
 */
export class EduDevice implements UserPciDevice, RegisterHandler<EduRegister> {
  readonly name = "edu";
  readonly identity: PciIdentity = {
    ...{ vendorId: 0x1234, deviceId: 0x11e8, revision: 0x10, classCode: 0x00ff00 },
    ...{ subsystemVendorId: 0x1af4, subsystemId: 0x1100, interruptPin: 1 },
  };
  readonly bars: readonly DeviceBar[] = [
    { request: { kind: "mem32", index: 0, sizeBytes: MIB, isPrefetchable: false }, registers: this },
  ];
  readonly interrupts: DeviceInterrupts = { msi: 1 };
  readonly #host: DeviceHost;
  readonly #buffer: Uint8Array = new Uint8Array(BUFFER_BYTES);
  readonly #values: Map<EduRegister, number> = new Map();
  /** Counts resets: work that began before one is forgotten. */
  #life = 0;

  constructor(host: DeviceHost) {
    this.#host = host;
  }

  /** The device takes words only; what it does not have reads as all ones. */
  read(offset: number, width: Width): number {
    return width === 4 && isRegister(offset) ? REGISTERS.read(this, offset, width) : 0xffff_ffff;
  }

  write(offset: number, width: Width, value: number): void {
    if (width === 4 && isRegister(offset)) REGISTERS.write(this, offset, width, value);
  }

  readRegister(name: EduRegister): number {
    return name === "identification" ? IDENTIFICATION : this.#get(name);
  }

  writeRegister(name: EduRegister, value: number): void {
    const isBusy = (this.#get("dmaCommandLow") & DMA_RUN) !== 0;
    if (name === "liveness") this.#values.set(name, ~value >>> 0);
    else if (name === "factorial") this.#startFactorial(value);
    else if (name === "status") this.#setStatus(value & STATUS_INTERRUPT, STATUS_INTERRUPT);
    else if (name === "interruptRaise") this.#raise(value);
    else if (name === "interruptAcknowledge") this.#acknowledge(value);
    else if (!isBusy) {
      this.#values.set(name, value);
      if (name === "dmaCommandLow" && (value & DMA_RUN) !== 0) this.#later(() => this.#transfer(value));
    }
  }

  reset(): void {
    this.#life++;
    this.#values.clear();
    this.#buffer.fill(0);
    this.#host.setIntx(false);
  }

  #get(name: EduRegister): number {
    return this.#values.get(name) ?? 0;
  }

  #setStatus(bits: number, mask: number): void {
    this.#values.set("status", (this.#get("status") & ~mask) | bits);
  }

  /** The guest sees the device at work for a turn of the event loop. */
  #later(work: () => void): void {
    const life = this.#life;
    setImmediate(() => {
      if (life === this.#life) work();
    });
  }

  #startFactorial(value: number): void {
    if ((this.#get("status") & STATUS_COMPUTING) !== 0) return;
    this.#values.set("factorial", value);
    this.#setStatus(STATUS_COMPUTING, STATUS_COMPUTING);
    this.#later(() => {
      let product = value > LAST_FACTORIAL ? 0 : 1;
      for (let factor = 2; factor <= Math.min(value, LAST_FACTORIAL); factor++) product = Math.imul(product, factor);
      this.#values.set("factorial", product >>> 0);
      this.#setStatus(0, STATUS_COMPUTING);
      if ((this.#get("status") & STATUS_INTERRUPT) !== 0) this.#raise(INTERRUPT_FACTORIAL);
    });
  }

  #raise(bits: number): void {
    const status = (this.#get("interruptStatus") | bits) >>> 0;
    this.#values.set("interruptStatus", status);
    if (status === 0) return;
    if (this.#host.usesMessages) this.#host.signal(0);
    else this.#host.setIntx(true);
  }

  #acknowledge(bits: number): void {
    const status = (this.#get("interruptStatus") & ~bits) >>> 0;
    this.#values.set("interruptStatus", status);
    if (status === 0) this.#host.setIntx(false);
  }

  #transfer(command: number): void {
    const [from, to, count] = [this.#get64("Source"), this.#get64("Destination"), this.#get64("Count")];
    const isToRam = (command & DMA_TO_RAM) !== 0;
    const start = (isToRam ? from : to) - BUFFER_ADDRESS;
    const address = gpa((isToRam ? to : from) % DMA_ADDRESS_LIMIT);
    if (start < 0 || start + count > BUFFER_BYTES) {
      this.#host.report(
        "warn",
        `edu: a transfer of ${hex(count)} bytes at ${hex(start + BUFFER_ADDRESS)} leaves its buffer`,
      );
    } else {
      const part = this.#buffer.subarray(start, start + count);
      const isDone = isToRam ? this.#host.memory.write(address, part) : this.#host.memory.read(address, part);
      if (!isDone) this.#host.report("warn", `edu: no memory of ${hex(count)} bytes is at ${hex(address)}`);
    }
    this.#values.set("dmaCommandLow", command & ~DMA_RUN);
    if ((command & DMA_INTERRUPT) !== 0) this.#raise(INTERRUPT_DMA);
  }

  #get64(name: "Source" | "Destination" | "Count"): number {
    return this.#get(`dma${name}High`) * TWO_POW_32 + this.#get(`dma${name}Low`);
  }
}

const isRegister = (offset: number): boolean => REGISTERS.rows.some(([start]) => offset === start);
