import { gpaFromHalves, u64FromHalves } from "../../base/units.ts";
import type { DeviceMemory } from "../server/device.ts";
import * as abi from "./nvme-abi.ts";
import {
  activeNamespaces,
  firmwareLog,
  identifyController,
  identifyNamespace,
  MAX_ASYNC_EVENTS,
  MAX_TRANSFER_BYTES,
  NAMESPACE_ID,
  type NvmeCounters,
  type NvmeIdentity,
  namespaceDescriptors,
  smartLog,
} from "./nvme-identify.ts";
import { scatter, walkPrps } from "./nvme-prp.ts";
import { type Completion, CompletionQueue, SubmissionQueue } from "./nvme-queues.ts";

const { SQE } = abi;

/** The queues of a controller by number; 0 are the admin ones. */
export interface NvmeQueues {
  readonly submission: Map<number, SubmissionQueue>;
  readonly completion: Map<number, CompletionQueue>;
}

export interface NvmeAdminParts {
  readonly memory: DeviceMemory;
  readonly identity: NvmeIdentity;
  readonly queues: NvmeQueues;
  /** Entries a queue may have. */
  readonly maxEntries: number;
  readonly vectors: number;
  readonly counters: () => NvmeCounters;
  /** Brings everything written to the medium. @returns A command's status. */
  readonly flush: () => number;
  /** Ends a command that was kept waiting. @returns False when the queue has no room. */
  readonly complete: (cid: number, completion: Completion) => boolean;
}

const success = (result = 0): Completion => ({ status: abi.STATUS_SUCCESS, result });
const failure = (status: number): Completion => ({ status });

/** Values after a reset, of the features that can be set. NVMe 1.4 §5.21.1 */
const FEATURES: readonly (readonly [feature: number, value: number])[] = [
  [abi.FEATURE_ARBITRATION, 0],
  [abi.FEATURE_POWER_MANAGEMENT, 0],
  [abi.FEATURE_TEMPERATURE, 343],
  [abi.FEATURE_ERROR_RECOVERY, 0],
  [abi.FEATURE_WRITE_CACHE, 1],
  [abi.FEATURE_COALESCING, 0],
  [abi.FEATURE_VECTOR, 0],
  [abi.FEATURE_ATOMICITY, 0],
  [abi.FEATURE_ASYNC_EVENTS, 0],
];

/** The commands of the admin queue. NVMe 1.4 §5 */
export class NvmeAdmin {
  readonly #parts: NvmeAdminParts;
  readonly #features: Map<number, number> = new Map(FEATURES);
  /** Commands that wait for something worth telling. */
  readonly #asyncEvents: number[] = [];

  constructor(parts: NvmeAdminParts) {
    this.#parts = parts;
  }

  /** @returns `undefined` for a command that stays pending. */
  run(entry: DataView): Completion | undefined {
    switch (entry.getUint8(SQE.opcode)) {
      case abi.ADMIN_IDENTIFY:
        return this.#identify(entry);
      case abi.ADMIN_GET_LOG_PAGE:
        return this.#getLogPage(entry);
      case abi.ADMIN_SET_FEATURES:
        return this.#setFeature(entry);
      case abi.ADMIN_GET_FEATURES:
        return this.#getFeature(entry);
      case abi.ADMIN_CREATE_CQ:
        return failure(this.#createCompletionQueue(entry));
      case abi.ADMIN_CREATE_SQ:
        return failure(this.#createSubmissionQueue(entry));
      case abi.ADMIN_DELETE_SQ:
        return failure(this.#deleteSubmissionQueue(entry));
      case abi.ADMIN_DELETE_CQ:
        return failure(this.#deleteCompletionQueue(entry));
      case abi.ADMIN_ASYNC_EVENT:
        if (this.#asyncEvents.length >= MAX_ASYNC_EVENTS) return failure(abi.STATUS_ASYNC_LIMIT);
        this.#asyncEvents.push(entry.getUint16(SQE.cid, true));
        return undefined;
      case abi.ADMIN_ABORT:
        return this.#abort(entry);
      default:
        return failure(abi.STATUS_INVALID_OPCODE);
    }
  }

  get isWriteCacheOn(): boolean {
    return ((this.#features.get(abi.FEATURE_WRITE_CACHE) ?? 0) & abi.WRITE_CACHE_ENABLE) !== 0;
  }

  /** Forgets what waits, and what was set. */
  reset(): void {
    this.#asyncEvents.length = 0;
    this.#features.clear();
    for (const [feature, value] of FEATURES) this.#features.set(feature, value);
  }

  #identify(entry: DataView): Completion {
    const { identity } = this.#parts;
    const namespace = entry.getUint32(SQE.nsid, true);
    const isOurs = namespace === NAMESPACE_ID;
    switch (entry.getUint8(SQE.cdw10)) {
      case abi.CNS_NAMESPACE:
        return isOurs ? this.#give(entry, identifyNamespace(identity)) : failure(abi.STATUS_INVALID_NAMESPACE);
      case abi.CNS_CONTROLLER:
        return this.#give(entry, identifyController(identity));
      case abi.CNS_ACTIVE_NAMESPACES:
        if (namespace >= 0xffff_fffe) return failure(abi.STATUS_INVALID_NAMESPACE);
        return this.#give(entry, activeNamespaces(namespace));
      case abi.CNS_NAMESPACE_DESCRIPTORS:
        return isOurs ? this.#give(entry, namespaceDescriptors(identity)) : failure(abi.STATUS_INVALID_NAMESPACE);
      default:
        return failure(abi.STATUS_INVALID_FIELD);
    }
  }

  #getLogPage(entry: DataView): Completion {
    const words = entry.getUint16(SQE.cdw10 + 2, true) + entry.getUint16(SQE.cdw11, true) * 0x1_0000 + 1;
    const offset = u64FromHalves(entry.getUint32(SQE.cdw12, true), entry.getUint32(SQE.cdw13, true));
    if (offset === undefined || offset % 4 !== 0 || 4 * words > MAX_TRANSFER_BYTES) {
      return failure(abi.STATUS_INVALID_FIELD);
    }
    const log = this.#log(entry.getUint8(SQE.cdw10));
    if (log === undefined) return failure(abi.STATUS_INVALID_LOG_PAGE);
    const bytes = new Uint8Array(4 * words); // zeroes behind the log's end
    bytes.set(log.subarray(offset, offset + bytes.length));
    return this.#give(entry, bytes);
  }

  #log(page: number): Uint8Array | undefined {
    switch (page) {
      case abi.LOG_ERROR:
        return new Uint8Array(64);
      case abi.LOG_SMART:
        return smartLog(this.#parts.counters());
      case abi.LOG_FIRMWARE:
        return firmwareLog();
      default:
        return undefined;
    }
  }

  #setFeature(entry: DataView): Completion {
    const feature = entry.getUint8(SQE.cdw10);
    const value = entry.getUint32(SQE.cdw11, true);
    if ((entry.getUint32(SQE.cdw10, true) & 0x8000_0000) !== 0) return failure(abi.STATUS_FEATURE_NOT_SAVEABLE);
    if (feature === abi.FEATURE_QUEUES) {
      const [submissions, completions] = [value & 0xffff, value >>> 16];
      if (submissions === 0xffff || completions === 0xffff) return failure(abi.STATUS_INVALID_FIELD);
      return success(this.#queueCount());
    }
    if (!this.#features.has(feature)) return failure(abi.STATUS_INVALID_FIELD);
    if (feature === abi.FEATURE_POWER_MANAGEMENT && (value & 0x1f) !== 0) return failure(abi.STATUS_INVALID_FIELD);
    if (feature === abi.FEATURE_WRITE_CACHE && (value & abi.WRITE_CACHE_ENABLE) === 0) {
      // What the cache holds would otherwise stay there.
      const status = this.#parts.flush();
      if (status !== abi.STATUS_SUCCESS) return failure(status);
    }
    this.#features.set(feature, value);
    return success();
  }

  #getFeature(entry: DataView): Completion {
    const feature = entry.getUint8(SQE.cdw10);
    const value = feature === abi.FEATURE_QUEUES ? this.#queueCount() : this.#features.get(feature);
    return value === undefined ? failure(abi.STATUS_INVALID_FIELD) : success(value);
  }

  /** Both counts minus one, whatever the host asked for: it may use fewer. */
  #queueCount(): number {
    const count = this.#parts.identity.ioQueues - 1;
    return ((count << 16) | count) >>> 0;
  }

  #createCompletionQueue(entry: DataView): number {
    const { queues, identity, vectors, maxEntries } = this.#parts;
    const id = entry.getUint16(SQE.cdw10, true);
    const entries = entry.getUint16(SQE.cdw10 + 2, true) + 1;
    const flags = entry.getUint16(SQE.cdw11, true);
    const vector = entry.getUint16(SQE.cdw11 + 2, true);
    const base = gpaFromHalves(entry.getUint32(SQE.prp1, true), entry.getUint32(SQE.prp1 + 4, true));
    if (id === 0 || id > identity.ioQueues || queues.completion.has(id)) return abi.STATUS_INVALID_QUEUE_ID;
    if (entries < 2 || entries > maxEntries) return abi.STATUS_INVALID_QUEUE_SIZE;
    if ((flags & 1) === 0) return abi.STATUS_INVALID_FIELD; // queues must be contiguous: CAP.CQR
    if (base === undefined || base % abi.NVME_PAGE !== 0) return abi.STATUS_INVALID_PRP_OFFSET;
    const hasInterrupt = (flags & 2) !== 0;
    if (hasInterrupt && vector >= vectors) return abi.STATUS_INVALID_VECTOR;
    queues.completion.set(id, new CompletionQueue(id, base, entries, hasInterrupt ? vector : undefined));
    return abi.STATUS_SUCCESS;
  }

  #createSubmissionQueue(entry: DataView): number {
    const { queues, identity, maxEntries } = this.#parts;
    const id = entry.getUint16(SQE.cdw10, true);
    const entries = entry.getUint16(SQE.cdw10 + 2, true) + 1;
    const completionId = entry.getUint16(SQE.cdw11 + 2, true);
    const base = gpaFromHalves(entry.getUint32(SQE.prp1, true), entry.getUint32(SQE.prp1 + 4, true));
    const completions = completionId === 0 ? undefined : queues.completion.get(completionId);
    if (id === 0 || id > identity.ioQueues || queues.submission.has(id)) return abi.STATUS_INVALID_QUEUE_ID;
    if (completions === undefined) return abi.STATUS_CQ_INVALID;
    if (entries < 2 || entries > maxEntries) return abi.STATUS_INVALID_QUEUE_SIZE;
    if ((entry.getUint16(SQE.cdw11, true) & 1) === 0) return abi.STATUS_INVALID_FIELD;
    if (base === undefined || base % abi.NVME_PAGE !== 0) return abi.STATUS_INVALID_PRP_OFFSET;
    queues.submission.set(id, new SubmissionQueue(id, base, entries, completions));
    return abi.STATUS_SUCCESS;
  }

  #deleteSubmissionQueue(entry: DataView): number {
    const id = entry.getUint16(SQE.cdw10, true);
    return id !== 0 && this.#parts.queues.submission.delete(id) ? abi.STATUS_SUCCESS : abi.STATUS_INVALID_QUEUE_ID;
  }

  #deleteCompletionQueue(entry: DataView): number {
    const { queues } = this.#parts;
    const id = entry.getUint16(SQE.cdw10, true);
    const queue = id === 0 ? undefined : queues.completion.get(id);
    if (queue === undefined) return abi.STATUS_INVALID_QUEUE_ID;
    if ([...queues.submission.values()].some(({ completions }) => completions === queue)) {
      return abi.STATUS_INVALID_QUEUE_DELETION;
    }
    queues.completion.delete(id);
    return abi.STATUS_SUCCESS;
  }

  /**
   * Only what waits can be aborted; everything else is over before the next command is looked at. Bit 0 says "not
   * aborted".
   */
  #abort(entry: DataView): Completion {
    const [queue, cid] = [entry.getUint16(SQE.cdw10, true), entry.getUint16(SQE.cdw10 + 2, true)];
    const index = queue === 0 ? this.#asyncEvents.indexOf(cid) : -1;
    if (index < 0 || !this.#parts.complete(cid, failure(abi.STATUS_ABORT_REQUESTED))) return success(1);
    this.#asyncEvents.splice(index, 1);
    return success(0);
  }

  #give(entry: DataView, bytes: Uint8Array): Completion {
    const pieces = walkPrps(this.#parts.memory, entry, bytes.length);
    if (pieces === undefined) return failure(abi.STATUS_INVALID_PRP_OFFSET);
    return scatter(this.#parts.memory, pieces, bytes) ? success() : failure(abi.STATUS_DATA_TRANSFER_ERROR);
  }
}
