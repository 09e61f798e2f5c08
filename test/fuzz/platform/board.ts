import type { Clock } from "../../../src/base/backends.ts";
import { Bus, type BusDevice } from "../../../src/base/bus.ts";
import type { Width } from "../../../src/base/units.ts";
import { AcpiPm } from "../../../src/platform/acpi-pm.ts";
import { DebugExitPort, PostCodePort } from "../../../src/platform/debug-port.ts";
import { I8042 } from "../../../src/platform/i8042.ts";
import { TestdevFlush, TestdevLines, TestdevMemory, TestdevOutput } from "../../../src/platform/pc-testdev.ts";
import { RtcCmos } from "../../../src/platform/rtc-cmos.ts";
import { SerialPort } from "../../../src/platform/serial-port.ts";
import { FakeLine } from "../../support/fake-line.ts";
import { ClockModel } from "./clock-model.ts";
import { bytewise, type DeviceModel, Events, hex } from "./device-model.ts";
import { MEMORY, type Operation, PORTS, type PortDevice } from "./operations.ts";
import { debugExitModel, KeyboardModel, PowerModel, postCodeModel } from "./power-model.ts";
import { bytesModel, flushModel, linesModel, outputModel } from "./testdev-model.ts";
import { UartModel } from "./uart-model.ts";

const START_MS: number = Date.parse("2026-02-28T23:59:58.250Z");

interface Range {
  readonly base: number;
  readonly sizeBytes: number;
  readonly model: DeviceModel;
}

/** Where the devices' bytes go and come from; what is typed and not taken waits. */
class Terminal {
  readonly #events: Events;
  #take: (bytes: Uint8Array) => number = () => 0;
  #waiting: readonly number[] = [];

  constructor(events: Events) {
    this.#events = events;
  }

  type(bytes: readonly number[]): void {
    this.#waiting = [...this.#waiting, ...bytes];
    this.inputReady();
  }

  write(bytes: Uint8Array): void {
    for (const byte of bytes) this.#events.seen.push(`output ${hex(byte)}`);
  }

  onInput(take: (bytes: Uint8Array) => number): void {
    this.#take = take;
  }

  inputReady(): void {
    if (this.#waiting.length > 0) this.#waiting = this.#waiting.slice(this.#take(Uint8Array.from(this.#waiting)));
  }

  close(): void {
    // Holds nothing.
  }
}

/** The fixed devices of a machine on their buses, each with its model. */
export class FuzzedBoard {
  readonly #events = new Events();
  readonly #buses: Readonly<Record<"ports" | "mmio", Bus>> = { ports: new Bus("ports"), mmio: new Bus("mmio") };
  readonly #ranges: Readonly<Record<"ports" | "mmio", Range[]>> = { ports: [], mmio: [] };
  readonly #host = { wallMs: START_MS, ns: 1_000_000_000n };
  readonly #uptime = { ns: 0n };
  readonly #terminal = new Terminal(this.#events);
  readonly #comLine = new FakeLine(4);
  readonly #pmLine = new FakeLine(9);
  readonly #lines = Array.from({ length: 24 }, (_, pin) => new FakeLine(pin));
  readonly #levels: boolean[] = this.#lines.map(() => false);
  readonly #uart = new UartModel(this.#events);
  readonly #clock = new ClockModel(this.#host);
  readonly #power = new PowerModel(this.#events, this.#uptime);
  readonly #pm: AcpiPm;
  #typed = 0;

  constructor() {
    const clock: Clock = { monotonicNs: () => this.#host.ns, wallMs: () => this.#host.wallMs };
    const see = (text: string): void => void this.#events.seen.push(text);
    const serial = new SerialPort("COM1", this.#comLine, this.#terminal);
    this.#pm = new AcpiPm(clock, this.#pmLine, {
      powerOff: () => see("power off"),
      reset: () => see("reset"),
      ejectSlot: (slot) => see(`eject ${slot}`),
    });
    const scratch = new Uint8Array(4);
    const scratchModel = new Uint8Array(4);
    this.#attach("uart", serial.uart, bytewise("COM1", this.#uart));
    const rtc = new RtcCmos(clock, { lowBytes: 2 ** 30, highBytes: 0 });
    this.#attach("clock", rtc, bytewise("clock", this.#clock));
    this.#attach("i8042", new I8042(() => see("reset")), bytewise("i8042", new KeyboardModel(this.#events)));
    this.#attach("power", this.#pm, bytewise("acpi-pm", this.#power));
    this.#attach("postCode", new PostCodePort(), postCodeModel());
    this.#attach("debugExit", new DebugExitPort((value) => see(`exit ${value}`)), debugExitModel(this.#events));
    this.#attach("scratch", new TestdevMemory("scratch", scratch), bytesModel("scratch", scratchModel));
    this.#attach("scratchBytes", new TestdevMemory("bytes", scratch), bytesModel("bytes", scratchModel));
    this.#attach("flush", new TestdevFlush((page) => see(`flush ${hex(page)}`)), flushModel(this.#events));
    this.#attach("lines", new TestdevLines(this.#lines), linesModel(this.#levels));
    const print = (byte: number): void => serial.print(byte);
    this.#attach("output", new TestdevOutput(print), outputModel(this.#events));
    const { base, sizeBytes } = MEMORY;
    this.#buses.mmio.attach(base, sizeBytes, new TestdevMemory("memory", new Uint8Array(sizeBytes)));
    this.#ranges.mmio.push({ base, sizeBytes, model: bytesModel("memory", new Uint8Array(sizeBytes)) });
  }

  /** @returns What is wrong now. */
  run(operation: Operation): string | undefined {
    return this.#execute(operation) ?? this.#events.judge() ?? this.#judgeLines();
  }

  #attach(name: PortDevice, device: BusDevice, model: DeviceModel): void {
    const [base, sizeBytes] = PORTS[name];
    this.#buses.ports.attach(base, sizeBytes, device);
    this.#ranges.ports.push({ base, sizeBytes, model });
  }

  #execute(operation: Operation): string | undefined {
    switch (operation.op) {
      case "access":
        return this.#access(operation);
      case "type": {
        const bytes = Array.from({ length: operation.count }, () => this.#typed++ & 0xff);
        this.#uart.type(bytes);
        this.#terminal.type(bytes);
        return undefined;
      }
      case "pass":
        this.#host.wallMs += operation.ms;
        this.#host.ns += BigInt(operation.ms) * 1_000_000n;
        this.#uptime.ns += BigInt(operation.ms) * 1_000_000n;
        this.#clock.ticked();
        return undefined;
      case "setHost":
        this.#host.wallMs += operation.byMs;
        this.#clock.ticked();
        return undefined;
      case "powerButton":
        this.#power.pressButton();
        this.#pm.pressPowerButton();
        return undefined;
      case "requestEject":
        this.#power.requestEject(operation.slot);
        this.#pm.requestEject(operation.slot);
        return undefined;
      default:
        return operation satisfies never;
    }
  }

  #access({ bus, address, width, value }: Extract<Operation, { op: "access" }>): string | undefined {
    if (value === undefined) {
      const found = this.#buses[bus].read(address, width);
      const isFit = Number.isInteger(found) && found >= 0 && found < 2 ** (8 * width);
      return isFit ? this.#judgeRead(bus, address, width, found) : `a read of ${width} bytes answers ${found}`;
    }
    const whole = this.#find(bus, address, width);
    if (whole !== undefined) whole.model.write(address - whole.base, width, value);
    else {
      for (let byte = 0; byte < width; byte++) {
        const range = this.#find(bus, address + byte, 1);
        range?.model.write(address + byte - range.base, 1, (value >>> (8 * byte)) & 0xff);
      }
    }
    this.#buses[bus].write(address, width, value);
    return undefined;
  }

  #judgeRead(bus: "ports" | "mmio", address: number, width: Width, found: number): string | undefined {
    const whole = this.#find(bus, address, width);
    if (whole !== undefined) return whole.model.judgeRead(address - whole.base, width, found);
    let wrong: string | undefined;
    for (let byte = 0; byte < width; byte++) {
      const part = Math.floor(found / 2 ** (8 * byte)) & 0xff;
      const range = this.#find(bus, address + byte, 1);
      const stray = part === 0xff ? undefined : `an unclaimed address reads ${hex(part)}`;
      wrong ??= range === undefined ? stray : range.model.judgeRead(address + byte - range.base, 1, part);
    }
    return wrong;
  }

  /** The range that holds all of an access; accesses across its end are split into bytes. */
  #find(bus: "ports" | "mmio", address: number, width: number): Range | undefined {
    return this.#ranges[bus].find(({ base, sizeBytes }) => address >= base && address + width <= base + sizeBytes);
  }

  #judgeLines(): string | undefined {
    if (this.#comLine.isHigh !== this.#uart.isLineHigh)
      return `COM1's line is ${this.#comLine.isHigh ? "high" : "low"}`;
    if (this.#pmLine.isHigh !== this.#power.isLineHigh) return `ACPI's line is ${this.#pmLine.isHigh ? "high" : "low"}`;
    const wrong = this.#lines.findIndex(({ isHigh }, pin) => isHigh !== this.#levels[pin]);
    return wrong < 0 ? undefined : `the test device's line ${wrong} is not as written`;
  }
}
