import type { Report } from "../../base/backends.ts";
import { HostError } from "../../base/errors.ts";
import { u64FromHalves } from "../../base/units.ts";
import type { DeviceMemory } from "../server/device.ts";
import {
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
import { gather, scatter, walkPrps } from "./nvme-prp.ts";
import type { NvmeStore } from "./nvme-store.ts";

const ALL_NAMESPACES = 0xffff_ffff;

/** The commands of an I/O queue: the NVM command set. NVMe 1.4 §6 */
export class NvmeIo {
  readonly #memory: DeviceMemory;
  readonly #store: NvmeStore;
  readonly #report: Report;
  // A buffer of its own, since the kernel reads and writes at its address.
  readonly #buffer: Uint8Array = new Uint8Array(new ArrayBuffer(MAX_TRANSFER_BYTES));
  #counters: NvmeCounters = { reads: 0, writes: 0, bytesRead: 0, bytesWritten: 0 };

  constructor(memory: DeviceMemory, store: NvmeStore, report: Report) {
    this.#memory = memory;
    this.#store = store;
    this.#report = report;
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
    try {
      switch (opcode) {
        case NVM_FLUSH:
          this.#store.flush();
          return STATUS_SUCCESS;
        case NVM_READ:
        case NVM_WRITE:
          return this.#move(entry, opcode === NVM_WRITE);
        case NVM_WRITE_ZEROES:
          return this.#zero(entry);
        default:
          return STATUS_INVALID_OPCODE;
      }
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#report("error", `nvme: ${error.message}`);
      return STATUS_INTERNAL_ERROR;
    }
  }

  #move(entry: DataView, isWrite: boolean): number {
    const range = this.#range(entry);
    if (typeof range === "number") return range;
    const sizeBytes = range.count * NVME_BLOCK;
    if (sizeBytes > MAX_TRANSFER_BYTES || (isWrite && this.#store.isReadOnly)) return STATUS_INVALID_FIELD;
    const pieces = walkPrps(this.#memory, entry, sizeBytes);
    if (pieces === undefined) return STATUS_INVALID_PRP_OFFSET;
    const bytes = this.#buffer.subarray(0, sizeBytes);
    const { reads, writes, bytesRead, bytesWritten } = this.#counters;
    if (isWrite) {
      if (!gather(this.#memory, pieces, bytes)) return STATUS_DATA_TRANSFER_ERROR;
      this.#store.write(range.block, bytes);
      this.#counters = { reads, writes: writes + 1, bytesRead, bytesWritten: bytesWritten + sizeBytes };
    } else {
      this.#store.read(range.block, bytes);
      if (!scatter(this.#memory, pieces, bytes)) return STATUS_DATA_TRANSFER_ERROR;
      this.#counters = { reads: reads + 1, writes, bytesRead: bytesRead + sizeBytes, bytesWritten };
    }
    return STATUS_SUCCESS;
  }

  #zero(entry: DataView): number {
    const range = this.#range(entry);
    if (typeof range === "number") return range;
    if (this.#store.isReadOnly) return STATUS_INVALID_FIELD;
    this.#store.writeZeroes(range.block, range.count);
    return STATUS_SUCCESS;
  }

  /** The blocks that a command names, or the status of one that names others than there are. */
  #range(entry: DataView): { readonly block: number; readonly count: number } | number {
    const block = u64FromHalves(entry.getUint32(SQE.cdw10, true), entry.getUint32(SQE.cdw11, true));
    const count = entry.getUint16(SQE.cdw12, true) + 1;
    return block === undefined || block + count > this.#store.blocks ? STATUS_LBA_OUT_OF_RANGE : { block, count };
  }
}
