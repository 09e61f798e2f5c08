import type { CharBackend } from "../base/backends.ts";
import type { InterruptLine } from "../base/signals.ts";
import { OutputBatch } from "./output-batch.ts";
import { Uart16550 } from "./uart16550.ts";

/**
 * A 16550A plugged into a character backend.
 *
 * @example
 * const com1 = new SerialPort("COM1", line, backend, () => wantFlush.add(com1));
 * ports.attach(0x3f8, UART_SIZE, com1.uart);
 */
export class SerialPort {
  readonly uart: Uart16550;
  readonly #output: OutputBatch;

  /**
   * @param wantsFlush Called when output begins to wait for {@link flush}; without it each byte goes to the backend at
   *   once.
   */
  constructor(name: string, line: InterruptLine, backend: CharBackend, wantsFlush?: () => void) {
    this.#output = new OutputBatch((bytes) => backend.write(bytes), wantsFlush);
    this.uart = new Uart16550(name, {
      line,
      transmit: (byte) => this.#output.push(byte),
      onRoom: () => backend.inputReady(),
    });
    backend.onInput((bytes) => this.uart.receive(bytes));
  }

  /** Adds a byte to the output in the order of the chip's own, past its registers. */
  print(byte: number): void {
    this.#output.push(byte);
  }

  /** Hands collected output to the backend: before the device thread sleeps, and once at the end of the machine. */
  flush(): void {
    this.#output.flush();
  }
}
