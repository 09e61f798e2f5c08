import { SerialPort } from "../../../platform/serial-port.ts";
import { UART_SIZE } from "../../../platform/uart16550.ts";
import { VirtioConsole } from "../../../virtio/console.ts";
import { GSIS, PORTS } from "../../shared/memory-map.ts";
import type { DeviceKind } from "./device-kind.ts";
import { virtioFunction } from "./virtio.ts";

export const serial: DeviceKind<"serial"> = {
  part: "serial",
  make: (_spec, board) => {
    const end = board.ends.characters.serial;
    if (end === undefined) return [];
    const line = board.wires.line(GSIS.com1, "COM1");
    const port: SerialPort = new SerialPort("COM1", line, end, () => board.flushLater(port));
    board.ports.attach(PORTS.com1, UART_SIZE, port.uart);
    board.setPrinter((byte) => port.print(byte));
    return [];
  },
};

export const console: DeviceKind<"console"> = {
  part: "console",
  make: (_spec, board) => {
    const { console: end, consoleSize } = board.ends.characters;
    if (end === undefined) return [];
    return [
      virtioFunction(board, "console", () => {
        const device = new VirtioConsole("console", end, consoleSize);
        board.onResize((columns, rows) => device.resize(columns, rows));
        return device;
      }),
    ];
  },
};
