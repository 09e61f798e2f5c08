import type { IovaRange } from "../base/mappings.ts";
import type { Fd } from "../base/units.ts";
import { check } from "../host/errors.ts";
import {
  DMA_AVAIL_CAP,
  IOMMU_TYPE1_INFO,
  IOVA_RANGE,
  IOVA_RANGE_CAP,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
} from "./abi.ts";
import { getU64, type VfioLibc, vfioStruct } from "./calls.ts";
import { infoCapabilities } from "./info-chain.ts";

/** What the IOMMU behind a container can do. */
export interface IommuInfo {
  /** In order; `undefined` when the kernel does not tell (before 5.4). */
  readonly iovaRanges: readonly IovaRange[] | undefined;
  readonly pageSizeBytes: number;
  /** Mappings that may still be made; `undefined` when the kernel does not tell (before 5.10). */
  readonly dmaAvailable: number | undefined;
}

/**
 * VFIO_IOMMU_GET_INFO, with its capability chain.
 *
 * @throws SyscallError
 */
export function queryIommu(libc: VfioLibc, container: Fd): IommuInfo {
  let sizeBytes: number = IOMMU_TYPE1_INFO.size;
  for (;;) {
    const { bytes, view } = vfioStruct(sizeBytes);
    const result = libc.ioctlStruct(container, VFIO_IOMMU_GET_INFO, bytes);
    check(result, "ask what the IOMMU can map", "VFIO_IOMMU_GET_INFO", "TSVMM_VFIO_REFUSED", libc);
    const needed = view.getUint32(IOMMU_TYPE1_INFO.argsz, true);
    if (needed <= sizeBytes) return parseIommu(view);
    sizeBytes = needed;
  }
}

function parseIommu(view: DataView): IommuInfo {
  const flags = view.getUint32(IOMMU_TYPE1_INFO.flags, true);
  const first = (flags & VFIO_IOMMU_INFO_CAPS) === 0 ? 0 : view.getUint32(IOMMU_TYPE1_INFO.cap_offset, true);
  const capabilities = infoCapabilities(view, first, IOMMU_TYPE1_INFO.size);
  const offsetOf = (id: number): number | undefined => capabilities.find((capability) => capability.id === id)?.offset;
  const ranges = offsetOf(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE);
  const available = offsetOf(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL);
  const pageSizes = view.getBigUint64(IOMMU_TYPE1_INFO.iova_pgsizes, true);
  const hasPageSizes = (flags & VFIO_IOMMU_INFO_PGSIZES) !== 0 && pageSizes !== 0n;
  return {
    iovaRanges: ranges === undefined ? undefined : iovaRanges(view, ranges),
    pageSizeBytes: hasPageSizes ? Number(pageSizes & -pageSizes) : 4096,
    dmaAvailable: available === undefined ? undefined : view.getUint32(available + DMA_AVAIL_CAP.avail, true),
  };
}

function iovaRanges(view: DataView, capability: number): readonly IovaRange[] {
  const ranges: IovaRange[] = [];
  const count = view.getUint32(capability + IOVA_RANGE_CAP.nr_iovas, true);
  for (let index = 0; index < count; index++) {
    const at = capability + IOVA_RANGE_CAP.iova_ranges + index * IOVA_RANGE.size;
    if (at + IOVA_RANGE.size > view.byteLength) break;
    ranges.push({ start: getU64(view, at + IOVA_RANGE.start), end: getU64(view, at + IOVA_RANGE.end) });
  }
  return ranges;
}
