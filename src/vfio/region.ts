import type { Fd } from "../base/units.ts";
import { check, errnoName } from "../host/errors.ts";
import type { RegionArea, RegionInfo } from "../passthrough/backend.ts";
import {
  REGION_INFO,
  SPARSE_MMAP,
  SPARSE_MMAP_AREA,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
} from "./abi.ts";
import { getU64, type VfioLibc, vfioStruct } from "./calls.ts";
import { infoCapabilities } from "./info-chain.ts";

/** A region and where it lies in the device file. */
export interface VfioRegion {
  readonly info: RegionInfo;
  readonly fileOffset: number;
}

/**
 * VFIO_DEVICE_GET_REGION_INFO: asks once for the size, once more where a capability chain follows.
 *
 * @returns `undefined` when the device has no such region (VGA on anything but a display adapter).
 * @throws SyscallError for anything but EINVAL.
 */
export function queryRegion(libc: VfioLibc, device: Fd, name: string, index: number): VfioRegion | undefined {
  let sizeBytes: number = REGION_INFO.size;
  for (;;) {
    const { bytes, view } = vfioStruct(sizeBytes);
    view.setUint32(REGION_INFO.index, index, true);
    const result = libc.ioctlStruct(device, VFIO_DEVICE_GET_REGION_INFO, bytes);
    if (result < 0 && errnoName(libc.errno()) === "EINVAL") return undefined;
    check(result, `ask for region ${index} of ${name}`, "VFIO_DEVICE_GET_REGION_INFO", "TSVMM_VFIO_REFUSED", libc);
    const needed = view.getUint32(REGION_INFO.argsz, true);
    if (needed <= sizeBytes) return parseRegion(view, index);
    sizeBytes = needed; // the kernel says how much room the chain needs
  }
}

/** Reads a struct vfio_region_info with the capability chain behind it; offsets that leave `view` end the chain. */
export function parseRegion(view: DataView, index: number): VfioRegion {
  const flags = view.getUint32(REGION_INFO.flags, true);
  const sizeBytes = getU64(view, REGION_INFO.region_size);
  const first = (flags & VFIO_REGION_INFO_FLAG_CAPS) === 0 ? 0 : view.getUint32(REGION_INFO.cap_offset, true);
  const capabilities = infoCapabilities(view, first, REGION_INFO.size);
  const sparse = capabilities.filter((capability) => capability.id === VFIO_REGION_INFO_CAP_SPARSE_MMAP);
  const isMappable = (flags & VFIO_REGION_INFO_FLAG_MMAP) !== 0 && sizeBytes > 0;
  const whole: readonly RegionArea[] = [{ offset: 0, sizeBytes }];
  return {
    fileOffset: getU64(view, REGION_INFO.offset),
    info: {
      index,
      sizeBytes,
      isReadable: (flags & VFIO_REGION_INFO_FLAG_READ) !== 0,
      isWritable: (flags & VFIO_REGION_INFO_FLAG_WRITE) !== 0,
      // Where areas are listed they are all there is, however many: a VMM that takes the first only loses the others'
      // registers.
      mappableAreas: !isMappable
        ? []
        : sparse.length === 0
          ? whole
          : sparse.flatMap((cap) => sparseAreas(view, cap.offset)),
      isMsixMappable: capabilities.some((capability) => capability.id === VFIO_REGION_INFO_CAP_MSIX_MAPPABLE),
    },
  };
}

function sparseAreas(view: DataView, capability: number): readonly RegionArea[] {
  const areas: RegionArea[] = [];
  if (capability + SPARSE_MMAP.size > view.byteLength) return areas; // a server can cut its answer short
  const count = view.getUint32(capability + SPARSE_MMAP.nr_areas, true);
  for (let index = 0; index < count; index++) {
    const at = capability + SPARSE_MMAP.areas + index * SPARSE_MMAP_AREA.size;
    if (at + SPARSE_MMAP_AREA.size > view.byteLength) break;
    const sizeBytes = getU64(view, at + SPARSE_MMAP_AREA.area_size);
    // An area without a size is how the kernel says "nothing of it".
    if (sizeBytes > 0) areas.push({ offset: getU64(view, at + SPARSE_MMAP_AREA.offset), sizeBytes });
  }
  return areas;
}
