import { type Gpa, gpa, gpaFromHalves } from "../../base/units.ts";
import type { DeviceMemory } from "../server/device.ts";
import { NVME_PAGE, SQE } from "./nvme-abi.ts";

/** A contiguous piece of a transfer in guest memory. */
export interface PrpPiece {
  readonly address: Gpa;
  readonly sizeBytes: number;
}

/** Entries of a list page; where more follow, the last one leads to the next page. */
const ENTRIES_PER_PAGE = 512;

/**
 * Walks the physical region pages of a command. NVMe 1.4 §4.3
 *
 * @param sizeBytes Of the whole transfer, above 0; it bounds the walk.
 * @returns The pieces in order; `undefined` for entries that are not aligned as they must be, and lists that are not in
 *   memory.
 */
export function walkPrps(memory: DeviceMemory, entry: DataView, sizeBytes: number): readonly PrpPiece[] | undefined {
  const first = addressAt(entry, SQE.prp1);
  const second = addressAt(entry, SQE.prp2);
  if (first === undefined || first % 4 !== 0) return undefined;
  const firstBytes = Math.min(sizeBytes, NVME_PAGE - (first % NVME_PAGE));
  const pieces: PrpPiece[] = [{ address: first, sizeBytes: firstBytes }];
  let left = sizeBytes - firstBytes;
  if (left === 0) return pieces;
  if (second === undefined) return undefined;
  if (left <= NVME_PAGE) {
    if (second % NVME_PAGE !== 0) return undefined;
    pieces.push({ address: second, sizeBytes: left });
    return pieces;
  }
  if (second % 8 !== 0) return undefined;
  let list: number = second;
  while (left > 0) {
    const places = ENTRIES_PER_PAGE - (list % NVME_PAGE) / 8;
    const pages = Math.ceil(left / NVME_PAGE);
    const isLast = pages <= places;
    const count = isLast ? pages : places;
    const bytes = new Uint8Array(8 * count);
    if (!memory.read(gpa(list), bytes)) return undefined;
    const entries = new DataView(bytes.buffer);
    for (let index = 0; index < (isLast ? count : count - 1); index++) {
      const address = addressAt(entries, 8 * index);
      if (address === undefined || address % NVME_PAGE !== 0) return undefined;
      const pieceBytes = Math.min(left, NVME_PAGE);
      pieces.push({ address, sizeBytes: pieceBytes });
      left -= pieceBytes;
    }
    if (isLast) break;
    const next = addressAt(entries, 8 * (count - 1));
    if (next === undefined || next % NVME_PAGE !== 0) return undefined;
    list = next;
  }
  return pieces;
}

/** Copies a device's bytes to the guest. @returns False where memory is not there. */
export function scatter(memory: DeviceMemory, pieces: readonly PrpPiece[], bytes: Uint8Array): boolean {
  let offset = 0;
  return pieces.every(({ address, sizeBytes }) => {
    offset += sizeBytes;
    return memory.write(address, bytes.subarray(offset - sizeBytes, offset));
  });
}

/** Copies the guest's bytes to the device. @returns False where memory is not there. */
export function gather(memory: DeviceMemory, pieces: readonly PrpPiece[], bytes: Uint8Array): boolean {
  let offset = 0;
  return pieces.every(({ address, sizeBytes }) => {
    offset += sizeBytes;
    return memory.read(address, bytes.subarray(offset - sizeBytes, offset));
  });
}

function addressAt(view: DataView, offset: number): Gpa | undefined {
  return gpaFromHalves(view.getUint32(offset, true), view.getUint32(offset + 4, true));
}
