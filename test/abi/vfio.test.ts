import t from "tap";
import { VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ROM_REGION_INDEX } from "../../src/passthrough/backend.ts";
import * as abi from "../../src/vfio/abi.ts";
import { evaluateC, missingCompiler } from "../support/c-headers.ts";

const INCLUDES = ["linux/vfio.h"];
const skip = missingCompiler();

t.test("vfio/abi constants have the values of linux/vfio.h", { skip }, (t) => {
  const all = { ...abi, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ROM_REGION_INDEX };
  const constants = Object.entries(all).filter((entry): entry is [string, number] => typeof entry[1] === "number");
  const inC = evaluateC(
    INCLUDES,
    constants.map(([name]) => name),
  );
  for (const [name, value] of constants) t.equal(value, inC.get(name), name);
  t.ok(constants.length > 40);
  t.end();
});

/** Our name of a member that could not keep its own, since `size` is the struct's. */
const OWN_NAMES: Readonly<Record<string, string>> = {
  region_size: "size",
  area_size: "size",
  map_size: "size",
  unmap_size: "size",
};

const STRUCTS: readonly { type: string; layout: Readonly<Record<string, number>>; sizeInC?: string }[] = [
  { type: "vfio_info_cap_header", layout: abi.INFO_CAP_HEADER },
  { type: "vfio_group_status", layout: abi.GROUP_STATUS },
  // The size is the shortest form the kernel takes: everything before cap_offset.
  { type: "vfio_device_info", layout: abi.DEVICE_INFO, sizeInC: "offsetof(struct vfio_device_info, num_irqs) + 4" },
  { type: "vfio_region_info", layout: abi.REGION_INFO },
  { type: "vfio_region_info_cap_sparse_mmap", layout: abi.SPARSE_MMAP },
  { type: "vfio_region_sparse_mmap_area", layout: abi.SPARSE_MMAP_AREA },
  { type: "vfio_irq_info", layout: abi.IRQ_INFO },
  { type: "vfio_irq_set", layout: abi.IRQ_SET },
  {
    type: "vfio_iommu_type1_info",
    layout: abi.IOMMU_TYPE1_INFO,
    sizeInC: "offsetof(struct vfio_iommu_type1_info, cap_offset) + 4",
  },
  { type: "vfio_iommu_type1_info_cap_iova_range", layout: abi.IOVA_RANGE_CAP },
  { type: "vfio_iova_range", layout: abi.IOVA_RANGE },
  { type: "vfio_iommu_type1_info_dma_avail", layout: abi.DMA_AVAIL_CAP },
  { type: "vfio_iommu_type1_dma_map", layout: abi.DMA_MAP },
  { type: "vfio_iommu_type1_dma_unmap", layout: abi.DMA_UNMAP },
  { type: "vfio_pci_hot_reset_info", layout: abi.HOT_RESET_INFO },
  { type: "vfio_pci_dependent_device", layout: abi.PCI_DEPENDENT_DEVICE },
  { type: "vfio_pci_hot_reset", layout: abi.HOT_RESET },
];

t.test("vfio/abi struct layouts are those of linux/vfio.h", { skip }, (t) => {
  const expressionOf = (type: string, member: string, sizeInC?: string): string =>
    member === "size"
      ? (sizeInC ?? `sizeof(struct ${type})`)
      : `offsetof(struct ${type}, ${OWN_NAMES[member] ?? member})`;
  const rows = STRUCTS.flatMap(({ type, layout, sizeInC }) =>
    Object.entries(layout).map(([member, value]) => ({ value, expression: expressionOf(type, member, sizeInC) })),
  );
  const inC = evaluateC(
    INCLUDES,
    rows.map((row) => row.expression),
  );
  for (const { value, expression } of rows) t.equal(value, inC.get(expression), expression);
  t.end();
});
