/** Same words wherever a user meets the problem: at preflight, or when the kernel says it later. */
export const UNSAFE_INTERRUPTS_ADVICE: string =
  "the platform has no interrupt remapping; if you trust the guest: modprobe -r vfio_pci vfio_iommu_type1; " +
  "modprobe vfio_iommu_type1 allow_unsafe_interrupts=1; modprobe vfio_pci";
export const MODPROBE_ADVICE = "modprobe vfio_iommu_type1 && modprobe vfio-pci";
export const MEMLOCK_ADVICE =
  "raise the limit of locked memory above the guest's RAM: ulimit -l unlimited, or LimitMEMLOCK= in the unit";
export const nodePermissionAdvice = (node: string): string =>
  `run as root, or give your user the node: chown $USER ${node}`;
export const GROUP_BUSY_ADVICE = "another process uses a device of this group: end it first";
