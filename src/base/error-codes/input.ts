import type { ErrorEntry } from "./entry.ts";

/** Causes in the machine's specification, the command line and the files that they name. */
export type InputErrorCode =
  | "TSVMM_VALUE_MISSING"
  | "TSVMM_VALUE_INVALID"
  | "TSVMM_VALUE_TWICE"
  | "TSVMM_VALUE_CONFLICT"
  | "TSVMM_VALUE_UNSUPPORTED"
  | "TSVMM_UNKNOWN_OPTION"
  | "TSVMM_FILE_ABSENT"
  | "TSVMM_FILE_DENIED"
  | "TSVMM_FILE_KIND"
  | "TSVMM_FILE_EMPTY"
  | "TSVMM_FILE_TOO_LARGE"
  | "TSVMM_FILE_UNREADABLE"
  | "TSVMM_KERNEL_FORMAT"
  | "TSVMM_KERNEL_UNSUPPORTED"
  | "TSVMM_KERNEL_DAMAGED"
  | "TSVMM_CMDLINE"
  | "TSVMM_IMAGE_NO_ROOM"
  | "TSVMM_IMAGE_OVERLAP"
  | "TSVMM_MEMORY_LAYOUT"
  | "TSVMM_TOO_MANY_CPUS"
  | "TSVMM_PCI_SLOTS_FULL"
  | "TSVMM_PORT_TAKEN"
  | "TSVMM_DEVICE_ABSENT"
  | "TSVMM_NOT_PCI_FUNCTION"
  | "TSVMM_RECORDING_INVALID"
  | "TSVMM_RECORDING_VERSION";

export const INPUT_ERRORS: Readonly<Record<InputErrorCode, ErrorEntry>> = {
  TSVMM_VALUE_MISSING: {
    title: "A value is missing",
    meaning: "An option, a key or a part of the specification that a machine needs was not given, or is empty.",
    look: "`tsvmm --help` shows which values each option takes.",
    remedy: "Give the value that the message names.",
  },
  TSVMM_VALUE_INVALID: {
    title: "A value is malformed or out of range",
    meaning: "A value could be read, and is not one that its option or part of the specification takes.",
    look: "The message shows the value and what is possible.",
    remedy: "Give one of the values that the message names.",
  },
  TSVMM_VALUE_TWICE: {
    title: "A value is given twice",
    meaning: "Two entries name the same thing: an option, a key, an id, a PCI slot, a device, a socket or an image.",
    look: "The message shows the value that occurs twice.",
    remedy: "Leave one of the two out. Only read-only disks can share an image.",
  },
  TSVMM_VALUE_CONFLICT: {
    title: "Two values contradict each other",
    meaning: "Each of two values is possible, and they cannot be given together.",
    look: "The message names both.",
    remedy: "Leave one of the two out.",
  },
  TSVMM_VALUE_UNSUPPORTED: {
    title: "The feature is not supported",
    meaning: "The value asks for something that other VMMs have and tsvmm has not.",
    look: "`docs/reference/limits.md` lists what is not supported.",
    remedy: "Leave the value out, or do what the message says instead.",
  },
  TSVMM_UNKNOWN_OPTION: {
    title: "An option, key or command is unknown",
    meaning: "The command line has a word that is no option, key or command of this program.",
    look: "`tsvmm --help` lists all options with their keys.",
    remedy: "Correct the word. The message proposes one that is spelled alike, if there is one.",
  },
  TSVMM_FILE_ABSENT: {
    title: "A file does not exist",
    meaning: "A path leads to nothing.",
    look: "`ls -l PATH`, from the directory in which the program runs.",
    remedy: "Correct the path, or make the file first.",
  },
  TSVMM_FILE_DENIED: {
    title: "A file may not be used by this user",
    meaning: "The permissions of a file, or of a directory that leads to it, do not allow this user to open it.",
    look: "`namei -l PATH` shows the permissions of each directory on the way.",
    remedy: "Change the permissions, or run as a user that may open the file.",
  },
  TSVMM_FILE_KIND: {
    title: "A path leads to another kind of file",
    meaning: "The path exists, and is a directory, a device, a socket or a file where something else is needed.",
    look: "`stat PATH` says what it is.",
    remedy: "Give a path of the kind that the message names.",
  },
  TSVMM_FILE_EMPTY: {
    title: "A file is empty",
    meaning: "A kernel, an initramfs, a ROM or a disk image of no bytes was given.",
    look: "`ls -l PATH`.",
    remedy: "Make the file again: what made it was probably interrupted.",
  },
  TSVMM_FILE_TOO_LARGE: {
    title: "A file is too large",
    meaning: "A file has more bytes than can be used of it.",
    look: "`ls -l PATH`.",
    remedy: "Give the right file: the message names the largest possible size.",
  },
  TSVMM_FILE_UNREADABLE: {
    title: "A file cannot be read",
    meaning: "The kernel refused to open or read a file, for a reason other than its absence or permissions.",
    look: "`dd if=PATH of=/dev/null` repeats the failure; `dmesg | tail` shows errors of the medium.",
    remedy: "Copy the file to another medium, or correct the path.",
  },
  TSVMM_KERNEL_FORMAT: {
    title: "The file is not a kernel",
    meaning: "The file given as kernel is an archive, a disk image, a script or another kind of data.",
    look: "`file PATH` says what it is.",
    remedy: "Give a `vmlinux`, a `bzImage` or a multiboot kernel. Disks and archives have options of their own.",
  },
  TSVMM_KERNEL_UNSUPPORTED: {
    title: "The kernel cannot be booted here",
    meaning: "The kernel is for another architecture, or has none of the entry points that tsvmm can start.",
    look: "`file PATH` shows the architecture; `readelf -n PATH` shows whether a PVH note is there.",
    remedy: "Take an x86 kernel that is a `bzImage`, or one that was built with `CONFIG_PVH=y`.",
  },
  TSVMM_KERNEL_DAMAGED: {
    title: "The kernel's file is damaged",
    meaning: "A header of the kernel contradicts itself or the size of the file.",
    look: "`readelf -hl PATH` for a vmlinux; compare the file's checksum with that of its source.",
    remedy: "Copy or build the kernel again.",
  },
  TSVMM_CMDLINE: {
    title: "The kernel's command line cannot be used",
    meaning: "The command line is longer than the kernel takes, or has a NUL character.",
    look: "The message shows the length and what is possible.",
    remedy: "Shorten it.",
  },
  TSVMM_IMAGE_NO_ROOM: {
    title: "Kernel or initramfs does not fit into guest RAM",
    meaning: "The guest's RAM has no free range where the boot protocol wants the image.",
    look: "The message shows the image, its place and the RAM there is.",
    remedy: "Give the guest more memory, or take a smaller image.",
  },
  TSVMM_IMAGE_OVERLAP: {
    title: "Two images claim the same addresses",
    meaning: "A segment of the kernel lies where something else is that the boot protocol needs.",
    look: "`readelf -l PATH` shows where the kernel's segments lie.",
    remedy: "Link the kernel to other addresses.",
  },
  TSVMM_MEMORY_LAYOUT: {
    title: "Guest memory cannot be laid out",
    meaning: "Guest RAM of this size does not fit into the addresses that the CPU and the IOMMU can reach.",
    look: "`tsvmm doctor --memory SIZE BDF` shows the widths; `/sys/kernel/iommu_groups/N/reserved_regions` the gaps.",
    remedy: "Give the guest less memory, or pass the device with the narrow range to another guest.",
  },
  TSVMM_TOO_MANY_CPUS: {
    title: "More vCPUs than KVM allows",
    meaning: "The host's KVM makes fewer vCPUs for one machine than were asked for.",
    look: "The message shows the limit of this host.",
    remedy: "Ask for fewer vCPUs.",
  },
  TSVMM_PCI_SLOTS_FULL: {
    title: "No PCI slot is left",
    meaning: "Bus 0 has 31 slots for devices, and each disk, console and passed-through device takes one.",
    look: "`tsvmm --dry-run` lists the slots that are taken.",
    remedy: "Give the machine fewer devices.",
  },
  TSVMM_PORT_TAKEN: {
    title: "An I/O port is taken",
    meaning: "The debug exit port was put where another device of the machine has its ports.",
    look: "The message names the device.",
    remedy: "Choose another port. 0xf4 is free.",
  },
  TSVMM_DEVICE_ABSENT: {
    title: "The PCI function does not exist",
    meaning: "The host has no PCI function at this address.",
    look: "`tsvmm devices` lists the functions there are.",
    remedy: "Correct the address. Addresses change when cards are added or moved.",
  },
  TSVMM_NOT_PCI_FUNCTION: {
    title: "A path is not a PCI function's directory",
    meaning: "A device was given by a path that exists, and that does not belong to a PCI function.",
    look: "`ls PATH`: a function's directory has a file `config`.",
    remedy: "Give the address, as in `0000:01:00.0`, or its directory below `/sys/bus/pci/devices`.",
  },
  TSVMM_RECORDING_INVALID: {
    title: "A device recording is malformed",
    meaning: "A file given as a device recording is not what `tsvmm devices --record` writes.",
    look: "The message names the part that is wrong.",
    remedy: "Record the device again.",
  },
  TSVMM_RECORDING_VERSION: {
    title: "A device recording is of another version",
    meaning: "The recording was written by a tsvmm whose format this one does not read.",
    look: "`jq .version FILE`.",
    remedy: "Record the device again with this version.",
  },
};
