/**
 * Options of Cloud Hypervisor and QEMU that people bring along and this program does not have: what does their job here, or why nothing
 * does. Shown after `unknown option '--net': `.
 */
export const FOREIGN_OPTIONS: ReadonlyMap<string, string> = new Map([
  // Cloud Hypervisor
  ["--net", "there is no virtual network card; pass one of the host's through with --device"],
  ["--firmware", "nothing boots through firmware; give the kernel itself with --kernel"],
  ["--fs", "directories are not shared with the guest; put what it needs on a --disk"],
  ["--pmem", "there is no persistent memory; use --disk path=PATH,readonly=on"],
  ["--vsock", "there are no virtual sockets; talk through --serial socket=PATH or --console socket=PATH"],
  ["--balloon", "memory cannot be taken back from a guest; leave it away"],
  ["--watchdog", "there is no watchdog; panic=1 in --cmdline restarts a guest whose kernel has failed"],
  ["--numa", "guests have one memory node; leave it away"],
  ["--platform", "guests have one PCI segment and no identity of their own; leave it away"],
  ["--vdpa", "only VFIO and vfio-user devices can be passed through: --device, --user-device"],
  ["--tpm", "there is no TPM; leave it away"],
  ["--api-socket", 'a running machine is driven from TypeScript: import { Machine } from "tsvmm"'],
  ["--event-monitor", "events come from the typed API, and counts from --summary PATH"],
  ["--restore", "machines cannot be saved and restored; leave it away"],
  ["--debug-console", "the guest's early messages come from --serial, with earlyprintk=ttyS0 in --cmdline"],
  ["--gdb", "there is no gdb stub; -vvv shows everything the guest does to its devices"],
  ["--seccomp", "system calls are not filtered; leave it away"],
  ["--landlock", "file access is not restricted; leave it away"],
  // QEMU
  ["-m", "write --memory 512M"],
  ["-smp", "write --cpus 4"],
  ["-append", "write --cmdline TEXT"],
  ["-initrd", "write --initramfs PATH"],
  ["-drive", "write --disk path=PATH"],
  ["-hda", "write --disk path=PATH"],
  ["-device", "for vfio-pci,host=0000:01:00.0 write --device 0000:01:00.0"],
  ["-netdev", "there is no virtual network card; pass one of the host's through with --device"],
  ["-nographic", "leave it away: there is no other way"],
  ["-enable-kvm", "leave it away: there is no other way"],
  ["-accel", "leave it away: KVM is all there is"],
  ["-cpu", "leave it away: guests see the host's processor, as KVM offers it"],
  ["-M", "leave it away: there is one kind of machine"],
  ["-machine", "leave it away: there is one kind of machine"],
]);
