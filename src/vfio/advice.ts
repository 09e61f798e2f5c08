import type { AdviceByErrno } from "../host/errors.ts";
import { GROUP_BUSY_ADVICE, MEMLOCK_ADVICE, MODPROBE_ADVICE, nodePermissionAdvice } from "../host-pci/advice.ts";

/** What a user can do about an errno of VFIO, by call. */
export const ADVICE: {
  readonly openNode: AdviceByErrno & { readonly EBUSY: string };
  readonly attach: AdviceByErrno;
  readonly openDevice: AdviceByErrno;
  readonly openWithToken: AdviceByErrno;
  readonly mapDma: AdviceByErrno;
  readonly resetBus: AdviceByErrno;
  readonly outsideIommu: string;
  readonly noIommuDriver: string;
  readonly notViable: string;
} = {
  openNode: {
    ENOENT: MODPROBE_ADVICE,
    ENODEV: MODPROBE_ADVICE,
    ENXIO: MODPROBE_ADVICE,
    EACCES: nodePermissionAdvice("/dev/vfio/N"),
    EPERM: "run as root: only it may use groups without an IOMMU",
    EBUSY: GROUP_BUSY_ADVICE,
  },
  attach: {
    ENODEV: "modprobe vfio_iommu_type1",
    ENOMEM: MEMLOCK_ADVICE,
  },
  openDevice: {
    ENODEV: "bind it to vfio-pci first: tsvmm bind",
    EINVAL: "bind it to vfio-pci first: tsvmm bind",
    EBUSY: GROUP_BUSY_ADVICE,
    EACCES:
      "its physical function belongs to vfio-pci, or it is one whose virtual functions are in use: give its owner's " +
      "token, --device ...,vf-token=UUID",
  },
  openWithToken: {
    EACCES: "the token is not the one that the physical function's owner has set",
    EINVAL: "the token has no use: its physical function does not belong to vfio-pci; leave vf-token out",
  },
  mapDma: {
    ENOMEM: MEMLOCK_ADVICE,
    ENOSPC: "the container has no mappings left: raise vfio_iommu_type1's dma_entry_limit",
    EINVAL: "the address or size is beyond what the IOMMU can map: give the guest less RAM",
    EEXIST: "something is mapped there already",
    EFAULT: "the memory cannot be pinned: this kernel cannot map this device's memory for other devices",
  },
  resetBus: {
    EINVAL: "a function on its bus is bound to no vfio driver: tsvmm bind --group",
    ENODEV: "a function on its bus is bound to no vfio driver: tsvmm bind --group",
    EPERM: "a group on its bus is not this machine's",
    EAGAIN: "somebody else is using the bus at the moment",
  },
  outsideIommu:
    "firmware or platform reserve the rest: cat /sys/kernel/iommu_groups/N/reserved_regions; give the guest less " +
    "RAM, or pass the device that narrows the range to another guest",
  noIommuDriver: "modprobe vfio_iommu_type1",
  notViable: "see tsvmm devices: every device of the group must be bound to vfio-pci or to no driver",
};
