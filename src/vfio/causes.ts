import type { Cause } from "../base/errors.ts";
import type { CausesByErrno } from "../host/errors.ts";

const NOT_BOUND: Cause = ["TSVMM_DRIVER_NOT_VFIO", "bind it to vfio-pci first: tsvmm bind"];
/** The driver of the IOMMU, beside that of the device. */
export const NO_IOMMU_DRIVER: Cause = ["TSVMM_VFIO_MISSING", "modprobe vfio_iommu_type1"];
const BUS_NOT_BOUND: Cause = [
  "TSVMM_RESET_FAILED",
  "a function on its bus is bound to no vfio driver: tsvmm bind --group",
];

/** What an errno of VFIO means, by call. */
export const CAUSES: {
  readonly openNode: CausesByErrno;
  readonly attach: CausesByErrno;
  readonly openDevice: CausesByErrno;
  readonly openWithToken: Pick<CausesByErrno, "EACCES" | "EINVAL">;
  readonly mapDma: CausesByErrno;
  readonly setInterrupts: CausesByErrno;
  readonly resetBus: CausesByErrno;
} = {
  openNode: {
    otherwise: "TSVMM_VFIO_REFUSED",
    ENOENT: "TSVMM_VFIO_MISSING",
    ENODEV: "TSVMM_VFIO_MISSING",
    ENXIO: "TSVMM_VFIO_MISSING",
    EACCES: "TSVMM_VFIO_DENIED",
    EPERM: ["TSVMM_VFIO_DENIED", "run as root: only it may use groups without an IOMMU"],
    EBUSY: "TSVMM_GROUP_BUSY",
  },
  attach: {
    otherwise: "TSVMM_VFIO_REFUSED",
    ENODEV: NO_IOMMU_DRIVER,
    ENOMEM: "TSVMM_MEMLOCK",
  },
  openDevice: {
    otherwise: "TSVMM_VFIO_REFUSED",
    ENODEV: NOT_BOUND,
    EINVAL: NOT_BOUND,
    EBUSY: "TSVMM_GROUP_BUSY",
    EACCES: "TSVMM_VF_TOKEN",
  },
  openWithToken: {
    EACCES: ["TSVMM_VF_TOKEN", "the token is not the one that the physical function's owner has set"],
    EINVAL: [
      "TSVMM_VF_TOKEN",
      "the token has no use: its physical function does not belong to vfio-pci; leave vf-token out",
    ],
  },
  mapDma: {
    otherwise: "TSVMM_DMA_REFUSED",
    ENOMEM: "TSVMM_MEMLOCK",
    ENOSPC: "TSVMM_DMA_LIMIT",
    EINVAL: ["TSVMM_IOMMU_RANGE", "the address or size is beyond what the IOMMU can map: give the guest less RAM"],
    EEXIST: ["TSVMM_DMA_REFUSED", "something is mapped there already"],
    EFAULT: [
      "TSVMM_DMA_REFUSED",
      "the memory cannot be pinned: this kernel cannot map this device's memory for other devices",
    ],
  },
  setInterrupts: { otherwise: "TSVMM_VFIO_REFUSED", ENOSPC: "TSVMM_NO_VECTORS" },
  resetBus: {
    otherwise: "TSVMM_RESET_FAILED",
    EINVAL: BUS_NOT_BOUND,
    ENODEV: BUS_NOT_BOUND,
    EPERM: ["TSVMM_RESET_FAILED", "a group on its bus is not this machine's"],
    EAGAIN: ["TSVMM_RESET_FAILED", "somebody else is using the bus at the moment"],
  },
};
