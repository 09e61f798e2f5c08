import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import { u64FromHalves } from "../../base/units.ts";
import { SyscallError } from "../../host/errors.ts";
import type { DeviceMemory } from "../server/device.ts";
import {
  CDW12_FUA,
  NVM_FLUSH,
  NVM_READ,
  NVM_WRITE,
  NVM_WRITE_ZEROES,
  NVME_BLOCK,
  SQE,
  STATUS_DATA_TRANSFER_ERROR,
  STATUS_INTERNAL_ERROR,
  STATUS_INVALID_FIELD,
  STATUS_INVALID_NAMESPACE,
  STATUS_INVALID_OPCODE,
  STATUS_INVALID_PRP_OFFSET,
  STATUS_LBA_OUT_OF_RANGE,
  STATUS_SUCCESS,
} from "./nvme-abi.ts";
import { MAX_TRANSFER_BYTES, NAMESPACE_ID, type NvmeCounters } from "./nvme-identify.ts";
import { gather, type PrpPiece, scatter, walkPrps } from "./nvme-prp.ts";
import type { NvmeStore } from "./nvme-store.ts";

const ALL_NAMESPACES = 0xffff_ffff;

/** The commands of an I/O queue: the NVM command set. NVMe 1.4 §6 */
export class NvmeIo {
  readonly #memory: DeviceMemory;
  readonly #store: NvmeStore;
  readonly #report: Report;
  readonly #isWriteCacheOn: () => boolean;
  readonly #reported: Set<string> = new Set();
  // A buffer of its own, since the kernel reads and writes at its address.
  readonly #buffer: Uint8Array = new Uint8Array(new ArrayBuffer(MAX_TRANSFER_BYTES));
  #counters: NvmeCounters = { reads: 0, writes: 0, bytesRead: 0, bytesWritten: 0 };

  /**
   * @param isWriteCacheOn What Set Features has chosen; without the cache each finished write is on the medium. NVMe
   *   1.4 §5.21.1.6
   */
  constructor(memory: DeviceMemory, store: NvmeStore, report: Report, isWriteCacheOn: () => boolean) {
    this.#memory = memory;
    this.#store = store;
    this.#report = report;
    this.#isWriteCacheOn = isWriteCacheOn;
  }

  get counters(): NvmeCounters {
    return this.#counters;
  }

  /** @returns The command's status. */
  run(entry: DataView): number {
    const opcode = entry.getUint8(SQE.opcode);
    const namespace = entry.getUint32(SQE.nsid, true);
    if (namespace !== NAMESPACE_ID && !(opcode === NVM_FLUSH && namespace === ALL_NAMESPACES)) {
      return STATUS_INVALID_NAMESPACE;
    }
    return this.#orFailure(() => {
      switch (opcode) {
        case NVM_FLUSH:
          return this.#flushStore();
        case NVM_READ:
          return this.#read(entry);
        case NVM_WRITE:
          return this.#write(entry);
        case NVM_WRITE_ZEROES:
          return this.#zero(entry);
        default:
          return STATUS_INVALID_OPCODE;
      }
    });
  }

  /** Brings everything written to the medium. @returns A command's status. */
  flush(): number {
    return this.#orFailure(() => this.#flushStore());
  }

  #orFailure(work: () => number): number {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      // Once for each kind: a guest can repeat a request without end, at other blocks.
      const kind = error instanceof SyscallError ? `${error.call} ${error.errno}` : error.message;
      if (!this.#reported.has(kind)) this.#report("error", `nvme: ${error.message}`);
      this.#reported.add(kind);
      return STATUS_INTERNAL_ERROR;
    }
  }

  #flushStore(): number {
    this.#store.flush();
    return STATUS_SUCCESS;
  }

  #read(entry: DataView): number {
    const transfer = this.#transfer(entry);
    if (typeof transfer === "number") return transfer;
    const { block, pieces, bytes } = transfer;
    // With FUA, data come from the medium: what is in the cache goes there first. NVMe 1.4 §6.9
    if (hasForceUnitAccess(entry)) this.#store.flush();
    this.#store.read(block, bytes);
    if (!scatter(this.#memory, pieces, bytes)) return STATUS_DATA_TRANSFER_ERROR;
    const { reads, bytesRead } = this.#counters;
    this.#counters = { ...this.#counters, reads: reads + 1, bytesRead: bytesRead + bytes.length };
    return STATUS_SUCCESS;
  }

  #write(entry: DataView): number {
    const transfer = this.#transfer(entry);
    if (typeof transfer === "number") return transfer;
    if (this.#store.isReadOnly) return STATUS_INVALID_FIELD;
    const { block, pieces, bytes } = transfer;
    if (!gather(this.#memory, pieces, bytes)) return STATUS_DATA_TRANSFER_ERROR;
    this.#store.write(block, bytes);
    const { writes, bytesWritten } = this.#counters;
    this.#counters = { ...this.#counters, writes: writes + 1, bytesWritten: bytesWritten + bytes.length };
    return this.#finishChange(entry);
  }

  /** Blocks, memory and buffer of a read or write, or the status of one that cannot be. */
  #transfer(
    entry: DataView,
  ): { readonly block: number; readonly pieces: readonly PrpPiece[]; readonly bytes: Uint8Array } | number {
    const range = this.#range(entry);
    if (typeof range === "number") return range;
    const sizeBytes = range.count * NVME_BLOCK;
    if (sizeBytes > MAX_TRANSFER_BYTES) return STATUS_INVALID_FIELD;
    const pieces = walkPrps(this.#memory, entry, sizeBytes);
    if (pieces === undefined) return STATUS_INVALID_PRP_OFFSET;
    return { block: range.block, pieces, bytes: this.#buffer.subarray(0, sizeBytes) };
  }

  #zero(entry: DataView): number {
    const range = this.#range(entry);
    if (typeof range === "number") return range;
    if (this.#store.isReadOnly) return STATUS_INVALID_FIELD;
    this.#store.writeZeroes(range.block, range.count);
    return this.#finishChange(entry);
  }

  /**
   * A change with FUA, and any without the write cache, is on the medium when it completes. NVMe 1.4 §6.15, §6.17,
   * §5.21.1.6
   */
  #finishChange(entry: DataView): number {
    return hasForceUnitAccess(entry) || !this.#isWriteCacheOn() ? this.#flushStore() : STATUS_SUCCESS;
  }

  /** The blocks that a command names, or the status of one that names others than there are. */
  #range(entry: DataView): { readonly block: number; readonly count: number } | number {
    const block = u64FromHalves(entry.getUint32(SQE.cdw10, true), entry.getUint32(SQE.cdw11, true));
    const count = entry.getUint16(SQE.cdw12, true) + 1;
    return block === undefined || block + count > this.#store.blocks ? STATUS_LBA_OUT_OF_RANGE : { block, count };
  }
}

const hasForceUnitAccess = (entry: DataView): boolean => (entry.getUint32(SQE.cdw12, true) & CDW12_FUA) !== 0;
