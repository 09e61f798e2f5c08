import type { ErrorEntry } from "./entry.ts";

/** Causes in passed-through devices: IOMMU, VFIO, drivers, and devices in processes of their own. */
export type DeviceErrorCode =
  | "TSVMM_NO_IOMMU"
  | "TSVMM_VFIO_MISSING"
  | "TSVMM_VFIO_NO_GROUPS"
  | "TSVMM_VFIO_DENIED"
  | "TSVMM_VFIO_REFUSED"
  | "TSVMM_GROUP_BUSY"
  | "TSVMM_GROUP_NOT_VIABLE"
  | "TSVMM_DRIVER_NOT_VFIO"
  | "TSVMM_NO_INTERRUPT_REMAPPING"
  | "TSVMM_IOMMU_MISMATCH"
  | "TSVMM_IOMMU_RANGE"
  | "TSVMM_FIRMWARE_RANGES"
  | "TSVMM_MEMLOCK"
  | "TSVMM_DMA_LIMIT"
  | "TSVMM_DMA_REFUSED"
  | "TSVMM_VF_TOKEN"
  | "TSVMM_NO_VECTORS"
  | "TSVMM_BRIDGE"
  | "TSVMM_DEVICE_IN_USE"
  | "TSVMM_DEVICE_UNUSABLE"
  | "TSVMM_DEVICE_UNREADABLE"
  | "TSVMM_RESET_FAILED"
  | "TSVMM_DEVICE_FAILED"
  | "TSVMM_REMOVAL_OVERDUE"
  | "TSVMM_BAR_NO_ROOM"
  | "TSVMM_DRIVER_CHANGE"
  | "TSVMM_BIND_DENIED"
  | "TSVMM_MODULE_LOAD"
  | "TSVMM_USER_DEVICE_SILENT"
  | "TSVMM_USER_DEVICE_PROTOCOL"
  | "TSVMM_USER_DEVICE_REFUSED"
  | "TSVMM_USER_DEVICE_UNSUITABLE";

/** How to switch the IOMMU on, by the CPU's maker. */
export const IOMMU_SWITCH = {
  intel: "enable VT-d in the firmware setup and boot the host with intel_iommu=on",
  amd: "enable the IOMMU (AMD-Vi) in the firmware setup; the kernel then uses it, unless booted with amd_iommu=off",
} as const;

export const DEVICE_ERRORS: Readonly<Record<DeviceErrorCode, ErrorEntry>> = {
  TSVMM_NO_IOMMU: {
    title: "No IOMMU translates for the device",
    meaning: "Without an IOMMU a device's DMA would reach all of the host's memory, so it cannot be passed through.",
    look: "`ls /sys/class/iommu` is empty when it is off; `dmesg | grep -i -e dmar -e amd-vi` says why.",
    remedy: `Intel: ${IOMMU_SWITCH.intel}. AMD: ${IOMMU_SWITCH.amd}.`,
  },
  TSVMM_VFIO_MISSING: {
    title: "VFIO is not loaded",
    meaning: "The kernel's VFIO modules are not loaded, or no device of the group is bound to vfio-pci.",
    look: "`ls -l /dev/vfio`; `lsmod | grep vfio`.",
    advice: "modprobe vfio_iommu_type1 && modprobe vfio-pci",
    remedy: "`tsvmm bind BDF` loads the modules and binds the device.",
  },
  TSVMM_VFIO_NO_GROUPS: {
    title: "The kernel offers no VFIO groups",
    meaning: "The kernel has iommufd's device nodes only, and tsvmm opens devices by their groups.",
    look: "`ls /dev/vfio` shows `devices` and no `vfio`.",
    advice: "modprobe vfio_iommu_type1, or a kernel with CONFIG_VFIO_GROUP and CONFIG_IOMMUFD_VFIO_CONTAINER",
    remedy: "Distributions' kernels have both.",
  },
  TSVMM_VFIO_DENIED: {
    title: "The VFIO node may not be opened by this user",
    meaning: "/dev/vfio/N belongs to root until it is given to a user.",
    look: "`ls -l /dev/vfio`.",
    advice: "run as root, or give your user the node: chown $USER /dev/vfio/N",
    remedy: "A udev rule makes the change of the owner permanent.",
  },
  TSVMM_VFIO_REFUSED: {
    title: "VFIO refused a request",
    meaning: "A call of VFIO failed for a reason that is not expected there.",
    look: "The message names the call and the errno; `dmesg | tail` has vfio-pci's view.",
    remedy: "See what the host's kernel log says of the device.",
  },
  TSVMM_GROUP_BUSY: {
    title: "Another process uses a device of the IOMMU group",
    meaning: "An IOMMU group can be opened by one process only, and another one has it.",
    look: "`fuser -v /dev/vfio/N` names the process.",
    advice: "another process uses a device of this group: end it first",
    remedy: "Functions of one group can be passed to one machine only.",
  },
  TSVMM_GROUP_NOT_VIABLE: {
    title: "A host driver uses another device of the group",
    meaning: "The functions of an IOMMU group reach each other's DMA, so none may stay with a host driver.",
    look: "`tsvmm devices` shows the members of each group with their drivers.",
    advice: "see tsvmm devices: every device of the group must be bound to vfio-pci or to no driver",
    remedy: "`tsvmm bind --group BDF` takes all of them. Another slot of the board may have a group of its own.",
  },
  TSVMM_DRIVER_NOT_VFIO: {
    title: "The device is not bound to vfio-pci",
    meaning: "A host driver, or no driver, has the device, and only vfio-pci lets a program have it.",
    look: "`lspci -k -s BDF`.",
    remedy: "`tsvmm bind BDF`; `tsvmm unbind BDF` gives it back later.",
  },
  TSVMM_NO_INTERRUPT_REMAPPING: {
    title: "The host does not remap interrupts",
    meaning: "Without interrupt remapping a guest can make its device raise any interrupt of the host.",
    look: "`grep IR- /proc/interrupts` finds lines where it is on; `dmesg | grep -i remapping` says why it is not.",
    advice:
      "the platform has no interrupt remapping; if you trust the guest: modprobe -r vfio_pci vfio_iommu_type1; " +
      "modprobe vfio_iommu_type1 allow_unsafe_interrupts=1; modprobe vfio_pci",
    remedy: "Look for interrupt remapping or x2APIC in the firmware setup first.",
  },
  TSVMM_IOMMU_MISMATCH: {
    title: "The group's IOMMU does not go with the others",
    meaning: "All devices of a machine share one address space, and their IOMMUs differ in width or page size.",
    look: "`tsvmm doctor BDF BDF` shows the width of each.",
    advice:
      "the group's IOMMU cannot share an address space with the other devices: address widths or page sizes differ",
    remedy: "Pass the devices to different machines.",
  },
  TSVMM_IOMMU_RANGE: {
    title: "The IOMMU does not translate an address of the guest",
    meaning: "A guest-physical address is the address of its DMA, and the IOMMU cannot translate this one.",
    look: "`cat /sys/kernel/iommu_groups/N/reserved_regions`; `tsvmm doctor BDF` shows the width.",
    advice:
      "firmware or platform reserve the rest: cat /sys/kernel/iommu_groups/N/reserved_regions; give the guest less " +
      "RAM, or pass the device that narrows the range to another guest",
    remedy: "Features of the firmware that reserve memory for a device can often be switched off in its setup.",
  },
  TSVMM_FIRMWARE_RANGES: {
    title: "The firmware reserves memory for the device",
    meaning: "The firmware demands that memory is mapped for the device at all times, so the kernel keeps the device.",
    look: "`grep direct /sys/kernel/iommu_groups/N/reserved_regions`.",
    advice: "look for the device's management or shared-memory feature in the firmware setup and switch it off",
    remedy: "Ranges that the kernel calls `direct-relaxable` do no harm.",
  },
  TSVMM_MEMLOCK: {
    title: "The limit of locked memory is too low",
    meaning: "A device may reach all of the guest's RAM at any time, so all of it is pinned.",
    look: "`ulimit -l` shows the limit in KiB.",
    advice: "raise the limit of locked memory above the guest's RAM: ulimit -l unlimited, or LimitMEMLOCK= in the unit",
    remedy: "For sign-ins the limit is `memlock` in `/etc/security/limits.conf`.",
  },
  TSVMM_DMA_LIMIT: {
    title: "The container has no DMA mappings left",
    meaning: "The kernel limits the mappings of one process, and BARs that peers reach take one each.",
    look: "`cat /sys/module/vfio_iommu_type1/parameters/dma_entry_limit`.",
    advice: "the container has no mappings left: raise vfio_iommu_type1's dma_entry_limit",
    remedy: "The parameter may be set when the module is loaded.",
  },
  TSVMM_DMA_REFUSED: {
    title: "The IOMMU refused a mapping",
    meaning: "Memory could not be mapped for DMA: it cannot be pinned, or its address is taken or out of reach.",
    look: "`dmesg | tail`.",
    remedy: "Do what the message says. Memory of some devices cannot be mapped for others by older kernels.",
  },
  TSVMM_VF_TOKEN: {
    title: "The virtual function needs its owner's token",
    meaning: "The physical function belongs to a program through vfio-pci, which protects its virtual functions.",
    look: "`lspci -k` shows the driver of the physical function.",
    advice:
      "its physical function belongs to vfio-pci, or it is one whose virtual functions are in use: give its owner's " +
      "token, vfToken or vf-token=UUID",
    remedy: "Or give the physical function to its kernel driver, which then makes the virtual functions.",
  },
  TSVMM_NO_VECTORS: {
    title: "The host has no interrupt vectors left",
    meaning: "Each vector of a device takes one of the host's, and the host's CPUs have some 200 each.",
    look: "`wc -l /proc/interrupts`; the message shows how many were left.",
    advice: "the host has no interrupt vectors left: give guests fewer queues, or fewer devices",
    remedy: "Drivers of the host often take fewer vectors by a module parameter.",
  },
  TSVMM_BRIDGE: {
    title: "The function is a bridge",
    meaning: "Only endpoints can be passed through; a bridge belongs to the host's topology.",
    look: "`lspci -s BDF`.",
    remedy: "Pass the functions behind the bridge.",
  },
  TSVMM_DEVICE_IN_USE: {
    title: "The host uses the device",
    meaning: "A file system, swap area, route or display of the host depends on the device, or a guest has it.",
    look: "`tsvmm devices BDF` says what it is used for.",
    remedy: "End that use first. `--force` takes the device all the same.",
  },
  TSVMM_DEVICE_UNUSABLE: {
    title: "The device cannot be passed through",
    meaning: "What the device or VFIO tells of it contradicts the PCI specification, or it is not a PCI device.",
    look: "`lspci -vvv -s BDF`, `dmesg | tail`: a device that has failed reads all ones.",
    remedy: "Reset or reseat the device, or update its firmware.",
  },
  TSVMM_DEVICE_UNREADABLE: {
    title: "The device's configuration space cannot be read",
    meaning: "sysfs gave less of the configuration space than the recording needs.",
    look: "`ls -l /sys/bus/pci/devices/BDF/config`; only root reads more than 64 bytes.",
    remedy: "Run as root. A device in state D3cold does not answer: bind it to a driver first.",
  },
  TSVMM_RESET_FAILED: {
    title: "The device could not be reset",
    meaning: "The kernel could not reset the device, or the functions that would be reset with it forbid it.",
    look: "`cat /sys/bus/pci/devices/BDF/reset_method`; `dmesg | tail`.",
    remedy: "Bind all functions of its bus to vfio-pci, or switch the host's power off and on.",
  },
  TSVMM_DEVICE_FAILED: {
    title: "A passed-through device has failed",
    meaning: "The device reported an error or answers no more, and the machine was to end with it.",
    look: "`dmesg` of the host shows AER messages; `lspci -vvv -s BDF` reads all ones where the device is gone.",
    remedy: "Reset or reseat the device, or switch the power of the host off and on.",
  },
  TSVMM_BAR_NO_ROOM: {
    title: "A BAR has no place in the guest's address space",
    meaning: "The BARs of all devices of a kind take more addresses than the guest's bridge has for them.",
    look: "`lspci -vv -s BDF` shows the sizes; `tsvmm --dry-run` the places of a machine with fewer devices.",
    remedy: "Do what the message says, or pass the devices to different machines.",
  },
  TSVMM_REMOVAL_OVERDUE: {
    title: "A device that is to be removed is not let go",
    meaning: "The host wants the device back, or it failed, and the guest or the device did not let it go in time.",
    look: "`dmesg` of host and guest.",
    remedy: "Load the guest's hot-plug driver (`acpiphp`), and unbind the device in the guest first.",
  },
  TSVMM_DRIVER_CHANGE: {
    title: "A device's driver cannot be changed",
    meaning: "The kernel did not bind the device to the driver that was asked for.",
    look: "`lspci -k -s BDF`; `dmesg | tail` says why.",
    remedy: "Do what the message says, and repeat the command.",
  },
  TSVMM_BIND_DENIED: {
    title: "Drivers may be changed by root only",
    meaning: "The files of sysfs that bind devices, and the record of their drivers, are root's.",
    look: "`id -u`; `ls -l /sys/bus/pci/drivers_probe`.",
    advice: "run as root",
    remedy: "In a container sysfs is read-only: bind the device on the host.",
  },
  TSVMM_MODULE_LOAD: {
    title: "A kernel module cannot be loaded",
    meaning: "`modprobe` failed.",
    look: "`modprobe -v MODULE`; `dmesg | tail`.",
    remedy: "Run as root, and install the modules of the running kernel. In a container, load it on the host.",
  },
  TSVMM_USER_DEVICE_SILENT: {
    title: "The device process does not answer",
    meaning: "A process that serves a device by vfio-user did not answer, or did not read, in time.",
    look: "`ps` and the process's own messages show what it does.",
    remedy: "It may serve another machine. A slow one is given longer by `timeout=`.",
  },
  TSVMM_USER_DEVICE_PROTOCOL: {
    title: "The device process breaks the protocol",
    meaning: "The other end of a vfio-user connection sent something that the protocol does not allow.",
    look: "The message names what was sent.",
    remedy: "Report it to the makers of that program. Only version 0.1 of the protocol is spoken.",
  },
  TSVMM_USER_DEVICE_REFUSED: {
    title: "The device process refused a request",
    meaning: "The process that serves the device answered a request with an error.",
    look: "The message names the request and the errno; the process's own messages may say more.",
    remedy: "See what the process needs.",
  },
  TSVMM_USER_DEVICE_UNSUITABLE: {
    title: "The device process serves something that cannot be used",
    meaning: "The device is no PCI device, or lacks what a machine needs of it, such as descriptors or mappings.",
    look: "The message names what is missing.",
    remedy: "Configure the device process differently, or use another.",
  },
};
