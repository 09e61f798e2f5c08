import { SpecError } from "../../base/errors.ts";
import type { Given } from "../../vmm/spec/fields/check.ts";
import { readForeignDeviceKeys } from "./device-keys.ts";
import type { KeyRow } from "./option-table.ts";

/** Keys of an option that come from other VMMs. */
export interface ForeignKeys {
  readonly keys: readonly KeyRow[];
  /**
   * What those that are taken mean here, by the specification's fields.
   *
   * @param given All keys of the value, the option's own too.
   * @throws SpecError
   */
  readonly read?: (given: ReadonlyMap<string, string>, home: string) => Given;
}

const refused = (name: string, refusedBecause: string): KeyRow => ({
  ...{ name, value: "", help: "", isHidden: true, refusedBecause },
});
const hidden = (name: string, value: string): KeyRow => ({ name, value, help: "", isHidden: true });

const NO_HOTPLUG = "nothing can be added to a running guest: omit it";
const NO_QUEUES = "a disk has one queue of 256 requests: omit it";
const NO_LIMITS = "requests are not throttled: omit it";

function readImageType(given: ReadonlyMap<string, string>): Given {
  const type = given.get("image_type") ?? "raw";
  if (type === "raw") return {};
  throw new SpecError(
    "TSVMM_DISK_FORMAT",
    "--disk",
    `image_type ${type} is not supported: convert it with qemu-img convert -O raw`,
  );
}

/** Cloud Hypervisor's and QEMU's keys by the option they are tried with. */
export const FOREIGN_KEYS: Readonly<Record<string, ForeignKeys>> = {
  "--memory": {
    keys: [
      refused("mergeable", "memory is shared with devices and cannot be merged: omit it"),
      refused("thp", "transparent huge pages are always asked for: omit it"),
      ...["hotplug_size", "hotplug_method", "hotplugged_size"].map((name) => refused(name, NO_HOTPLUG)),
    ],
  },
  "--cpus": {
    keys: [
      refused("max", NO_HOTPLUG),
      refused("max_phys_bits", "guests see as many address bits as the host has: omit it"),
      refused("kvm_hyperv", "guests see KVM's own interfaces: omit it"),
    ],
  },
  "--platform": {
    keys: [
      refused("num_pci_segments", "guests have segment 0 only: omit it"),
      ...["iommu_segments", "iommu_address_width"].map((name) =>
        refused(name, "guests have no IOMMU of their own here: omit it"),
      ),
      ...["iommufd", "iommufd_fd"].map((name) => refused(name, "devices are taken by their groups: omit it")),
      ...["serial_number", "uuid", "oem_strings"].map((name) =>
        refused(name, "guests have no identity of their own: omit it"),
      ),
    ],
  },
  "--disk": {
    keys: [
      { name: "image_type", value: "raw", help: "accepted for compatibility" },
      ...["num_queues", "queue_size", "queue_affinity"].map((name) => refused(name, NO_QUEUES)),
      ...["bw_size", "bw_refill_time", "ops_size", "ops_refill_time", "rate_limit_group"].map((name) =>
        refused(name, NO_LIMITS),
      ),
      ...["vhost_user", "socket"].map((name) => refused(name, "disks are files and block devices: give path=PATH")),
      refused("iommu", "guests have no IOMMU of their own here: omit it"),
      refused("pci_segment", "guests have segment 0 only: omit it"),
      refused("pci_device_id", "disks take the first free slots: omit it"),
    ],
    read: readImageType,
  },
  "--device": {
    // QEMU's words for bars= and rom=, and Cloud Hypervisor's keys where their defaults are all there is here.
    keys: [
      hidden("x-no-mmap", "on|off"),
      hidden("romfile", "PATH"),
      hidden("rombar", "0|1"),
      hidden("iommu", "off"),
      hidden("pci_segment", "0"),
    ],
    read: readForeignDeviceKeys,
  },
};
