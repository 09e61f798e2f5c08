/*
 * vfio-user 0.1: numbers and layouts under the specification's names ("vfio-user Protocol Specification", QEMU
 * docs/interop). Structs that it shares with <linux/vfio.h> are in abi.ts. Everything is in host order, which is little
 * endian here.
 */

export const VFIO_USER_MAJOR = 0;
export const VFIO_USER_MINOR = 1;

/** Commands; all but the DMA ones go from client to server. */
export const VFIO_USER_VERSION = 1;
export const VFIO_USER_DMA_MAP = 2;
export const VFIO_USER_DMA_UNMAP = 3;
export const VFIO_USER_DEVICE_GET_INFO = 4;
export const VFIO_USER_DEVICE_GET_REGION_INFO = 5;
export const VFIO_USER_DEVICE_GET_REGION_IO_FDS = 6;
export const VFIO_USER_DEVICE_GET_IRQ_INFO = 7;
export const VFIO_USER_DEVICE_SET_IRQS = 8;
export const VFIO_USER_REGION_READ = 9;
export const VFIO_USER_REGION_WRITE = 10;
export const VFIO_USER_DMA_READ = 11;
export const VFIO_USER_DMA_WRITE = 12;
export const VFIO_USER_DEVICE_RESET = 13;

/** Flags of a message. */
export const VFIO_USER_FLAG_TYPE = 0xf;
export const VFIO_USER_TYPE_COMMAND = 0;
export const VFIO_USER_TYPE_REPLY = 1;
export const VFIO_USER_FLAG_NO_REPLY: number = 1 << 4;
export const VFIO_USER_FLAG_ERROR: number = 1 << 5;

/** What a side that does not say otherwise can take. */
export const DEFAULT_MAX_MSG_FDS = 1;
export const DEFAULT_MAX_DATA_XFER_SIZE = 1_048_576;

/** The header of every message; `message_size` counts itself. */
export const USER_HEADER = { size: 16, message_id: 0, command: 2, message_size: 4, flags: 8, error: 12 } as const;

/** VFIO_USER_VERSION; JSON with a NUL behind it follows. */
export const USER_VERSION = { size: 4, major: 0, minor: 2, version_data: 4 } as const;

/** VFIO_USER_DMA_MAP; `offset` is in the file whose descriptor comes along. */
export const USER_DMA_MAP = { size: 32, argsz: 0, flags: 4, offset: 8, address: 16, map_size: 24 } as const;

/** VFIO_USER_DMA_UNMAP */
export const USER_DMA_UNMAP = { size: 24, argsz: 0, flags: 4, address: 8, unmap_size: 16 } as const;

/** VFIO_USER_DEVICE_GET_REGION_IO_FDS; sub-regions follow in the reply. */
export const USER_REGION_IO_FDS = { size: 16, argsz: 0, flags: 4, index: 8, count: 12 } as const;

/** VFIO_USER_REGION_READ and _WRITE; data follow in a write and in the reply to a read. */
export const USER_REGION_ACCESS = { size: 16, offset: 0, region: 8, count: 12 } as const;

/** VFIO_USER_DMA_READ and _WRITE; data follow in a write and in the reply to a read. */
export const USER_DMA_ACCESS = { size: 16, address: 0, count: 8 } as const;

const NAMES: Readonly<Record<number, string>> = {
  [VFIO_USER_VERSION]: "VERSION",
  [VFIO_USER_DMA_MAP]: "DMA_MAP",
  [VFIO_USER_DMA_UNMAP]: "DMA_UNMAP",
  [VFIO_USER_DEVICE_GET_INFO]: "DEVICE_GET_INFO",
  [VFIO_USER_DEVICE_GET_REGION_INFO]: "DEVICE_GET_REGION_INFO",
  [VFIO_USER_DEVICE_GET_REGION_IO_FDS]: "DEVICE_GET_REGION_IO_FDS",
  [VFIO_USER_DEVICE_GET_IRQ_INFO]: "DEVICE_GET_IRQ_INFO",
  [VFIO_USER_DEVICE_SET_IRQS]: "DEVICE_SET_IRQS",
  [VFIO_USER_REGION_READ]: "REGION_READ",
  [VFIO_USER_REGION_WRITE]: "REGION_WRITE",
  [VFIO_USER_DMA_READ]: "DMA_READ",
  [VFIO_USER_DMA_WRITE]: "DMA_WRITE",
  [VFIO_USER_DEVICE_RESET]: "DEVICE_RESET",
};

/** A command's name, for messages. */
export const commandName = (command: number): string => `VFIO_USER_${NAMES[command] ?? `command ${command}`}`;
