import { setU64 } from "../../vfio/calls.ts";
import { NVME_BLOCK } from "./nvme-abi.ts";

/** What a controller tells of itself. */
export interface NvmeIdentity {
  /** 20 ASCII characters at most. */
  readonly serial: string;
  readonly blocks: number;
  readonly ioQueues: number;
  readonly isReadOnly: boolean;
}

/** Transfers are at most 2^MDTS pages: 128 KiB. */
export const MDTS = 5;
export const MAX_TRANSFER_BYTES: number = 2 ** MDTS * 4096;
export const MAX_ASYNC_EVENTS = 4;
export const NAMESPACE_ID = 1;
const VERSION_1_4 = 0x0001_0400;
const MODEL = "tsvmm vfio-user NVMe";
const FIRMWARE = "1.0";
/** SMART: 27 °C. */
const TEMPERATURE_KELVIN = 300;

function page(): { readonly bytes: Uint8Array; readonly view: DataView } {
  const bytes = new Uint8Array(4096);
  return { bytes, view: new DataView(bytes.buffer) };
}

/** ASCII, left-justified, padded with spaces. NVMe 1.4 §1.5 */
function putText(bytes: Uint8Array, offset: number, length: number, text: string): void {
  bytes.fill(0x20, offset, offset + length);
  bytes.set(new TextEncoder().encode(text).subarray(0, length), offset);
}

/** Identify controller data structure. NVMe 1.4 §5.15.2.2 */
export function identifyController(identity: NvmeIdentity): Uint8Array {
  const { bytes, view } = page();
  view.setUint16(0, 0x1b36, true); // PCI vendor
  view.setUint16(2, 0x1af4, true); // PCI subsystem vendor
  putText(bytes, 4, 20, identity.serial);
  putText(bytes, 24, 40, MODEL);
  putText(bytes, 64, 8, FIRMWARE);
  bytes[72] = 6; // RAB: arbitration burst
  bytes[77] = MDTS;
  view.setUint16(78, 0, true); // CNTLID
  view.setUint32(80, VERSION_1_4, true);
  bytes[111] = 1; // CNTRLTYPE: I/O controller
  bytes[258] = 3; // ACL: abort commands at a time, minus 1
  bytes[259] = MAX_ASYNC_EVENTS - 1; // AERL
  bytes[260] = 0x03; // FRMW: one firmware slot, read-only
  bytes[262] = 0; // ELPE: one error log entry
  view.setUint16(266, 343, true); // WCTEMP, CCTEMP in kelvin
  view.setUint16(268, 373, true);
  bytes[512] = 0x66; // SQES, CQES: entries of 64 and 16 bytes, neither more nor less
  bytes[513] = 0x44;
  view.setUint32(516, NAMESPACE_ID, true); // NN: how many namespaces
  view.setUint16(520, 0x0008, true); // ONCS: write zeroes
  bytes[525] = 0x01; // VWC: there is a volatile write cache, so flush means something
  const name = `nqn.2024-01.dev.tsvmm:nvme:${identity.serial.trim()}`;
  bytes.set(new TextEncoder().encode(name).subarray(0, 255), 768); // SUBNQN
  view.setUint16(2048, 2500, true); // PSD0: 25 W
  return bytes;
}

/** Identify namespace data structure. NVMe 1.4 §5.15.2.1 */
export function identifyNamespace(identity: NvmeIdentity): Uint8Array {
  const { bytes, view } = page();
  for (const offset of [0, 8, 16]) setU64(view, offset, identity.blocks); // NSZE, NCAP, NUSE
  bytes[99] = identity.isReadOnly ? 1 : 0; // NSATTR: write protected
  bytes.set(namespaceId(identity), 104); // NGUID
  view.setUint32(128, Math.log2(NVME_BLOCK) << 16, true); // LBAF0: no metadata
  return bytes;
}

/** The list of namespaces above `after`. NVMe 1.4 §5.15.2.3 */
export function activeNamespaces(after: number): Uint8Array {
  const { bytes, view } = page();
  if (after < NAMESPACE_ID) view.setUint32(0, NAMESPACE_ID, true);
  return bytes;
}

/** Namespace identification descriptors: the NGUID. NVMe 1.4 §5.15.2.4 */
export function namespaceDescriptors(identity: NvmeIdentity): Uint8Array {
  const { bytes } = page();
  bytes[0] = 2; // NIDT: NGUID
  bytes[1] = 16;
  bytes.set(namespaceId(identity), 4);
  return bytes;
}

/** Counters for the health log. */
export interface NvmeCounters {
  readonly reads: number;
  readonly writes: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

/** SMART / health information. NVMe 1.4 §5.14.1.2 */
export function smartLog(counters: NvmeCounters): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  view.setUint16(1, TEMPERATURE_KELVIN, true);
  bytes[3] = 100; // available spare and its threshold, in percent
  bytes[4] = 10;
  setU64(view, 32, Math.ceil(counters.bytesRead / 512_000)); // in thousands of 512 bytes
  setU64(view, 48, Math.ceil(counters.bytesWritten / 512_000));
  setU64(view, 64, counters.reads);
  setU64(view, 80, counters.writes);
  return bytes;
}

/** Firmware slot information: slot 1 runs. NVMe 1.4 §5.14.1.3 */
export function firmwareLog(): Uint8Array {
  const bytes = new Uint8Array(512);
  bytes[0] = 1;
  putText(bytes, 8, 8, FIRMWARE);
  return bytes;
}

/** Sixteen bytes that stay the same for a serial number: FNV-1a, spread over four words. */
function namespaceId({ serial }: NvmeIdentity): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  for (let word = 0; word < 4; word++) {
    let hash = 0x811c_9dc5 ^ word;
    for (const byte of new TextEncoder().encode(serial)) hash = Math.imul(hash ^ byte, 0x0100_0193);
    view.setUint32(4 * word, hash >>> 0);
  }
  return bytes;
}
