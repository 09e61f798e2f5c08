import type { ErrorEntry } from "./entry.ts";

/** Causes in the host: its limits, files, sockets, disks, KVM, and the machine's own life. */
export type HostErrorCode =
  | "TSVMM_OPEN_FILES"
  | "TSVMM_THREAD_LIMIT"
  | "TSVMM_ADDRESS_SPACE"
  | "TSVMM_THREAD_START"
  | "TSVMM_THREAD_STUCK"
  | "TSVMM_INSTALLATION"
  | "TSVMM_C_LIBRARY"
  | "TSVMM_NO_MEMORY"
  | "TSVMM_NO_HUGE_PAGES"
  | "TSVMM_AIO_LIMIT"
  | "TSVMM_HOST_CALL"
  | "TSVMM_TERMINAL"
  | "TSVMM_OUTPUT_FILE"
  | "TSVMM_PIPE_UNREAD"
  | "TSVMM_LOCK_FILE"
  | "TSVMM_SOCKET_NAME"
  | "TSVMM_SOCKET_IN_USE"
  | "TSVMM_SOCKET_FAILED"
  | "TSVMM_SOCKET_ABSENT"
  | "TSVMM_SOCKET_REFUSED"
  | "TSVMM_SOCKET_DENIED"
  | "TSVMM_PEER_LOST"
  | "TSVMM_DISK_LOCKED"
  | "TSVMM_DISK_IN_USE"
  | "TSVMM_DISK_DENIED"
  | "TSVMM_DISK_FORMAT"
  | "TSVMM_DISK_SIZE"
  | "TSVMM_DISK_DIRECT"
  | "TSVMM_DISK_IO"
  | "TSVMM_KVM_MISSING"
  | "TSVMM_KVM_DENIED"
  | "TSVMM_KVM_BUSY"
  | "TSVMM_KVM_TOO_OLD"
  | "TSVMM_KVM_REFUSED"
  | "TSVMM_KVM_SLOTS"
  | "TSVMM_VCPU_FAILED"
  | "TSVMM_GUEST_MEMORY_LOST"
  | "TSVMM_TRIPLE_FAULT"
  | "TSVMM_MACHINE_OFF";

export const HOST_ERRORS: Readonly<Record<HostErrorCode, ErrorEntry>> = {
  TSVMM_OPEN_FILES: {
    title: "The limit of open files is reached",
    meaning: "The process, or the host, has no file descriptor left (EMFILE, ENFILE).",
    look: "`ulimit -n` shows the process's limit, `cat /proc/sys/fs/file-nr` the host's.",
    remedy: "Raise the limit: `ulimit -n`, `LimitNOFILE=` in a unit, or the sysctl `fs.file-max`.",
  },
  TSVMM_THREAD_LIMIT: {
    title: "The host allows no more threads",
    meaning: "A machine has a thread for each vCPU and a few others, and the host refused one of them.",
    look: "`ulimit -u`; `pids.max` of the control group; `cat /proc/sys/kernel/threads-max`.",
    advice: "raise ulimit -u, pids.max of its control group, or kernel.threads-max",
    remedy: "In a container or a unit the limit is `--pids-limit` or `TasksMax=`.",
  },
  TSVMM_ADDRESS_SPACE: {
    title: "The limit of address space is reached",
    meaning: "A thread reserves 800 MiB of address space at its start, of which next to nothing is used.",
    look: "`ulimit -v` shows the limit in KiB.",
    advice: "raise ulimit -v",
    remedy: "The limit is best `unlimited`: reserved address space takes no memory.",
  },
  TSVMM_THREAD_START: {
    title: "A thread does not start",
    meaning: "A thread of the machine failed before it was ready, or was not ready in time.",
    look: "`uptime` and `dmesg | tail` show an overloaded host, or one without memory.",
    remedy: "Try again when the host has CPU time and memory to spare.",
  },
  TSVMM_THREAD_STUCK: {
    title: "A thread does not end",
    meaning: "A call of the kernel does not return, so that what the thread uses cannot be given back.",
    look: "`ps -eLo pid,tid,stat,wchan,comm` shows threads in state D with what they wait for.",
    remedy: "Look for a device or a network file system that does not answer. The message names the thread.",
  },
  TSVMM_INSTALLATION: {
    title: "A file of the program is missing",
    meaning: "A part of tsvmm that is loaded when it is needed is not there.",
    look: "`npm ls tsvmm`, and whether the package was replaced while the program ran.",
    advice: "was the package replaced meanwhile?",
    remedy: "Install the package again and start anew.",
  },
  TSVMM_C_LIBRARY: {
    title: "The C library cannot be loaded",
    meaning: "tsvmm calls the system through glibc, and the process has another C library or koffi does not load.",
    look: "`ldd --version`; `node -p process.report.getReport().header.glibcVersionRuntime`.",
    remedy: "Use a distribution with glibc, and install the package again for this version of Node.js.",
  },
  TSVMM_NO_MEMORY: {
    title: "The host has too little memory",
    meaning: "The kernel could not give the memory for guest RAM or for a buffer.",
    look: "`free -m`; `memory.max` of the control group; `ulimit -v` and `ulimit -f`.",
    remedy: "End other programs, raise the limit, or give the guest less memory.",
  },
  TSVMM_NO_HUGE_PAGES: {
    title: "The host has too few huge pages",
    meaning: "Guest RAM was asked for in huge pages, and the pool has fewer free ones than the guest needs.",
    look: "`grep Huge /proc/meminfo`.",
    remedy: "Enlarge the pool with the command that the message names, or ask for ordinary pages.",
  },
  TSVMM_AIO_LIMIT: {
    title: "The host's asynchronous I/O is used up or switched off",
    meaning: "Interrupts are signalled by way of a small context of asynchronous I/O, and the kernel gave none.",
    look: "`cat /proc/sys/fs/aio-nr /proc/sys/fs/aio-max-nr`.",
    remedy: "Raise the sysctl `fs.aio-max-nr`. A kernel without `CONFIG_AIO` cannot be used.",
  },
  TSVMM_HOST_CALL: {
    title: "A call of the host's kernel failed",
    meaning: "A system call failed for a reason that is not expected there.",
    look: "The message names the call and the errno; `strace -f` shows its arguments.",
    remedy: "Look the errno up in the call's manual page. In a sandbox, allow the call.",
  },
  TSVMM_TERMINAL: {
    title: "A terminal cannot be used",
    meaning: "The mode of the terminal could not be changed, or no pseudo-terminal could be made.",
    look: "`stty -a` for the terminal; `ls /dev/pts` and `cat /proc/sys/kernel/pty/max` for pseudo-terminals.",
    remedy: "Send the console elsewhere, to a file or a socket.",
  },
  TSVMM_OUTPUT_FILE: {
    title: "An output file cannot be written",
    meaning: "A file for the console, the log, the summary or a recording could not be opened or written.",
    look: "`ls -ld` of the file and its directory; `df` for the file system.",
    remedy: "Name a file in a directory that this user may write to, with room on its file system.",
  },
  TSVMM_PIPE_UNREAD: {
    title: "A pipe has no reader",
    meaning: "The output goes into a named pipe that no process reads, or whose reader takes nothing.",
    look: "`fuser -v PATH` names the processes that have the pipe open.",
    advice: "the pipe has no reader: start the reader first",
    remedy: "Start the reader before the machine.",
  },
  TSVMM_LOCK_FILE: {
    title: "A lock file cannot be used",
    meaning: "A socket is made under a lock file beside it, and that file could not be made or has content.",
    look: "`ls -l PATH.tsvmm-lock`.",
    remedy: "Remove the file that the message names, or choose a path in a directory that this user may write to.",
  },
  TSVMM_SOCKET_NAME: {
    title: "A socket's path cannot be used",
    meaning: "The path is longer than 107 bytes, or a file that is no socket has that name.",
    look: "`ls -l PATH`.",
    remedy: "Use a shorter path, or remove the file.",
  },
  TSVMM_SOCKET_IN_USE: {
    title: "Another process listens at the socket",
    meaning: "A live process has the socket's path, or makes a socket there at this moment.",
    look: "`ss -xlp | grep PATH` names the process.",
    advice: "use another path",
    remedy: "End that process, or give each machine a path of its own.",
  },
  TSVMM_SOCKET_FAILED: {
    title: "A socket cannot be made",
    meaning: "The kernel refused to make the socket or to listen at it.",
    look: "`ls -ld` of the socket's directory.",
    remedy: "Choose a path in a directory that this user may write to.",
  },
  TSVMM_SOCKET_ABSENT: {
    title: "The socket does not exist",
    meaning: "The path of a device process's socket leads to nothing: the process has not made it yet.",
    look: "`ls -l PATH`.",
    advice: "no server has made it",
    remedy: "Start the device process first, and wait until its socket is there.",
  },
  TSVMM_SOCKET_REFUSED: {
    title: "No process listens at the socket",
    meaning: "The socket's file is there, and the process that made it has ended.",
    look: "`ss -xlp | grep PATH` shows no process.",
    advice: "no server listens there any more",
    remedy: "Start the device process again.",
  },
  TSVMM_SOCKET_DENIED: {
    title: "The socket may not be used by this user",
    meaning: "Connecting to a socket needs the right to write to its file.",
    look: "`namei -l PATH`.",
    remedy: "Change the socket's permissions, or run both processes as the same user.",
  },
  TSVMM_PEER_LOST: {
    title: "The other process has hung up",
    meaning: "The connection to a process at the other end of a socket is closed, mostly because that process ended.",
    look: "Its own messages say why.",
    remedy: "Start it again. A device that is lost leaves the running guest.",
  },
  TSVMM_DISK_LOCKED: {
    title: "Another machine uses the disk image",
    meaning: "Another process has the image open and locked: two writers would destroy its file system.",
    look: "`lslocks` and `fuser -v IMAGE` name the process.",
    remedy: "End the other machine, or give the disk read-only to both.",
  },
  TSVMM_DISK_IN_USE: {
    title: "The host uses the disk",
    meaning: "The block device, or a partition of it, is mounted or claimed, or the image is in use by the kernel.",
    look: "`lsblk DEVICE`, `swapon --show`.",
    remedy: "Unmount it, or give the disk read-only.",
  },
  TSVMM_DISK_DENIED: {
    title: "The disk image may not be opened",
    meaning: "This user may not read or write the image, or its file system is read-only.",
    look: "`namei -l IMAGE`; `findmnt -T IMAGE`.",
    remedy: "Change the permissions, or give the disk read-only.",
  },
  TSVMM_DISK_FORMAT: {
    title: "The disk image's format is not supported",
    meaning: "The image is not raw, or was said to be of another format.",
    look: "`qemu-img info IMAGE`.",
    remedy: "Convert it: `qemu-img convert -O raw IMAGE IMAGE.raw`.",
  },
  TSVMM_DISK_SIZE: {
    title: "The disk image is too small",
    meaning: "The image has no whole block.",
    look: "`ls -l IMAGE`, `blockdev --getsize64 DEVICE`.",
    advice: "make it larger, for example with truncate -s 1G",
    remedy: "The size is to be a multiple of 512 bytes; with direct I/O, of the medium's block size.",
  },
  TSVMM_DISK_DIRECT: {
    title: "The file system has no direct I/O",
    meaning: "The disk was asked for without the host's page cache, and its file system cannot do that.",
    look: "`findmnt -T IMAGE`: tmpfs and some network file systems have none.",
    advice: "leave direct=on out",
    remedy: "Or move the image to a file system that has it, such as ext4 or XFS.",
  },
  TSVMM_DISK_IO: {
    title: "The disk image cannot be read or written",
    meaning: "A call on the open image failed, or the image became shorter while it was used.",
    look: "`dmesg | tail` shows errors of the medium; `df` a full file system.",
    remedy: "Repair or replace the medium, and check the image.",
  },
  TSVMM_KVM_MISSING: {
    title: "KVM is not there",
    meaning: "/dev/kvm does not exist, or no module of the kernel stands behind it.",
    look: "`ls -l /dev/kvm`; `lsmod | grep kvm`; `dmesg | grep -i kvm` says when the firmware has switched it off.",
    advice:
      "load the module kvm_intel or kvm_amd; if that fails, enable virtualization in the firmware setup, or nested " +
      "virtualization where this machine is itself a guest",
    remedy: "In a container, hand in the device: `--device /dev/kvm`.",
  },
  TSVMM_KVM_DENIED: {
    title: "KVM may not be used by this user",
    meaning: "This user has no right to open /dev/kvm, or the container does not allow the device.",
    look: "`ls -l /dev/kvm` shows the group; `id` the groups of the user.",
    advice: "add the user to group kvm and sign in again",
    remedy: "As root: `usermod -aG kvm USER`.",
  },
  TSVMM_KVM_BUSY: {
    title: "Another hypervisor has the CPU",
    meaning: "The CPU's virtualization is held by another hypervisor, so that KVM can make no machine.",
    look: "`lsmod | grep -e vbox -e vmmon`.",
    advice: "another hypervisor holds the CPU's virtualization",
    remedy: "End its machines, or unload its module.",
  },
  TSVMM_KVM_TOO_OLD: {
    title: "KVM lacks something that is needed",
    meaning: "The host's KVM has another API version, or lacks a capability or a device.",
    look: "`uname -r`; `tsvmm doctor` lists each capability.",
    advice: "use a host kernel of Linux 4.12 or newer for x86-64",
    remedy: "A kernel that was built without a part of KVM lacks it too.",
  },
  TSVMM_KVM_REFUSED: {
    title: "KVM refused a request",
    meaning: "An ioctl of KVM failed for a reason that is not expected there.",
    look: "The message names the ioctl and the errno; `dmesg | tail` may have more.",
    remedy: "Compare with another host kernel, and report it with the message.",
  },
  TSVMM_KVM_SLOTS: {
    title: "KVM's memory slots are used up",
    meaning: "Each range of RAM and each mapped BAR takes a slot, and the host's KVM has a limited number.",
    look: "The message shows the limit of this host.",
    advice: "leave BARs unmapped or attach fewer devices",
    remedy: "`bars=trap` of a device leaves its BARs unmapped.",
  },
  TSVMM_VCPU_FAILED: {
    title: "A vCPU cannot go on",
    meaning:
      "KVM could not run the guest's code: an invalid state, an instruction it cannot emulate, or an exit " +
      "that this program does not know.",
    look: "The lines below the message show the registers.",
    remedy: "Look at the code at that address. Nested hosts and software KVMs emulate less than others.",
  },
  TSVMM_GUEST_MEMORY_LOST: {
    title: "Memory behind the guest could not be reached",
    meaning: "KVM met a page that it could not get: a file behind it was cut short, or a device's memory is off.",
    look: "`dmesg | tail` shows whether a device or the memory failed.",
    advice: "guest memory could not be reached: a file behind it was cut short, or a device's memory is off",
    remedy: "Leave the files of a running machine alone.",
  },
  TSVMM_TRIPLE_FAULT: {
    title: "The guest failed before it touched a device",
    meaning: "The boot processor took a triple fault in the first instructions of the kernel.",
    look: "`file KERNEL`; `-vvv` shows the exits up to there.",
    remedy: "Take a kernel that was built for x86-64 and, if it is a vmlinux, with `CONFIG_PVH=y`.",
  },
  TSVMM_MACHINE_OFF: {
    title: "The machine is off",
    meaning: "A running machine was asked for something after its end, or during a reset of the guest.",
    look: "`machine.exited` of the API says how it ended.",
    remedy: "Ask earlier, or start a new machine.",
  },
};
