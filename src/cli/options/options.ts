import type { KeyRow, OptionRow } from "./option-table.ts";

const refused = (name: string, refusedBecause: string): KeyRow => ({
  ...{ name, value: "", help: "", isHidden: true, refusedBecause },
});

const NO_HOTPLUG = "nothing can be added to a running guest: omit it";
const NO_QUEUES = "a disk has one queue of 256 requests: omit it";
const NO_LIMITS = "requests are not throttled: omit it";

export const MEMORY_KEYS: readonly KeyRow[] = [
  { name: "size", value: "SIZE", help: "K, M, G and T are powers of 1024" },
  { name: "hugepages", value: "on|off", help: "take huge pages, which the host must have reserved" },
  { name: "prefault", value: "on|off", help: "touch every page before the start" },
  { name: "shared", value: "on|off", help: "accepted for compatibility: memory is always shared" },
  refused("hugepage_size", "huge pages have 2 MiB: write hugepages=on alone"),
  refused("mergeable", "memory is shared with devices and cannot be merged: omit it"),
  refused("thp", "transparent huge pages are always asked for: omit it"),
  ...["hotplug_size", "hotplug_method", "hotplugged_size"].map((name) => refused(name, NO_HOTPLUG)),
];

export const CPU_KEYS: readonly KeyRow[] = [
  { name: "boot", value: "N", help: "how many there are at the start" },
  refused("max", NO_HOTPLUG),
  refused("topology", "guests see one socket with a core for each CPU: omit it"),
  refused("affinity", "threads are not pinned: use taskset, or a cpuset for the whole program"),
  refused("max_phys_bits", "guests see as many address bits as the host has: omit it"),
  refused("kvm_hyperv", "guests see KVM's own interfaces: omit it"),
];

export const DISK_KEYS: readonly KeyRow[] = [
  { name: "path", value: "PATH", help: "raw image file or block device" },
  { name: "readonly", value: "on|off", help: "the guest may not write" },
  { name: "direct", value: "on|off", help: "past the host's page cache (O_DIRECT)" },
  { name: "serial", value: "TEXT", help: "serial number the guest reads, 20 characters at most" },
  { name: "id", value: "NAME", help: "name in messages" },
  { name: "image_type", value: "raw", help: "accepted for compatibility" },
  ...["num_queues", "queue_size", "queue_affinity"].map((name) => refused(name, NO_QUEUES)),
  ...["bw_size", "bw_refill_time", "ops_size", "ops_refill_time", "rate_limit_group"].map((name) =>
    refused(name, NO_LIMITS),
  ),
  ...["vhost_user", "socket"].map((name) => refused(name, "disks are files and block devices: give path=PATH")),
  refused("iommu", "guests have no IOMMU of their own here: omit it"),
  refused("pci_segment", "guests have segment 0 only: omit it"),
  refused("pci_device_id", "disks take the first free slots: omit it"),
];

export const DEVICE_KEYS: readonly KeyRow[] = [
  {
    name: "path",
    aliases: ["host", "sysfsdev"],
    value: "PATH",
    help: "sysfs directory of the function, or its address: 0000:01:00.0",
  },
  { name: "id", value: "NAME", help: "name in messages" },
  { name: "bars", value: "map|trap", help: "trap: let every access to the device's memory pass through this program" },
  {
    name: "exclude_mmap_bars",
    aliases: ["x_exclude_mmap_bars"],
    value: "[N,N]",
    help: "BARs to trap although they could be mapped",
  },
  {
    name: "rom",
    value: "on|off|file=PATH",
    help: "expansion ROM the guest sees: the device's, none, a file's content",
  },
  { name: "pci_device_id", value: "SLOT", help: "slot on the guest's bus, 1 to 31; the first free one otherwise" },
  // QEMU's words for bars= and rom=, and Cloud Hypervisor's keys where their defaults are all there is here.
  { name: "x-no-mmap", value: "on|off", help: "", isHidden: true },
  { name: "romfile", value: "PATH", help: "", isHidden: true },
  { name: "rombar", value: "0|1", help: "", isHidden: true },
  { name: "iommu", value: "off", help: "", isHidden: true },
  { name: "pci_segment", value: "0", help: "", isHidden: true },
];

export const USER_DEVICE_KEYS: readonly KeyRow[] = [
  { name: "socket", value: "PATH", help: "unix socket where the device's process listens" },
  { name: "id", value: "NAME", help: "name in messages" },
  {
    name: "timeout",
    value: "off|SECONDS",
    help: "what its process may take before it counts as lost; default: 5",
  },
];

export const RNG_KEYS: readonly KeyRow[] = [{ name: "src", value: "PATH", help: "where random bytes come from" }];

const CHARACTER_VALUE = "off|null|tty|pty|file=PATH|socket=PATH";

/** All options of `run`, in the order of the help. */
export const OPTIONS: readonly OptionRow[] = [
  {
    name: "--kernel",
    group: "What to boot",
    form: { kind: "value", value: "PATH" },
    help: "ELF vmlinux with a PVH note, bzImage, or multiboot kernel; required",
  },
  {
    name: "--initramfs",
    group: "What to boot",
    form: { kind: "value", value: "PATH" },
    help: "initial RAM disk; the first module of a multiboot kernel",
  },
  {
    name: "--cmdline",
    group: "What to boot",
    form: { kind: "value", value: "TEXT" },
    help: "kernel command line, passed as it is; quote it when it has spaces",
  },
  {
    name: "--cpus",
    group: "Machine",
    form: { kind: "keys", value: "N", keys: CPU_KEYS, defaultKey: "boot" },
    help: "number of virtual CPUs; default: 1",
  },
  {
    name: "--memory",
    group: "Machine",
    form: { kind: "keys", value: "SIZE", keys: MEMORY_KEYS, defaultKey: "size" },
    help: "guest RAM; default: 512M",
  },
  {
    name: "--no-reboot",
    group: "Machine",
    form: { kind: "flag" },
    help: "end when the guest resets itself, instead of starting it anew",
  },
  {
    name: "--disk",
    group: "Devices",
    form: { kind: "list", value: "PATH", keys: DISK_KEYS, defaultKey: "path" },
    help: "virtio disk: /dev/vda, /dev/vdb, … in the guest",
  },
  {
    name: "--device",
    group: "Devices",
    form: { kind: "list", value: "PATH", keys: DEVICE_KEYS, defaultKey: "path" },
    help: "PCI function of the host to pass through; it has to be bound to vfio-pci",
  },
  {
    name: "--user-device",
    group: "Devices",
    form: { kind: "list", value: "PATH", keys: USER_DEVICE_KEYS, defaultKey: "socket" },
    help: "PCI device that is a process of its own, reached by vfio-user",
  },
  {
    name: "--serial",
    group: "Devices",
    form: { kind: "value", value: CHARACTER_VALUE },
    help: "serial port, ttyS0 in the guest; tty (this terminal) unless the console has it. Ctrl-A x quits",
  },
  {
    name: "--console",
    group: "Devices",
    form: { kind: "value", value: CHARACTER_VALUE },
    help: "virtio console, hvc0 in the guest; default: off",
  },
  {
    name: "--rng",
    group: "Devices",
    form: { kind: "keys", value: "PATH", keys: RNG_KEYS, defaultKey: "src" },
    help: "source of the guest's random numbers; default: /dev/urandom",
  },
  {
    name: "--debug-exit",
    group: "Devices",
    form: { kind: "value", value: "PORT" },
    help: "I/O port whose writes end the machine with status value * 2 + 1, as test suites use 0xf4",
  },
  {
    name: "--test-device",
    group: "Devices",
    form: { kind: "flag" },
    help: "ports and memory of QEMU's pc-testdev, as kvm-unit-tests uses them, with --debug-exit 0xf4",
  },
  {
    name: "--dry-run",
    group: "This program",
    form: { kind: "flag" },
    help: "build the machine, print what it is made of, and do not start it",
  },
  {
    name: "--poll",
    group: "This program",
    form: { kind: "value", value: "MICROSECONDS|auto" },
    help: "how long the device thread polls before it sleeps; auto: as long as a host CPU is to spare",
  },
  {
    name: "--log-file",
    group: "This program",
    form: { kind: "value", value: "PATH" },
    help: "append the log to a file; default: as JSON lines",
  },
  {
    name: "--log-format",
    group: "This program",
    form: { kind: "value", value: "pretty|json" },
    help: "how the log looks; default: pretty on a terminal",
  },
  {
    name: "--summary",
    group: "This program",
    form: { kind: "value", value: "PATH" },
    help: "write what the machine was and did to a file at its end, as JSON: plan, exits, accesses, interrupts, times",
  },
  {
    name: "--verbose",
    short: "-v",
    group: "This program",
    form: { kind: "count" },
    help: "log more; -vv: still more; -vvv: every step of guest and devices, best with --log-file",
  },
  { name: "--quiet", short: "-q", group: "This program", form: { kind: "flag" }, help: "log errors only" },
  { name: "--help", short: "-h", group: "This program", form: { kind: "flag" }, help: "print this text" },
  { name: "--version", group: "This program", form: { kind: "flag" }, help: "print the version" },
];
