import { HostError } from "../../base/errors.ts";
import { PAGE_SIZE } from "../../base/units.ts";
import { MAX_DESCRIPTORS } from "../../host/rights.ts";
import { DEVICE_INFO, VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET } from "../../vfio/abi.ts";
import { vfioStruct } from "../../vfio/calls.ts";
import {
  DEFAULT_MAX_DATA_XFER_SIZE,
  DEFAULT_MAX_MSG_FDS,
  VFIO_USER_DEVICE_GET_INFO,
  VFIO_USER_MAJOR,
  VFIO_USER_MINOR,
  VFIO_USER_VERSION,
} from "../protocol/abi.ts";
import { decodeVersion, encodeVersion } from "../protocol/version.ts";
import type { UserChannel } from "./channel.ts";

/** What a server takes: the client keeps to it. */
export interface ServerLimits {
  /**
   * Descriptors with a message; 0 for a server that takes none: DMA goes by message then, and there are no interrupts.
   */
  readonly maxDescriptors: number;
  /** Bytes that one REGION_READ or REGION_WRITE may move. */
  readonly maxTransferBytes: number;
}

/** What a server says of its device. */
export interface ServerDevice {
  readonly canReset: boolean;
  /** 9 or more for a PCI device; those from 9 on are the device's own. */
  readonly regions: number;
  /** Kinds of interrupt. */
  readonly kinds: number;
}

/** Accesses of a guest are so wide. */
const WIDEST_ACCESS = 4;

/**
 * Agrees on a version. @throws HostError when there is none that both speak, or the server takes too little to be of
 * use.
 */
export function negotiate(channel: UserChannel): ServerLimits {
  const offer = encodeVersion({
    maxMessageDescriptors: MAX_DESCRIPTORS,
    maxTransferBytes: DEFAULT_MAX_DATA_XFER_SIZE,
    pageSizes: PAGE_SIZE,
  });
  const reply = channel.request(VFIO_USER_VERSION, offer);
  const version = decodeVersion(new Uint8Array(reply.buffer, reply.byteOffset, reply.byteLength));
  if (version === undefined) throw channel.lose("its server's version cannot be understood");
  const { major, minor, capabilities } = version;
  if (major !== VFIO_USER_MAJOR || minor > VFIO_USER_MINOR) {
    throw channel.lose(`its server speaks vfio-user ${major}.${minor}, not 0.1`);
  }
  const maxTransferBytes = capabilities.maxTransferBytes ?? DEFAULT_MAX_DATA_XFER_SIZE;
  if (maxTransferBytes < WIDEST_ACCESS) {
    throw channel.lose(
      `its server takes ${maxTransferBytes} bytes at a time (max_data_xfer_size), and accesses have 4`,
    );
  }
  return {
    maxDescriptors: Math.min(MAX_DESCRIPTORS, capabilities.maxMessageDescriptors ?? DEFAULT_MAX_MSG_FDS),
    maxTransferBytes: Math.min(maxTransferBytes, DEFAULT_MAX_DATA_XFER_SIZE),
  };
}

/** VFIO_USER_DEVICE_GET_INFO. @throws HostError for a device that is no PCI device. */
export function queryUserDevice(channel: UserChannel, name: string): ServerDevice {
  const { bytes } = vfioStruct(DEVICE_INFO.size);
  const view = channel.request(VFIO_USER_DEVICE_GET_INFO, bytes);
  if (view.byteLength < DEVICE_INFO.size) throw channel.lose("its server answers DEVICE_GET_INFO too shortly");
  const flags = view.getUint32(DEVICE_INFO.flags, true);
  if ((flags & VFIO_DEVICE_FLAGS_PCI) === 0)
    throw new HostError("TSVMM_USER_DEVICE_UNSUITABLE", `Cannot use ${name}: it is not a PCI device`);
  return {
    canReset: (flags & VFIO_DEVICE_FLAGS_RESET) !== 0,
    regions: view.getUint32(DEVICE_INFO.num_regions, true),
    kinds: view.getUint32(DEVICE_INFO.num_irqs, true),
  };
}
