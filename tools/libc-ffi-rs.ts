import { createExternalBuffer, DataType, type JsExternal, load, open } from "ffi-rs";
import { type Libc, MAX_VIEW_SIZE } from "../src/host/libc.ts";

const LIBRARY = "libc";
open({ library: LIBRARY, path: "libc.so.6" });

const INT = DataType.I32;
const LONG = DataType.I64;
const BYTES = DataType.U8Array;
const TEXT = DataType.String;
type Kind = typeof INT | typeof LONG | typeof BYTES | typeof TEXT;

const SYS_GETTID = 186;
const SYS_IO_SETUP = 206;
const SYS_IO_DESTROY = 207;
const SYS_IO_GETEVENTS = 208;
const SYS_IO_SUBMIT = 209;
const SYS_TGKILL = 234;

let lastErrno = 0;

/**
 * Makes a typed call of a C function; remembers errno when it answers -1. Cast: ffi-rs types each call by its own enum
 * values.
 */
function bind<Call>(name: string, result: typeof INT | typeof LONG, parameters: readonly Kind[]): Call {
  const call = (...values: readonly (number | string | Uint8Array)[]): number => {
    const answer = load({
      library: LIBRARY,
      funcName: name,
      retType: result,
      paramsType: [...parameters],
      paramsValue: [...values],
      errno: true,
    }) as { readonly value: number; readonly errnoCode: number };
    if (answer.value === -1) lastErrno = answer.errnoCode;
    return answer.value;
  };
  return call as Call;
}

const address = bind<(same: Uint8Array, again: Uint8Array, sizeBytes: number) => number>("memcpy", LONG, [
  BYTES,
  BYTES,
  LONG,
]);
const gettid = bind<(number: number) => number>("syscall", LONG, [LONG]);
const tgkill = bind<(number: number, pid: number, tid: number, signal: number) => number>("syscall", LONG, [
  LONG,
  LONG,
  LONG,
  LONG,
]);
const ioSetup = bind<(number: number, requests: number, context: Uint8Array) => number>("syscall", LONG, [
  LONG,
  LONG,
  BYTES,
]);
const ioDestroy = bind<(number: number, context: number) => number>("syscall", LONG, [LONG, LONG]);
const ioSubmit = bind<(number: number, context: number, count: number, requests: Uint8Array) => number>(
  "syscall",
  LONG,
  [LONG, LONG, LONG, BYTES],
);
const ioGetEvents = bind<
  (number: number, context: number, minimum: number, maximum: number, events: Uint8Array, timeout: Uint8Array) => number
>("syscall", LONG, [LONG, LONG, LONG, LONG, BYTES, BYTES]);
const sigtimedwait = bind<(set: Uint8Array, information: number, timeout: Uint8Array) => number>("sigtimedwait", INT, [
  BYTES,
  LONG,
  BYTES,
]);
const accept4 = bind<(fd: number, address: number, size: number, flags: number) => number>("accept4", INT, [
  INT,
  LONG,
  LONG,
  INT,
]);

/**
 * The C library through ffi-rs: a second, independent implementation of the interface, to compare answers with. It is
 * two hundred times slower. It hands buffers over in place and i64 as numbers, so user addresses fit.
 */
export const libcFfiRs: Libc = {
  errno: () => lastErrno,

  ioctl: bind("ioctl", INT, [INT, LONG, LONG]),
  ioctlStruct: bind("ioctl", INT, [INT, LONG, BYTES]),

  open: bind("open", INT, [TEXT, INT, INT]),
  openat: bind("openat", INT, [INT, TEXT, INT, INT]),
  close: bind("close", INT, [INT]),
  fcntl: bind("fcntl", INT, [INT, INT, LONG]),
  fcntlStruct: bind("fcntl", INT, [INT, INT, BYTES]),
  ftruncate: bind("ftruncate64", INT, [INT, LONG]),
  fallocate: bind("fallocate64", INT, [INT, INT, LONG, LONG]),
  schedSetaffinity: bind("sched_setaffinity", INT, [INT, LONG, BYTES]),
  schedGetaffinity: bind("sched_getaffinity", INT, [INT, LONG, BYTES]),
  fdatasync: bind("fdatasync", INT, [INT]),

  read: bind("read", LONG, [INT, BYTES, LONG]),
  write: bind("write", LONG, [INT, BYTES, LONG]),
  pread: bind("pread64", LONG, [INT, BYTES, LONG, LONG]),
  pwrite: bind("pwrite64", LONG, [INT, BYTES, LONG, LONG]),
  preadv: bind("preadv64", LONG, [INT, BYTES, INT, LONG]),
  pwritev: bind("pwritev64", LONG, [INT, BYTES, INT, LONG]),

  mmap: bind("mmap64", LONG, [LONG, LONG, INT, INT, INT, LONG]),
  munmap: bind("munmap", INT, [LONG, LONG]),
  madvise: bind("madvise", INT, [LONG, LONG, INT]),
  memfdCreate: bind("memfd_create", INT, [TEXT, INT]),
  memcpy: bind("memcpy", LONG, [LONG, LONG, LONG]),

  processVmReadv: bind("process_vm_readv", LONG, [INT, BYTES, LONG, BYTES, LONG, LONG]),
  processVmWritev: bind("process_vm_writev", LONG, [INT, BYTES, LONG, BYTES, LONG, LONG]),

  eventfd: bind("eventfd", INT, [INT, INT]),
  epollCreate: bind("epoll_create1", INT, [INT]),
  epollControl: bind("epoll_ctl", INT, [INT, INT, INT, BYTES]),
  epollWait: bind("epoll_wait", INT, [INT, BYTES, INT, INT]),
  ioSetup: (requests, context) => ioSetup(SYS_IO_SETUP, requests, context),
  ioDestroy: (context) => ioDestroy(SYS_IO_DESTROY, context),
  ioSubmit: (context, count, requests) => ioSubmit(SYS_IO_SUBMIT, context, count, requests),
  ioGetEvents: (context, minimum, maximum, events, timeout) =>
    ioGetEvents(SYS_IO_GETEVENTS, context, minimum, maximum, events, timeout),
  poll: bind("poll", INT, [BYTES, LONG, INT]),

  exitNow: bind("_exit", INT, [INT]),
  getpid: bind("getpid", INT, []),
  schedYield: bind("sched_yield", INT, []),
  gettid: () => gettid(SYS_GETTID),
  tgkill: (pid, tid, signal) => tgkill(SYS_TGKILL, pid, tid, signal),
  pthreadSigmask: bind("pthread_sigmask", INT, [INT, BYTES, BYTES]),
  sigtimedwait: (set, timeout) => sigtimedwait(set, 0, timeout),
  prctl: bind("prctl", INT, [INT, LONG]),
  getrlimit: bind("getrlimit64", INT, [INT, BYTES]),
  setrlimit: bind("setrlimit64", INT, [INT, BYTES]),

  isatty: bind("isatty", INT, [INT]),
  tcgetattr: bind("tcgetattr", INT, [INT, BYTES]),
  tcsetattr: bind("tcsetattr", INT, [INT, INT, BYTES]),

  socket: bind("socket", INT, [INT, INT, INT]),
  bind: bind("bind", INT, [INT, BYTES, INT]),
  listen: bind("listen", INT, [INT, INT]),
  accept4: (fd, flags) => accept4(fd, 0, 0, flags),
  connect: bind("connect", INT, [INT, BYTES, INT]),
  sendmsg: bind("sendmsg", LONG, [INT, BYTES, INT]),
  recvmsg: bind("recvmsg", LONG, [INT, BYTES, INT]),

  view(start, sizeBytes) {
    if (sizeBytes > MAX_VIEW_SIZE) throw new RangeError(`Cannot view ${sizeBytes} bytes: a view holds 4 GiB at most`);
    // ffi-rs makes its pointer objects only of results: a copy of nothing answers the address it was given.
    const pointer: JsExternal = load({
      library: LIBRARY,
      funcName: "memcpy",
      retType: DataType.External,
      paramsType: [LONG, LONG, LONG],
      paramsValue: [start, start, 0],
    });
    // Cast: Buffer.buffer is typed with SharedArrayBuffer too; this one was made of a pointer.
    return createExternalBuffer(pointer, sizeBytes).buffer as ArrayBuffer;
  },
  addressOf: (buffer) => {
    const bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    return address(bytes, bytes, 0);
  },
};
