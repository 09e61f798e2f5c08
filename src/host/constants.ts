/**
 * Constants and struct offsets of the C library and the kernel, x86-64, under their C names. `test/abi/libc.test.ts`
 * compares every line with the headers; a table is here only for what the program uses.
 */

/** <fcntl.h> */
export const FCNTL = {
  O_RDONLY: 0,
  O_WRONLY: 1,
  O_RDWR: 2,
  O_CREAT: 0o100,
  O_EXCL: 0o200,
  O_NOCTTY: 0o400,
  O_TRUNC: 0o1000,
  O_APPEND: 0o2000,
  O_NONBLOCK: 0o4000,
  O_DIRECT: 0o40000,
  O_DIRECTORY: 0o200000,
  O_NOFOLLOW: 0o400000,
  O_CLOEXEC: 0o2000000,
  O_PATH: 0o10000000,
  AT_FDCWD: -100,
  F_GETFD: 1,
  F_GETFL: 3,
  F_SETFL: 4,
  F_DUPFD_CLOEXEC: 1030,
  F_OFD_GETLK: 36,
  F_OFD_SETLK: 37,
  F_RDLCK: 0,
  F_WRLCK: 1,
  F_UNLCK: 2,
  F_ADD_SEALS: 1033,
  F_GET_SEALS: 1034,
  F_SEAL_SEAL: 0x1,
  F_SEAL_SHRINK: 0x2,
  F_SEAL_GROW: 0x4,
  SEEK_SET: 0,
} as const;

/** <linux/falloc.h> */
export const FALLOC = {
  FALLOC_FL_KEEP_SIZE: 0x01,
  FALLOC_FL_PUNCH_HOLE: 0x02,
  FALLOC_FL_ZERO_RANGE: 0x10,
} as const;

/** <sys/mman.h> */
export const MMAN = {
  PROT_NONE: 0,
  PROT_READ: 1,
  PROT_WRITE: 2,
  PROT_EXEC: 4,
  MAP_SHARED: 0x01,
  MAP_PRIVATE: 0x02,
  MAP_FIXED: 0x10,
  MAP_ANONYMOUS: 0x20,
  MAP_NORESERVE: 0x4000,
  MAP_POPULATE: 0x8000,
  MAP_HUGETLB: 0x4_0000,
  MAP_FIXED_NOREPLACE: 0x10_0000,
  MFD_CLOEXEC: 0x1,
  MFD_ALLOW_SEALING: 0x2,
  MFD_HUGETLB: 0x4,
  MFD_HUGE_2MB: 0x5400_0000,
  MFD_HUGE_1GB: 0x7800_0000,
  MADV_DONTNEED: 4,
  MADV_DONTFORK: 10,
  MADV_HUGEPAGE: 14,
  MADV_DONTDUMP: 16,
  MADV_POPULATE_WRITE: 23,
} as const;

/** <sys/eventfd.h> */
export const EVENTFD = {
  EFD_CLOEXEC: 0o2000000,
  EFD_NONBLOCK: 0o4000,
} as const;

/** <linux/aio_abi.h> */
export const AIO = {
  IOCB_CMD_PREAD: 0,
  IOCB_FLAG_RESFD: 1,
} as const;

/** <sys/epoll.h> */
export const EPOLL = {
  EPOLL_CLOEXEC: 0o2000000,
  EPOLL_CTL_ADD: 1,
  EPOLL_CTL_DEL: 2,
  EPOLL_CTL_MOD: 3,
  EPOLLIN: 0x001,
  EPOLLOUT: 0x004,
  EPOLLERR: 0x008,
  EPOLLHUP: 0x010,
  EPOLLRDHUP: 0x2000,
  EPOLLET: 0x8000_0000,
} as const;

/** <poll.h> */
export const POLL = {
  POLLIN: 0x001,
  POLLOUT: 0x004,
  POLLERR: 0x008,
  POLLHUP: 0x010,
  POLLNVAL: 0x020,
} as const;

/** <signal.h>. glibc takes the real-time signals 32 and 33 for itself. */
export const SIGNAL = {
  SIG_BLOCK: 0,
  SIG_UNBLOCK: 1,
  SIG_SETMASK: 2,
  SIGHUP: 1,
  SIGINT: 2,
  SIGUSR1: 10,
  SIGPIPE: 13,
  SIGTERM: 15,
} as const;

/** <sys/prctl.h> */
export const PRCTL = {
  PR_SET_NAME: 15,
  PR_GET_NAME: 16,
} as const;

/** <sys/resource.h> and the capability numbers of <linux/capability.h>. */
export const RESOURCE = {
  RLIMIT_FSIZE: 1,
  RLIMIT_NOFILE: 7,
  RLIMIT_MEMLOCK: 8,
  RLIMIT_AS: 9,
  CAP_IPC_LOCK: 14,
  CAP_SYS_ADMIN: 21,
  CAP_SYS_RESOURCE: 24,
} as const;

/** <termios.h> and the tty ioctls of <asm/ioctls.h>. */
export const TERMIOS = {
  IGNBRK: 0o1,
  BRKINT: 0o2,
  PARMRK: 0o10,
  ISTRIP: 0o40,
  INLCR: 0o100,
  IGNCR: 0o200,
  ICRNL: 0o400,
  IXON: 0o2000,
  OPOST: 0o1,
  ONLCR: 0o4,
  CSIZE: 0o60,
  CS8: 0o60,
  PARENB: 0o400,
  ISIG: 0o1,
  ICANON: 0o2,
  ECHO: 0o10,
  ECHONL: 0o100,
  IEXTEN: 0o100000,
  VTIME: 5,
  VMIN: 6,
  TCSANOW: 0,
  TCSADRAIN: 1,
  TIOCGPTN: 0x80045430,
  TIOCSPTLCK: 0x40045431,
  TIOCGPTPEER: 0x5441,
} as const;

/** <sys/socket.h> */
export const SOCKET = {
  AF_UNIX: 1,
  SOCK_STREAM: 1,
  SOCK_CLOEXEC: 0o2000000,
  SOCK_NONBLOCK: 0o4000,
  SOL_SOCKET: 1,
  SCM_RIGHTS: 1,
  MSG_CTRUNC: 0x08,
  MSG_DONTWAIT: 0x40,
  MSG_NOSIGNAL: 0x4000,
  MSG_CMSG_CLOEXEC: 0x4000_0000,
} as const;

/** <linux/fs.h>: ioctls on block devices. Ranges are two u64, start and length in bytes. */
export const BLOCK = {
  BLKSSZGET: 0x1268,
  BLKGETSIZE64: 0x80081272,
  BLKDISCARD: 0x1277,
  BLKZEROOUT: 0x127f,
} as const;

/** struct iovec, <sys/uio.h> */
export const IOVEC = { size: 16, iov_base: 0, iov_len: 8 } as const;
/** struct epoll_event, <sys/epoll.h>; packed on x86-64. */
export const EPOLL_EVENT = { size: 12, events: 0, data: 4 } as const;
/** struct iocb, <linux/aio_abi.h>; members that stay zero are not here. */
export const IOCB = {
  size: 64,
  aio_rw_flags: 12,
  aio_lio_opcode: 16,
  aio_fildes: 20,
  aio_flags: 56,
  aio_resfd: 60,
} as const;
/** struct io_event, <linux/aio_abi.h>; what is in it is not looked at. */
export const IO_EVENT = { size: 32 } as const;
/** struct pollfd, <poll.h> */
export const POLLFD = { size: 8, fd: 0, events: 4, revents: 6 } as const;
/** struct timespec, <time.h> */
export const TIMESPEC = { size: 16, tv_sec: 0, tv_nsec: 8 } as const;
/** struct termios, <termios.h> */
export const TERMIOS_STATE = {
  size: 60,
  c_iflag: 0,
  c_oflag: 4,
  c_cflag: 8,
  c_lflag: 12,
  c_line: 16,
  c_cc: 17,
  c_ispeed: 52,
  c_ospeed: 56,
} as const;
/** struct rlimit, <sys/resource.h>; all ones is RLIM_INFINITY. */
export const RLIMIT = { size: 16, rlim_cur: 0, rlim_max: 8 } as const;
/** struct flock, <fcntl.h> */
export const FLOCK = { size: 32, l_type: 0, l_whence: 2, l_start: 8, l_len: 16, l_pid: 24 } as const;
/** struct sockaddr_un, <sys/un.h> */
export const SOCKADDR_UN = { size: 110, sun_family: 0, sun_path: 2 } as const;
/** struct msghdr, <sys/socket.h> */
export const MSGHDR = {
  size: 56,
  msg_name: 0,
  msg_namelen: 8,
  msg_iov: 16,
  msg_iovlen: 24,
  msg_control: 32,
  msg_controllen: 40,
  msg_flags: 48,
} as const;
/** struct cmsghdr, <sys/socket.h>; data follow at 16, the whole is padded to 8. */
export const CMSGHDR = { size: 16, cmsg_len: 0, cmsg_level: 8, cmsg_type: 12 } as const;
/** sigset_t, <signal.h>; the kernel looks at the first 8 bytes. */
export const SIGSET_SIZE = 128;
/** The kernel's own signal set: bit n - 1 is signal n. */
export const KERNEL_SIGSET_SIZE = 8;
