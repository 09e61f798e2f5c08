import { PAGE_SIZE } from "../../base/units.ts";
import { MAX_DESCRIPTORS } from "../../host/rights.ts";
import { DEFAULT_MAX_DATA_XFER_SIZE, DEFAULT_MAX_MSG_FDS, VFIO_USER_MAJOR, VFIO_USER_MINOR } from "../protocol/abi.ts";
import { decodeVersion, encodeVersion } from "../protocol/version.ts";
import { MAX_DMA_MAPS } from "./client-memory.ts";

/** What VERSION settled for a connection; both sides keep to it. */
export interface Agreement {
  /** The payload of the answer. */
  readonly answer: Uint8Array;
  /** Descriptors that the client may send with a message. */
  readonly descriptorsFromClient: number;
  /** Descriptors that it takes with a message. */
  readonly descriptorsToClient: number;
  /** Bytes that a message may move, either way. */
  readonly maxTransferBytes: number;
}

/**
 * Answers a client's VERSION: nothing in the answer is above what was offered. What the client did not mention is
 * answered with this side's own limit where the specification's default would be wrong, and is left out elsewhere.
 *
 * @returns `undefined` for an offer that is malformed, of another major version, or moves nothing.
 */
export function agree(payload: Uint8Array): Agreement | undefined {
  const offer = decodeVersion(payload);
  if (offer?.major !== VFIO_USER_MAJOR) return undefined;
  const { maxMessageDescriptors, maxTransferBytes, maxDmaMaps, pageSizes } = offer.capabilities;
  const descriptorsFromClient = Math.min(MAX_DESCRIPTORS, maxMessageDescriptors ?? MAX_DESCRIPTORS);
  const transferBytes = Math.min(DEFAULT_MAX_DATA_XFER_SIZE, maxTransferBytes ?? DEFAULT_MAX_DATA_XFER_SIZE);
  // Every multiple of 4 KiB can be mapped, so all larger page sizes are supported too.
  const mappable = pageSizes === undefined ? undefined : pageSizes - (pageSizes % PAGE_SIZE);
  if (transferBytes === 0 || mappable === 0) return undefined;
  const capabilities = {
    maxMessageDescriptors: descriptorsFromClient,
    maxTransferBytes: transferBytes,
    ...(maxDmaMaps === undefined ? {} : { maxDmaMaps: Math.min(MAX_DMA_MAPS, maxDmaMaps) }),
    ...(mappable === undefined ? {} : { pageSizes: mappable }),
  };
  return {
    answer: encodeVersion(capabilities, Math.min(VFIO_USER_MINOR, offer.minor)),
    descriptorsFromClient,
    descriptorsToClient: maxMessageDescriptors ?? DEFAULT_MAX_MSG_FDS,
    maxTransferBytes: transferBytes,
  };
}
