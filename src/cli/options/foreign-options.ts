/**
 * Hints for Cloud Hypervisor and QEMU options that tsvmm lacks: the equivalent here, or why there is none. Shown after
 * `unknown option '--net': `.
 */
export const FOREIGN_OPTIONS: ReadonlyMap<string, string> = new Map([
  // Cloud Hypervisor
  ["--net", "there is no virtual network card; pass one of the host's through with --device"],
  ["--firmware", "nothing boots through firmware; give the kernel itself with --kernel"],
  ["--fs", "directories are not shared with the guest; put what it needs on a --disk"],
  ["--pmem", "there is no persistent memory; use --disk path=PATH,readonly=on"],
  ["--vsock", "there are no virtual sockets; talk through --serial socket=PATH or --console socket=PATH"],
  ["--balloon", "memory cannot be taken back from a guest; omit it"],
  ["--watchdog", "there is no watchdog; panic=1 in --cmdline restarts a guest whose kernel has failed"],
  ["--numa", "guests have one memory node; omit it"],
  ["--vdpa", "only VFIO and vfio-user devices can be passed through: --device, --user-device"],
  ["--tpm", "there is no TPM; omit it"],
  ["--api-socket", 'a running machine is driven from TypeScript: import { Machine } from "tsvmm"'],
  ["--event-monitor", "events come from the typed API, and counts from --summary PATH"],
  ["--restore", "machines cannot be saved and restored; omit it"],
  ["--debug-console", "the guest's early messages come from --serial, with earlyprintk=ttyS0 in --cmdline"],
  ["--gdb", "there is no gdb stub; -vvv shows everything the guest does to its devices"],
  ["--seccomp", "system calls are not filtered; omit it"],
  ["--landlock", "file access is not restricted; omit it"],
  // QEMU
  ["-m", "write --memory 512M"],
  ["-smp", "write --cpus 4"],
  ["-append", "write --cmdline TEXT"],
  ["-initrd", "write --initramfs PATH"],
  ["-drive", "write --disk path=PATH"],
  ["-hda", "write --disk path=PATH"],
  ["-device", "for vfio-pci,host=0000:01:00.0 write --device 0000:01:00.0"],
  ["-netdev", "there is no virtual network card; pass one of the host's through with --device"],
  ["-nographic", "omit it: there is no other way"],
  ["-enable-kvm", "omit it: there is no other way"],
  ["-accel", "omit it: KVM is all there is"],
  ["-cpu", "omit it: guests see the host's processor, as KVM offers it"],
  ["-M", "omit it: there is one kind of machine"],
  ["-machine", "omit it: there is one kind of machine"],
]);
