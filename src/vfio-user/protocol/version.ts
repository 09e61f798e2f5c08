import { USER_VERSION, VFIO_USER_MAJOR, VFIO_USER_MINOR } from "./abi.ts";

/** What one side of a vfio-user connection can take. What is absent was not said: the specification's default holds. */
export interface UserCapabilities {
  /** Descriptors that may come with one message. */
  readonly maxMessageDescriptors?: number;
  /** Bytes that one message may move. */
  readonly maxTransferBytes?: number;
  /** Ranges that DMA_MAP may have made at a time. */
  readonly maxDmaMaps?: number;
  /** Page sizes of DMA_MAP, or'ed together. */
  readonly pageSizes?: number;
}

/** VFIO_USER_VERSION as either side sends it. */
export interface UserVersion {
  readonly major: number;
  readonly minor: number;
  readonly capabilities: UserCapabilities;
}

const NAMES: Readonly<Record<keyof UserCapabilities, string>> = {
  maxMessageDescriptors: "max_msg_fds",
  maxTransferBytes: "max_data_xfer_size",
  maxDmaMaps: "max_dma_maps",
  pageSizes: "pgsizes",
};

/**
 * The message's payload for this implementation's version.
 *
 * @param minor At most the other side's, in a reply.
 */
export function encodeVersion(capabilities: UserCapabilities, minor: number = VFIO_USER_MINOR): Uint8Array {
  // Cast: the keys of NAMES are those of its type.
  const names = Object.entries(NAMES) as readonly (readonly [keyof UserCapabilities, string])[];
  const numbers = Object.fromEntries(names.map(([key, name]) => [name, capabilities[key]]));
  const text = new TextEncoder().encode(`${JSON.stringify({ capabilities: numbers })}\0`);
  const bytes = new Uint8Array(USER_VERSION.size + text.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(USER_VERSION.major, VFIO_USER_MAJOR, true);
  view.setUint16(USER_VERSION.minor, minor, true);
  bytes.set(text, USER_VERSION.version_data);
  return bytes;
}

/**
 * @returns `undefined` for a payload that is none: too short, no JSON, JSON without its NUL, members of another type.
 */
export function decodeVersion(payload: Uint8Array): UserVersion | undefined {
  if (payload.length < USER_VERSION.size) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const text = payload.subarray(USER_VERSION.version_data);
  const end = text.indexOf(0);
  if (text.length > 0 && end < 0) return undefined;
  const found = text.length === 0 ? {} : parseObject(new TextDecoder().decode(text.subarray(0, end)));
  const capabilities = found === undefined ? undefined : objectAt(found, "capabilities");
  if (capabilities === undefined || objectAt(capabilities, "migration") === undefined) return undefined;
  const numbers: { -readonly [Key in keyof UserCapabilities]: UserCapabilities[Key] } = {};
  for (const [key, name] of Object.entries(NAMES)) {
    const value = capabilities[name];
    if (value === undefined) continue;
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) return undefined;
    numbers[key as keyof UserCapabilities] = value; // Cast: the keys of NAMES are those of its type.
  }
  return {
    major: view.getUint16(USER_VERSION.major, true),
    minor: view.getUint16(USER_VERSION.minor, true),
    capabilities: numbers,
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
