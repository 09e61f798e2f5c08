import type { Width } from "../../../src/base/units.ts";
import { bytewise, type DeviceModel, type Events, hex } from "./device-model.ts";

/** Bytes that keep what is written. QEMU hw/misc/pc-testdev.c, test_ioport_*, test_iomem_* */
export const bytesModel = (name: string, bytes: Uint8Array): DeviceModel =>
  bytewise(name, {
    readByte: (offset) => bytes[offset],
    writeByte: (offset, value) => {
      bytes[offset] = value;
    },
  });

/** Four bytes are a page to flush, other widths nothing; test_flush_page. */
export const flushModel = (events: Events): DeviceModel => ({
  judgeRead: (_offset, _width, found) => (found === 0 ? undefined : `testdev flush reads ${found}`),
  write: (_offset: number, width: Width, value: number) => {
    if (width === 4) events.expected.push(`flush ${hex(value - (value % 4096))}`);
  },
});

/** A byte a line; test_irq_line, whose accesses are one byte wide. */
export const linesModel = (levels: boolean[]): DeviceModel =>
  bytewise("testdev lines", {
    readByte: () => 0,
    writeByte: (offset, value) => {
      levels[offset] = value !== 0;
    },
  });

/** The low byte of a write is printed. */
export const outputModel = (events: Events): DeviceModel => ({
  judgeRead: (_offset, width, found) => (found === 2 ** (8 * width) - 1 ? undefined : `testdev output reads ${found}`),
  write: (_offset: number, _width: Width, value: number) => events.expected.push(`output ${hex(value & 0xff)}`),
});
