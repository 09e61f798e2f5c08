import t from "tap";
import * as constants from "../../src/host/constants.ts";
import { ERRNO } from "../../src/host/errors.ts";
import { KICK_SIGNAL } from "../../src/host/thread.ts";
import { evaluateC, missingCompiler } from "../support/c-headers.ts";

const skip = missingCompiler();

const HEADERS = [
  "fcntl.h",
  "errno.h",
  "poll.h",
  "signal.h",
  "termios.h",
  "time.h",
  "sys/epoll.h",
  "sys/eventfd.h",
  "sys/ioctl.h",
  "sys/mman.h",
  "sys/prctl.h",
  "sys/resource.h",
  "sys/socket.h",
  "sys/uio.h",
  "sys/un.h",
  "linux/aio_abi.h",
  "linux/capability.h",
  "linux/falloc.h",
  "linux/fs.h",
  "linux/memfd.h",
  // Newer than some C libraries; the kernel's value.
  "#ifndef MADV_POPULATE_WRITE",
  "#define MADV_POPULATE_WRITE 23",
  "#endif",
];

const CONSTANT_TABLES = [
  constants.FCNTL,
  constants.FALLOC,
  constants.MMAN,
  constants.EVENTFD,
  constants.AIO,
  constants.EPOLL,
  constants.POLL,
  constants.SIGNAL,
  constants.PRCTL,
  constants.RESOURCE,
  constants.TERMIOS,
  constants.SOCKET,
  constants.BLOCK,
  ERRNO,
];

const STRUCTS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  "struct iovec": constants.IOVEC,
  "struct epoll_event": constants.EPOLL_EVENT,
  "struct iocb": constants.IOCB,
  "struct io_event": constants.IO_EVENT,
  "struct pollfd": constants.POLLFD,
  "struct timespec": constants.TIMESPEC,
  "struct termios": constants.TERMIOS_STATE,
  "struct rlimit": constants.RLIMIT,
  "struct flock": constants.FLOCK,
  "struct sockaddr_un": constants.SOCKADDR_UN,
  "struct msghdr": constants.MSGHDR,
  "struct cmsghdr": constants.CMSGHDR,
};

t.test("host/constants.ts has the C library's values", { skip }, async (t) => {
  const expected = Object.assign({}, ...CONSTANT_TABLES) as Record<string, number>; // all of them are tables of numbers
  const values = evaluateC(HEADERS, Object.keys(expected));
  t.same(Object.fromEntries(values), expected);
});

t.test("host/constants.ts has the C structs' sizes and offsets", { skip }, async (t) => {
  const expected: Record<string, number> = {};
  for (const [struct, table] of Object.entries(STRUCTS)) {
    for (const [field, offset] of Object.entries(table)) {
      expected[field === "size" ? `sizeof(${struct})` : `offsetof(${struct}, ${field})`] = offset;
    }
  }
  expected["sizeof(sigset_t)"] = constants.SIGSET_SIZE;
  t.same(Object.fromEntries(evaluateC(HEADERS, Object.keys(expected))), expected);
});

t.test("every table of host/constants.ts is compared", async (t) => {
  const compared = new Set<unknown>([...CONSTANT_TABLES, ...Object.values(STRUCTS)]);
  const forgotten = Object.entries(constants).filter(([, table]) => typeof table === "object" && !compared.has(table));
  t.same(
    forgotten.map(([name]) => name),
    [],
  );
});

t.test("KICK_SIGNAL is a real-time signal that the C library leaves to programs", { skip }, async (t) => {
  const values = evaluateC(HEADERS, ["SIGRTMIN", "SIGRTMAX"]);
  t.ok(KICK_SIGNAL >= (values.get("SIGRTMIN") ?? Number.POSITIVE_INFINITY));
  t.ok(KICK_SIGNAL <= (values.get("SIGRTMAX") ?? 0));
});
