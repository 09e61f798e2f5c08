import type { UserMessage } from "../../../src/vfio-user/protocol/wire.ts";

/** A command that was sent and wants a reply. */
export interface SentCommand {
  readonly id: number;
  readonly command: number;
  readonly payload: Uint8Array;
}

/** Sizes of replies that are none of failure. vfio-user 0.1; the structs of <linux/vfio.h> where it shares them. */
const SIZES: Readonly<Record<number, readonly [least: number, most: number]>> = {
  1: [4, 4096], // VERSION and its JSON
  2: [0, 0], // DMA_MAP
  3: [24, 24], // DMA_UNMAP
  4: [16, 24], // DEVICE_GET_INFO, with cap_offset in newer headers
  5: [32, 32 + 16 + 16], // DEVICE_GET_REGION_INFO and a sparse area
  6: [16, 16], // DEVICE_GET_REGION_IO_FDS without any
  7: [16, 16], // DEVICE_GET_IRQ_INFO
  8: [0, 0], // DEVICE_SET_IRQS
  10: [16, 16], // REGION_WRITE
  13: [0, 0], // DEVICE_RESET
};

/** @returns What is wrong with the reply to a command. */
export function judgeReply({ command, payload }: SentCommand, reply: UserMessage): string | undefined {
  const what = `the reply to command ${command}`;
  if (reply.error !== 0) return reply.payload.length === 0 ? undefined : `${what} is an error with a payload`;
  if (command === 9) return judgeRead(payload, reply.payload);
  const [least, most] = SIZES[command] ?? [-1, -1];
  if (least < 0) return `${what} is none of failure`;
  const { length } = reply.payload;
  return length >= least && length <= most ? undefined : `${what} has ${length} bytes`;
}

/** REGION_READ: the access again, and its bytes. */
function judgeRead(request: Uint8Array, reply: Uint8Array): string | undefined {
  if (request.length < 16) return "a REGION_READ that is cut short was carried out";
  const count = new DataView(request.buffer, request.byteOffset).getUint32(12, true);
  if (reply.length !== 16 + count) return `REGION_READ of ${count} bytes answers ${reply.length - 16}`;
  const isSame = Buffer.compare(reply.subarray(0, 16), request.subarray(0, 16)) === 0;
  return isSame ? undefined : "REGION_READ answers another access";
}
