import { createRequire } from "node:module";
import type koffiPackage from "koffi";
import { fromCLibrary } from "./c-library.ts";

/**
 * The C library calls this program makes, typed. A failed call does not throw: as in C, -1 is returned and
 * {@link Libc.errno} tells why. Read it before the next call of this thread. `host/errors.ts` turns that into a
 * SyscallError.
 *
 * Addresses are numbers: user mappings lie under 2^47. Buffers handed over are borrowed for the call only; the kernel
 * must not keep them. The test suite holds a second implementation over another FFI package, as an independent witness.
 */
export interface Libc {
  /** errno of this thread's last failed call. */
  errno(): number;

  ioctl(fd: number, request: number, argument: number): number;
  /** ioctl with a struct; it is read and written in place. */
  ioctlStruct(fd: number, request: number, argument: Uint8Array): number;

  open(path: string, flags: number, mode: number): number;
  openat(directory: number, path: string, flags: number, mode: number): number;
  close(fd: number): number;
  fcntl(fd: number, command: number, argument: number): number;
  fcntlStruct(fd: number, command: number, argument: Uint8Array): number;
  ftruncate(fd: number, sizeBytes: number): number;
  fallocate(fd: number, mode: number, offset: number, sizeBytes: number): number;
  /** `mask` has a bit for each CPU; 0 as `pid` is the calling thread. */
  schedSetaffinity(pid: number, sizeBytes: number, mask: Uint8Array): number;
  schedGetaffinity(pid: number, sizeBytes: number, mask: Uint8Array): number;
  fdatasync(fd: number): number;

  read(fd: number, buffer: Uint8Array, sizeBytes: number): number;
  write(fd: number, buffer: Uint8Array, sizeBytes: number): number;
  pread(fd: number, buffer: Uint8Array, sizeBytes: number, offset: number): number;
  pwrite(fd: number, buffer: Uint8Array, sizeBytes: number, offset: number): number;
  /** `segments` is an array of struct iovec {u64 base, u64 length}. */
  preadv(fd: number, segments: Uint8Array, count: number, offset: number): number;
  pwritev(fd: number, segments: Uint8Array, count: number, offset: number): number;

  /** The address, or -1. `MAP_*` and `PROT_*` values are in `host/constants.ts`. */
  mmap(address: number, sizeBytes: number, protection: number, flags: number, fd: number, offset: number): number;
  munmap(address: number, sizeBytes: number): number;
  madvise(address: number, sizeBytes: number, advice: number): number;
  memfdCreate(name: string, flags: number): number;
  /** Copies between addresses of this process. Nothing is checked: both ranges must be mapped. */
  memcpy(target: number, source: number, sizeBytes: number): number;

  /**
   * Copies from addresses of a process, this one too, to addresses of this one; memory that is not there is EFAULT, or
   * fewer bytes. Both are arrays of struct iovec.
   */
  processVmReadv(
    pid: number,
    local: Uint8Array,
    localCount: number,
    remote: Uint8Array,
    remoteCount: number,
    flags: number,
  ): number;
  /** The other way: from `local` to `remote`. */
  processVmWritev(
    pid: number,
    local: Uint8Array,
    localCount: number,
    remote: Uint8Array,
    remoteCount: number,
    flags: number,
  ): number;

  eventfd(initial: number, flags: number): number;
  epollCreate(flags: number): number;
  /** `event` is a struct epoll_event of 12 bytes: u32 events, u64 data. */
  epollControl(epoll: number, operation: number, fd: number, event: Uint8Array): number;
  epollWait(epoll: number, events: Uint8Array, maxEvents: number, timeoutMs: number): number;
  /** Makes a context for asynchronous I/O; `context` is a u64 that receives it, zero before. */
  ioSetup(requests: number, context: Uint8Array): number;
  ioDestroy(context: number): number;
  /** `requests` is an array of addresses of struct iocb. Returns how many were taken. */
  ioSubmit(context: number, count: number, requests: Uint8Array): number;
  /** `events` is an array of struct io_event, `timeout` a struct timespec. */
  ioGetEvents(context: number, minimum: number, maximum: number, events: Uint8Array, timeout: Uint8Array): number;
  /** `descriptors` is an array of struct pollfd {i32 fd, i16 events, i16 revents}. */
  poll(descriptors: Uint8Array, count: number, timeoutMs: number): number;

  /** Ends the process at once, all its threads with it; buffers are not written and no handler runs. _exit(2) */
  exitNow(status: number): void;
  getpid(): number;
  gettid(): number;
  /** Lets another thread that waits for this processor have it. */
  schedYield(): number;
  /** Sends a signal to one thread of this process. */
  tgkill(pid: number, tid: number, signal: number): number;
  /** Returns an errno value, not -1. Sets are 128 bytes. */
  pthreadSigmask(how: number, set: Uint8Array, previous: Uint8Array): number;
  /** Takes one pending signal of `set` off this thread; `timeout` is a struct timespec of 16 bytes. */
  sigtimedwait(set: Uint8Array, timeout: Uint8Array): number;
  prctl(option: number, argument: number): number;
  /** `limit` is a struct rlimit {u64 current, u64 maximum}. */
  getrlimit(resource: number, limit: Uint8Array): number;
  setrlimit(resource: number, limit: Uint8Array): number;

  isatty(fd: number): number;
  /** `state` is a struct termios of 60 bytes. */
  tcgetattr(fd: number, state: Uint8Array): number;
  tcsetattr(fd: number, actions: number, state: Uint8Array): number;

  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Uint8Array, sizeBytes: number): number;
  listen(fd: number, backlog: number): number;
  accept4(fd: number, flags: number): number;
  connect(fd: number, address: Uint8Array, sizeBytes: number): number;
  /** `message` is a struct msghdr of 56 bytes. */
  sendmsg(fd: number, message: Uint8Array, flags: number): number;
  recvmsg(fd: number, message: Uint8Array, flags: number): number;

  /**
   * The bytes at `address`, without a copy. The mapping owns them: the view must not be used after munmap.
   *
   * @param sizeBytes At most 4 GiB (Node 20 aborts above; checked here).
   * @throws RangeError above that size.
   */
  view(address: number, sizeBytes: number): ArrayBuffer;
  /**
   * Where a buffer's bytes are; valid only while the buffer is referenced and only for memory V8 does not move (all
   * array buffers).
   */
  addressOf(buffer: ArrayBufferView): number;
}

/** Largest piece {@link Libc.view} makes: Node 20 aborts the process above it. */
export const MAX_VIEW_SIZE: number = 4 * 1024 ** 3;

const SYS_GETTID = 186;
const SYS_IO_SETUP = 206;
const SYS_IO_DESTROY = 207;
const SYS_IO_GETEVENTS = 208;
const SYS_IO_SUBMIT = 209;
const SYS_TGKILL = 234;

/**
 * koffi without the package's loader, which looks for the right binary among those of all platforms and takes 10 ms of
 * each thread's start. Where that binary does not load (a build from source) the package finds its own way.
 */
function loadKoffi(): typeof koffiPackage {
  const require = createRequire(import.meta.url);
  // Casts: require answers `any`; both are koffi's functions, the binary's being what the package exports.
  try {
    return require("@koromix/koffi-linux-x64/linux_x64/koffi.node") as typeof koffiPackage;
  } catch {
    return require("koffi") as typeof koffiPackage;
  }
}

const koffi = loadKoffi();
const library = fromCLibrary(() => koffi.load("libc.so.6"));

/**
 * Binds one C function; the types are parsed once, here. Cast: koffi cannot know the TypeScript type of a C prototype.
 */
function bind<Call>(prototype: string): Call {
  return fromCLibrary(() => library.func(prototype)) as unknown as Call;
}

/** The C library through koffi. */
export const libc: Libc = {
  errno: () => koffi.errno(),

  ioctl: bind("int ioctl(int fd, unsigned long request, uintptr_t argument)"),
  ioctlStruct: bind("int ioctl(int fd, unsigned long request, void *argument)"),

  open: bind("int open(const char *path, int flags, unsigned int mode)"),
  openat: bind("int openat(int directory, const char *path, int flags, unsigned int mode)"),
  close: bind("int close(int fd)"),
  fcntl: bind("int fcntl(int fd, int command, int64_t argument)"),
  fcntlStruct: bind("int fcntl(int fd, int command, void *argument)"),
  ftruncate: bind("int ftruncate64(int fd, int64_t size)"),
  fallocate: bind("int fallocate64(int fd, int mode, int64_t offset, int64_t size)"),
  schedSetaffinity: bind("int sched_setaffinity(int pid, size_t size, const void *mask)"),
  schedGetaffinity: bind("int sched_getaffinity(int pid, size_t size, void *mask)"),
  fdatasync: bind("int fdatasync(int fd)"),

  read: bind("int64_t read(int fd, void *buffer, size_t size)"),
  write: bind("int64_t write(int fd, const void *buffer, size_t size)"),
  pread: bind("int64_t pread64(int fd, void *buffer, size_t size, int64_t offset)"),
  pwrite: bind("int64_t pwrite64(int fd, const void *buffer, size_t size, int64_t offset)"),
  preadv: bind("int64_t preadv64(int fd, const void *segments, int count, int64_t offset)"),
  pwritev: bind("int64_t pwritev64(int fd, const void *segments, int count, int64_t offset)"),

  mmap: bind("int64_t mmap64(uintptr_t address, size_t size, int protection, int flags, int fd, int64_t offset)"),
  munmap: bind("int munmap(uintptr_t address, size_t size)"),
  madvise: bind("int madvise(uintptr_t address, size_t size, int advice)"),
  memfdCreate: bind("int memfd_create(const char *name, unsigned int flags)"),
  memcpy: bind("int64_t memcpy(uintptr_t target, uintptr_t source, size_t size)"),

  processVmReadv: bind(
    "int64_t process_vm_readv(int pid, const void *local, unsigned long localCount, const void *remote, unsigned " +
      "long remoteCount, unsigned long flags)",
  ),
  processVmWritev: bind(
    "int64_t process_vm_writev(int pid, const void *local, unsigned long localCount, const void *remote, unsigned " +
      "long remoteCount, unsigned long flags)",
  ),

  eventfd: bind("int eventfd(unsigned int initial, int flags)"),
  epollCreate: bind("int epoll_create1(int flags)"),
  epollControl: bind("int epoll_ctl(int epoll, int operation, int fd, void *event)"),
  epollWait: bind("int epoll_wait(int epoll, void *events, int maximum, int timeout)"),
  // The C library has no functions for these four.
  ioSetup: (() => {
    const call = bind<(number: number, requests: number, context: Uint8Array) => number>(
      "long syscall(long number, unsigned long requests, void *context)",
    );
    return (requests, context) => call(SYS_IO_SETUP, requests, context);
  })(),
  ioDestroy: (() => {
    const call = bind<(number: number, context: number) => number>("long syscall(long number, unsigned long context)");
    return (context) => call(SYS_IO_DESTROY, context);
  })(),
  ioSubmit: (() => {
    const call = bind<(number: number, context: number, count: number, requests: Uint8Array) => number>(
      "long syscall(long number, unsigned long context, long count, void *requests)",
    );
    return (context, count, requests) => call(SYS_IO_SUBMIT, context, count, requests);
  })(),
  ioGetEvents: (() => {
    const call = bind<
      (
        number: number,
        context: number,
        minimum: number,
        maximum: number,
        events: Uint8Array,
        timeout: Uint8Array,
      ) => number
    >("long syscall(long number, unsigned long context, long minimum, long maximum, void *events, void *timeout)");
    return (context, minimum, maximum, events, timeout) =>
      call(SYS_IO_GETEVENTS, context, minimum, maximum, events, timeout);
  })(),
  poll: bind("int poll(void *descriptors, unsigned long count, int timeout)"),

  exitNow: bind("void _exit(int status)"),
  getpid: bind("int getpid()"),
  schedYield: bind("int sched_yield()"),
  gettid: (() => {
    const call = bind<(number: number) => number>("long syscall(long number)");
    return () => call(SYS_GETTID);
  })(),
  tgkill: (() => {
    const call = bind<(number: number, pid: number, tid: number, signal: number) => number>(
      "long syscall(long number, long pid, long tid, long signal)",
    );
    return (pid, tid, signal) => call(SYS_TGKILL, pid, tid, signal);
  })(),
  pthreadSigmask: bind("int pthread_sigmask(int how, const void *set, void *previous)"),
  sigtimedwait: (() => {
    const call = bind<(set: Uint8Array, information: null, timeout: Uint8Array) => number>(
      "int sigtimedwait(const void *set, void *information, const void *timeout)",
    );
    return (set, timeout) => call(set, null, timeout);
  })(),
  prctl: bind("int prctl(int option, unsigned long argument)"),
  getrlimit: bind("int getrlimit64(int resource, void *limit)"),
  setrlimit: bind("int setrlimit64(int resource, const void *limit)"),

  isatty: bind("int isatty(int fd)"),
  tcgetattr: bind("int tcgetattr(int fd, void *state)"),
  tcsetattr: bind("int tcsetattr(int fd, int actions, const void *state)"),

  socket: bind("int socket(int domain, int type, int protocol)"),
  bind: bind("int bind(int fd, const void *address, unsigned int size)"),
  listen: bind("int listen(int fd, int backlog)"),
  accept4: (() => {
    const call = bind<(fd: number, address: null, size: null, flags: number) => number>(
      "int accept4(int fd, void *address, void *size, int flags)",
    );
    return (fd, flags) => call(fd, null, null, flags);
  })(),
  connect: bind("int connect(int fd, const void *address, unsigned int size)"),
  sendmsg: bind("int64_t sendmsg(int fd, const void *message, int flags)"),
  recvmsg: bind("int64_t recvmsg(int fd, void *message, int flags)"),

  view(address, sizeBytes) {
    if (sizeBytes > MAX_VIEW_SIZE) throw new RangeError(`Cannot view ${sizeBytes} bytes: a view holds 4 GiB at most`);
    return koffi.view(BigInt(address), sizeBytes);
  },
  addressOf: (buffer) => Number(koffi.address(buffer)),
};

/** A function of koffi that can also run on a thread of its own. */
interface Backgroundable {
  async(
    descriptors: Uint8Array,
    count: number,
    timeoutMs: number,
    done: (error: unknown, result: number) => void,
  ): void;
}

/**
 * poll(2) on a background thread, for programs that live on Node's event loop: the loop turns meanwhile, and is kept
 * alive.
 *
 * @param descriptors An array of struct pollfd; it must not change until the call is over.
 * @returns What poll returned: how many are ready, 0 at the timeout, -1 for an error (errno is lost).
 */
export function pollInBackground(descriptors: Uint8Array, count: number, timeoutMs: number): Promise<number> {
  // Cast: koffi gives each bound function an `async` twin, which the C prototype's type does not tell.
  const poll = libc.poll as unknown as Backgroundable;
  return new Promise((resolve) => {
    poll.async(descriptors, count, timeoutMs, (error, result) => resolve(error === null ? result : -1));
  });
}

/** What {@link closeInBackground} needs, looked up at its first call. */
interface ThreadCalls {
  readonly create: (thread: BigUint64Array, attributes: null, start: bigint, argument: number) => number;
  readonly detach: (thread: bigint) => number;
  /** The address of close(2). A thread's function takes a pointer, of which close looks at the low 32 bits. */
  readonly close: bigint;
}

let threadCalls: ThreadCalls | undefined;

/** @throws Error where the C library has its threads elsewhere, as glibc had before 2.34. */
function findThreadCalls(): ThreadCalls {
  return {
    create: bind("int pthread_create(void *thread, const void *attributes, void *start, uintptr_t argument)"),
    detach: bind("int pthread_detach(uint64_t thread)"),
    close: library.symbol("close") as bigint, // cast: koffi answers `any`, and for a function its address
  };
}

/**
 * close(2) on a thread that does nothing else and ends with it, for descriptors whose close may wait for somebody.
 * Costs 40 µs.
 *
 * @returns False when there is no such thread; nothing was closed then.
 */
export function closeInBackground(file: number): boolean {
  try {
    threadCalls ??= findThreadCalls();
  } catch {
    return false;
  }
  const thread = new BigUint64Array(1);
  if (threadCalls.create(thread, null, threadCalls.close, file) !== 0) return false;
  threadCalls.detach(thread[0] ?? 0n);
  return true;
}
