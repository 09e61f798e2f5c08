import {
  DEFAULT_MAX_DATA_XFER_SIZE,
  DEFAULT_MAX_MSG_FDS,
  USER_VERSION,
  VFIO_USER_MAJOR,
  VFIO_USER_MINOR,
} from "./abi.ts";

/** What one side of a vfio-user connection can take. */
export interface UserCapabilities {
  /** Descriptors that may come with one message. */
  readonly maxMessageDescriptors: number;
  /** Bytes that one message may move. */
  readonly maxTransferBytes: number;
}

/** VFIO_USER_VERSION as either side sends it. */
export interface UserVersion {
  readonly major: number;
  readonly minor: number;
  readonly capabilities: UserCapabilities;
}

/** The message's payload for this implementation's version. */
export function encodeVersion(capabilities: UserCapabilities): Uint8Array {
  const json = JSON.stringify({
    capabilities: {
      max_msg_fds: capabilities.maxMessageDescriptors,
      max_data_xfer_size: capabilities.maxTransferBytes,
      pgsizes: 4096,
    },
  });
  const text = new TextEncoder().encode(`${json}\0`);
  const bytes = new Uint8Array(USER_VERSION.size + text.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(USER_VERSION.major, VFIO_USER_MAJOR, true);
  view.setUint16(USER_VERSION.minor, VFIO_USER_MINOR, true);
  bytes.set(text, USER_VERSION.version_data);
  return bytes;
}

/** @returns `undefined` for a payload that is none: too short, no JSON, no object, numbers that are none. */
export function decodeVersion(payload: Uint8Array): UserVersion | undefined {
  if (payload.length < USER_VERSION.size) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const end = payload.indexOf(0, USER_VERSION.version_data);
  const text = payload.subarray(USER_VERSION.version_data, end < 0 ? payload.length : end);
  const found = text.length === 0 ? {} : parseObject(new TextDecoder().decode(text));
  const capabilities = found === undefined ? undefined : objectAt(found, "capabilities");
  if (capabilities === undefined) return undefined;
  const maxMessageDescriptors = countAt(capabilities, "max_msg_fds", DEFAULT_MAX_MSG_FDS);
  const maxTransferBytes = countAt(capabilities, "max_data_xfer_size", DEFAULT_MAX_DATA_XFER_SIZE);
  if (maxMessageDescriptors === undefined || maxTransferBytes === undefined) return undefined;
  return {
    major: view.getUint16(USER_VERSION.major, true),
    minor: view.getUint16(USER_VERSION.minor, true),
    capabilities: { maxMessageDescriptors, maxTransferBytes },
  };
}

type Fields = Readonly<Record<string, unknown>>;

// Cast: an object that is no array has fields, of whatever types.
const asFields = (value: unknown): Fields | undefined =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : undefined;

function parseObject(text: string): Fields | undefined {
  try {
    return asFields(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** An object in an object; empty when absent. */
function objectAt(fields: Fields, name: string): Fields | undefined {
  return fields[name] === undefined ? {} : asFields(fields[name]);
}

function countAt(fields: Fields, name: string, otherwise: number): number | undefined {
  const value = fields[name];
  if (value === undefined) return otherwise;
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}
