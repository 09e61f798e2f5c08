/*
 * <linux/vfio.h>, the parts used here: request numbers, constants and struct layouts under their C names. Requests are
 * _IO(';', n) without a size; the size of each struct travels in its `argsz`. test/abi/vfio.test.ts lays all of it
 * beside the C header.
 */

/** Requests to the container `/dev/vfio/vfio`. Numbers overlap with the device's: the descriptor decides. */
export const VFIO_GET_API_VERSION = 0x3b64;
export const VFIO_CHECK_EXTENSION = 0x3b65;
export const VFIO_SET_IOMMU = 0x3b66;
export const VFIO_IOMMU_GET_INFO = 0x3b70;
export const VFIO_IOMMU_MAP_DMA = 0x3b71;
export const VFIO_IOMMU_UNMAP_DMA = 0x3b72;

/** Requests to a group `/dev/vfio/N`. */
export const VFIO_GROUP_GET_STATUS = 0x3b67;
export const VFIO_GROUP_SET_CONTAINER = 0x3b68;
export const VFIO_GROUP_UNSET_CONTAINER = 0x3b69;
export const VFIO_GROUP_GET_DEVICE_FD = 0x3b6a;

/** Requests to a device. */
export const VFIO_DEVICE_GET_INFO = 0x3b6b;
export const VFIO_DEVICE_GET_REGION_INFO = 0x3b6c;
export const VFIO_DEVICE_GET_IRQ_INFO = 0x3b6d;
export const VFIO_DEVICE_SET_IRQS = 0x3b6e;
export const VFIO_DEVICE_RESET = 0x3b6f;
export const VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = 0x3b70;
export const VFIO_DEVICE_PCI_HOT_RESET = 0x3b71;

export const VFIO_API_VERSION = 0;
export const VFIO_TYPE1v2_IOMMU = 3;

export const VFIO_GROUP_FLAGS_VIABLE: number = 1 << 0;
export const VFIO_GROUP_FLAGS_CONTAINER_SET: number = 1 << 1;

export const VFIO_DEVICE_FLAGS_RESET: number = 1 << 0;
export const VFIO_DEVICE_FLAGS_PCI: number = 1 << 1;

export const VFIO_REGION_INFO_FLAG_READ: number = 1 << 0;
export const VFIO_REGION_INFO_FLAG_WRITE: number = 1 << 1;
export const VFIO_REGION_INFO_FLAG_MMAP: number = 1 << 2;
export const VFIO_REGION_INFO_FLAG_CAPS: number = 1 << 3;
export const VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1;
export const VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3;

export const VFIO_PCI_NUM_REGIONS = 9;

export const VFIO_PCI_INTX_IRQ_INDEX = 0;
export const VFIO_PCI_MSI_IRQ_INDEX = 1;
export const VFIO_PCI_MSIX_IRQ_INDEX = 2;
export const VFIO_PCI_ERR_IRQ_INDEX = 3;
export const VFIO_PCI_REQ_IRQ_INDEX = 4;
export const VFIO_PCI_NUM_IRQS = 5;

export const VFIO_IRQ_INFO_EVENTFD: number = 1 << 0;
export const VFIO_IRQ_INFO_MASKABLE: number = 1 << 1;
export const VFIO_IRQ_INFO_AUTOMASKED: number = 1 << 2;
export const VFIO_IRQ_INFO_NORESIZE: number = 1 << 3;

export const VFIO_IRQ_SET_DATA_NONE: number = 1 << 0;
export const VFIO_IRQ_SET_DATA_BOOL: number = 1 << 1;
export const VFIO_IRQ_SET_DATA_EVENTFD: number = 1 << 2;
export const VFIO_IRQ_SET_ACTION_MASK: number = 1 << 3;
export const VFIO_IRQ_SET_ACTION_UNMASK: number = 1 << 4;
export const VFIO_IRQ_SET_ACTION_TRIGGER: number = 1 << 5;

export const VFIO_IOMMU_INFO_PGSIZES: number = 1 << 0;
export const VFIO_IOMMU_INFO_CAPS: number = 1 << 1;
export const VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1;
export const VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3;

export const VFIO_DMA_MAP_FLAG_READ: number = 1 << 0;
export const VFIO_DMA_MAP_FLAG_WRITE: number = 1 << 1;

export const VFIO_DMA_UNMAP_FLAG_ALL: number = 1 << 1;

/** struct vfio_info_cap_header; `next` counts from the start of the info struct, 0 ends the chain. */
export const INFO_CAP_HEADER = { size: 8, id: 0, version: 2, next: 4 } as const;

/** struct vfio_group_status */
export const GROUP_STATUS = { size: 8, argsz: 0, flags: 4 } as const;

/** struct vfio_device_info without the capability offset, which kernels before 5.8 do not have. */
export const DEVICE_INFO = { size: 16, argsz: 0, flags: 4, num_regions: 8, num_irqs: 12 } as const;

/** struct vfio_region_info */
export const REGION_INFO = {
  size: 32,
  argsz: 0,
  flags: 4,
  index: 8,
  cap_offset: 12,
  region_size: 16,
  offset: 24,
} as const;

/** struct vfio_region_info_cap_sparse_mmap and its struct vfio_region_sparse_mmap_area */
export const SPARSE_MMAP = { size: 16, nr_areas: 8, areas: 16 } as const;
export const SPARSE_MMAP_AREA = { size: 16, offset: 0, area_size: 8 } as const;

/** struct vfio_irq_info */
export const IRQ_INFO = { size: 16, argsz: 0, flags: 4, index: 8, count: 12 } as const;

/** struct vfio_irq_set; `data` is one s32 per eventfd. */
export const IRQ_SET = { size: 20, argsz: 0, flags: 4, index: 8, start: 12, count: 16, data: 20 } as const;

/** struct vfio_iommu_type1_info up to `cap_offset` (the padding behind it came in 6.6). */
export const IOMMU_TYPE1_INFO = { size: 20, argsz: 0, flags: 4, iova_pgsizes: 8, cap_offset: 16 } as const;

/** struct vfio_iommu_type1_info_cap_iova_range and its struct vfio_iova_range; `end` is the last byte. */
export const IOVA_RANGE_CAP = { size: 16, nr_iovas: 8, iova_ranges: 16 } as const;
export const IOVA_RANGE = { size: 16, start: 0, end: 8 } as const;

/** struct vfio_iommu_type1_info_dma_avail */
export const DMA_AVAIL_CAP = { size: 12, avail: 8 } as const;

/** struct vfio_iommu_type1_dma_map */
export const DMA_MAP = { size: 32, argsz: 0, flags: 4, vaddr: 8, iova: 16, map_size: 24 } as const;

/** struct vfio_iommu_type1_dma_unmap */
export const DMA_UNMAP = { size: 24, argsz: 0, flags: 4, iova: 8, unmap_size: 16 } as const;

/**
 * struct vfio_pci_hot_reset_info and its struct vfio_pci_dependent_device; `group_id` is a device id for iommufd users.
 */
export const HOT_RESET_INFO = { size: 12, argsz: 0, flags: 4, count: 8, devices: 12 } as const;
export const PCI_DEPENDENT_DEVICE = { size: 8, group_id: 0, segment: 4, bus: 6, devfn: 7 } as const;

/** struct vfio_pci_hot_reset; one s32 per group. */
export const HOT_RESET = { size: 12, argsz: 0, flags: 4, count: 8, group_fds: 12 } as const;
