import { BankDevice, RegisterBank } from "../base/registers.ts";

type ControllerRegister = "data" | "systemControlB" | "statusCommand";

/** Ports 0x60 to 0x64. */
export const I8042_SIZE = 5;

const REGISTERS: RegisterBank<ControllerRegister> = new RegisterBank("i8042", I8042_SIZE, [
  [0, 1, "data", "rw"],
  [1, 1, "systemControlB", "rw"], // port 0x61; not the controller's, but between its ports
  [4, 1, "statusCommand", "rw"],
]);

const STATUS_OUTPUT_FULL = 0x01;
const STATUS_SYSTEM = 0x04;
const STATUS_COMMAND = 0x08;
const STATUS_UNLOCKED = 0x10;

const READ_COMMAND_BYTE = 0x20;
const WRITE_COMMAND_BYTE = 0x60;
const TEST_AUXILIARY = 0xa9;
const TEST_CONTROLLER = 0xaa;
const TEST_KEYBOARD = 0xab;
const READ_OUTPUT_PORT = 0xd0;
const WRITE_OUTPUT_PORT = 0xd1;
const WRITE_KEYBOARD_BUFFER = 0xd2;
const WRITE_AUXILIARY_BUFFER = 0xd3;
const WRITE_AUXILIARY_DEVICE = 0xd4;
/** 0xf0 to 0xff pulse the output port's lines whose bit is 0; bit 0 is the processors' reset. */
const PULSE = 0xf0;
const OUTPUT_NOT_RESET = 0x01;
const OUTPUT_A20 = 0x02;

const CLOCK_LINE_STUCK_LOW = 0x01;
const SELF_TEST_PASSED = 0x55;
const RESEND = 0xfe; // what the controller answers for a device that does not

const CONTROL_B_WRITABLE = 0x0f;
const CONTROL_B_REFRESH = 0x10;
const CONTROL_B_TIMER2_OUT = 0x20;

/**
 * A keyboard controller without a keyboard: it exists because writing 0xfe to port 0x64 is how PCs are reset.
 *
 * It answers every command that has an answer at once. A probe, which waits half a second for each answer, then ends
 * quickly and finds no device. The FADT says that there is no 8042, so Linux with ACPI does not probe. It drives no
 * interrupt line. Port 0x61 is answered here only where KVM_CREATE_PIT2 was not given KVM_PIT_SPEAKER_DUMMY, which
 * takes it in the kernel.
 */
export class I8042 extends BankDevice<ControllerRegister> {
  readonly name = "i8042";
  readonly #onReset: () => void;
  #commandByte = 0;
  #isOutputFull = false;
  #output = 0;
  #pendingCommand = 0; // waits for its byte at the data port
  #wasCommand = true;
  #systemControlB = 0;
  #isRefreshHigh = false;

  /** @param onReset The guest pulled the processors' reset line; may be called more than once. */
  constructor(onReset: () => void) {
    super(REGISTERS);
    this.#onReset = onReset;
  }

  readRegister(name: ControllerRegister): number {
    switch (name) {
      case "data":
        this.#isOutputFull = false;
        return this.#output;
      case "systemControlB":
        this.#isRefreshHigh = !this.#isRefreshHigh; // old delay loops count its changes
        return this.#systemControlB | CONTROL_B_TIMER2_OUT | (this.#isRefreshHigh ? CONTROL_B_REFRESH : 0);
      case "statusCommand":
        return (
          STATUS_SYSTEM |
          STATUS_UNLOCKED |
          (this.#wasCommand ? STATUS_COMMAND : 0) |
          (this.#isOutputFull ? STATUS_OUTPUT_FULL : 0)
        );
      default:
        return name satisfies never;
    }
  }

  writeRegister(name: ControllerRegister, value: number): void {
    switch (name) {
      case "data":
        this.#wasCommand = false;
        this.#takeData(value);
        return;
      case "systemControlB":
        this.#systemControlB = value & CONTROL_B_WRITABLE;
        return;
      case "statusCommand":
        this.#wasCommand = true;
        this.#takeCommand(value);
        return;
      default:
        name satisfies never;
    }
  }

  #takeCommand(command: number): void {
    this.#pendingCommand = 0;
    switch (command) {
      case READ_COMMAND_BYTE:
        this.#answer(this.#commandByte);
        return;
      case TEST_CONTROLLER:
        this.#answer(SELF_TEST_PASSED);
        return;
      case TEST_AUXILIARY:
      case TEST_KEYBOARD:
        this.#answer(CLOCK_LINE_STUCK_LOW);
        return;
      case READ_OUTPUT_PORT:
        this.#answer(OUTPUT_NOT_RESET | OUTPUT_A20);
        return;
      case WRITE_COMMAND_BYTE:
      case WRITE_OUTPUT_PORT:
      case WRITE_KEYBOARD_BUFFER:
      case WRITE_AUXILIARY_BUFFER:
      case WRITE_AUXILIARY_DEVICE:
        this.#pendingCommand = command;
        return;
      default:
        if ((command & PULSE) === PULSE && (command & OUTPUT_NOT_RESET) === 0) this.#onReset();
    }
  }

  #takeData(value: number): void {
    const command = this.#pendingCommand;
    this.#pendingCommand = 0;
    switch (command) {
      case WRITE_COMMAND_BYTE:
        this.#commandByte = value;
        return;
      case WRITE_OUTPUT_PORT:
        if ((value & OUTPUT_NOT_RESET) === 0) this.#onReset();
        return;
      case WRITE_KEYBOARD_BUFFER:
      case WRITE_AUXILIARY_BUFFER: // comes back unmarked: there is no auxiliary port
        this.#answer(value);
        return;
      default:
        this.#answer(RESEND);
    }
  }

  #answer(value: number): void {
    this.#output = value;
    this.#isOutputFull = true;
  }
}
