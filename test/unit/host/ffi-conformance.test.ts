import { closeSync, openSync } from "node:fs";
import { createRequire } from "node:module";
import t from "tap";
import { ERRNO } from "../../../src/host/errors.ts";
import { type Libc, libc } from "../../../src/host/libc.ts";
import { libcFfiRs } from "../../../tools/libc-ffi-rs.ts";
import { bytes, HostBench, text } from "../../support/host-bench.ts";

/** An answer, and errno where it says failure. */
const told = (library: Libc, answer: number): string => (answer === -1 ? `-1 errno ${library.errno()}` : `${answer}`);

/**
 * Calls with answers that do not depend on who asks. Each is made by both libraries and must answer the same text.
 * Descriptors and addresses differ, so the text has only their properties.
 */
const CALLS: Readonly<Record<string, (library: Libc, bench: HostBench) => string>> = {
  getpid: (library) => `${library.getpid()}`,
  gettid: (library) => `${library.gettid()}`,
  sched_yield: (library) => told(library, library.schedYield()),
  "close of a bad descriptor": (library) => told(library, library.close(-1)),
  "close of a large one": (library) => told(library, library.close(0x7fff_ffff)),
  "open of a missing file": (library, bench) => told(library, library.open(bench.path("missing"), 0, 0)),
  "open of a directory for writing": (library, bench) => told(library, library.open(bench.directory, 1, 0)),
  "openat below a file": (library, bench) => {
    const file = openSync(bench.path("file"), "w");
    const answer = told(library, library.openat(file, "x", 0, 0));
    closeSync(file);
    return answer;
  },
  "ioctl of a bad descriptor": (library) => told(library, library.ioctl(-1, 0xae00, 0)),
  "ioctl that a file has not, with bit 31 set": (library, bench) => {
    const file = library.open(bench.path("file"), 0o102, 0o600);
    const answer = told(library, library.ioctl(file, 0x8090_ae81, 0));
    library.close(file);
    return answer;
  },
  "ioctl that fills a struct (FIONREAD)": (library) => {
    const event = library.open("/proc/self/stat", 0, 0);
    const word = new Uint8Array(4);
    const answer = `${told(library, library.ioctlStruct(event, 0x541b, word))} ${word}`;
    library.close(event);
    return answer;
  },
  "fcntl F_GETFL": (library) => {
    const file = library.open("/dev/null", 0o4001, 0);
    const answer = told(library, library.fcntl(file, 3, 0));
    library.close(file);
    return answer;
  },
  "pwrite, pread, ftruncate, fallocate, fdatasync": (library, bench) => {
    const file = library.open(bench.path("data"), 0o1102, 0o600);
    const target = new Uint8Array(16);
    const answers = [
      library.pwrite(file, bytes("hello"), 5, 2 ** 32 + 7), // above 4 GiB: a 64-bit offset
      library.pread(file, target, 16, 2 ** 32 + 5),
      library.ftruncate(file, 2 ** 32 + 9),
      library.pread(file, target, 16, 2 ** 32 + 7),
      library.fallocate(file, 0x03, 0, 4096),
      library.fdatasync(file),
      library.pread(file, target, 1, 2 ** 40),
    ];
    const failed = told(library, library.pread(file, target, 1, -1));
    library.close(file);
    return `${answers} ${failed} ${text(target)}`;
  },
  "preadv and pwritev at addresses": (library) => {
    const file = library.memfdCreate("conformance", 1);
    const source = bytes("scattered!");
    const target = new Uint8Array(10);
    const at = library.addressOf(source);
    const to = library.addressOf(target);
    const wrote = library.pwritev(
      file,
      new Uint8Array(BigUint64Array.of(BigInt(at + 4), 6n, BigInt(at), 4n).buffer),
      2,
      0,
    );
    const read = library.preadv(file, new Uint8Array(BigUint64Array.of(BigInt(to), 10n).buffer), 1, 0);
    const failed = told(library, library.preadv(file, new Uint8Array(16), -1, 0));
    library.close(file);
    return `${wrote} ${read} ${failed} ${text(target)}`;
  },
  "mmap, view, memcpy, madvise, munmap": (library) => {
    const file = library.memfdCreate("conformance", 1);
    library.ftruncate(file, 8192);
    const address = library.mmap(0, 8192, 3, 1, file, 0);
    const view = new Uint8Array(library.view(address, 8192));
    view.set(bytes("mapped"), 100);
    library.memcpy(address + 4096, address + 100, 6);
    const target = new Uint8Array(6);
    library.pread(file, target, 6, 4096);
    const answers = [address % 4096, view.length, library.addressOf(view.subarray(5)) - address];
    answers.push(library.madvise(address, 8192, 4), library.munmap(address, 8192));
    const failures = [
      told(library, library.mmap(0, 0, 3, 1, file, 0)),
      told(library, library.mmap(0, 4096, 3, 1, -1, 0)),
      told(library, library.munmap(1, 4096)),
      told(library, library.madvise(0, 4096, 9999)),
    ];
    library.close(file);
    return `${answers} ${failures} ${text(target)}`;
  },
  "process_vm_readv and process_vm_writev of this process": (library) => {
    const [pid, source, target] = [library.getpid(), bytes("from here"), new Uint8Array(9)];
    const part = (address: number, sizeBytes: number): Uint8Array =>
      new Uint8Array(BigUint64Array.of(BigInt(address), BigInt(sizeBytes)).buffer);
    const [from, to] = [part(library.addressOf(source), 9), part(library.addressOf(target), 9)];
    const answers = [library.processVmReadv(pid, to, 1, from, 1, 0), text(target)];
    source.set(bytes("and there"));
    answers.push(library.processVmWritev(pid, from, 1, to, 1, 0), text(target));
    const failures = [
      told(library, library.processVmReadv(pid, to, 1, part(4096, 9), 1, 0)),
      told(library, library.processVmWritev(pid, from, 1, part(4096, 9), 1, 0)),
    ];
    return `${answers} ${failures}`;
  },
  "io_setup, io_submit, io_getevents and io_destroy": (library) => {
    const file = library.memfdCreate("conformance", 1);
    const event = library.eventfd(0, 0o2004000);
    const [context, request] = [new Uint8Array(8), new DataView(new ArrayBuffer(64))];
    const answers = [library.ioSetup(4, context)];
    const at = Number(new DataView(context.buffer).getBigUint64(0, true));
    request.setUint32(20, file, true);
    request.setUint32(56, 1, true);
    request.setUint32(60, event, true);
    const pointer = new Uint8Array(BigUint64Array.of(BigInt(library.addressOf(request))).buffer);
    answers.push(library.ioSubmit(at, 1, pointer));
    answers.push(library.ioGetEvents(at, 0, 4, new Uint8Array(128), new Uint8Array(16)));
    const count = new Uint8Array(8);
    answers.push(library.read(event, count, 8), count[0] ?? -1);
    request.setUint32(60, file, true);
    const failed = told(library, library.ioSubmit(at, 1, pointer));
    answers.push(library.ioDestroy(at));
    library.close(event);
    library.close(file);
    return `${answers} ${failed} ${told(library, library.ioDestroy(1))}`;
  },
  "memfd_create with flags that are not": (library) => told(library, library.memfdCreate("x", 0x7fff_0000)),
  "eventfd, read and write": (library) => {
    const event = library.eventfd(5, 0o2004000);
    const count = new Uint8Array(8);
    const answers = [library.write(event, Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0), 8), library.read(event, count, 8)];
    const failed = told(library, library.read(event, count, 8));
    library.close(event);
    return `${answers} ${failed} ${count} ${told(library, library.eventfd(0, 12345))}`;
  },
  "epoll and poll": (library) => {
    const event = library.eventfd(1, 0o2004000);
    const epoll = library.epollCreate(0o2000000);
    const request = Uint8Array.of(1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8);
    const found = new Uint8Array(24);
    const answers = [library.epollControl(epoll, 1, event, request), library.epollWait(epoll, found, 2, 0)];
    const failed = told(library, library.epollControl(epoll, 1, event, request));
    const poll = new Uint8Array(8);
    new DataView(poll.buffer).setInt32(0, event, true);
    poll[4] = 5;
    answers.push(library.poll(poll, 1, 0), poll[6] ?? -1);
    library.close(epoll);
    library.close(event);
    return `${answers} ${failed} ${found}`;
  },
  "getrlimit and prctl": (library) => {
    const limit = new Uint8Array(16);
    const name = new Uint8Array(16);
    const answers = [library.getrlimit(8, limit), library.prctl(16, library.addressOf(name))];
    return `${answers} ${limit} ${text(name)} ${told(library, library.getrlimit(99, limit))}`;
  },
  "fcntl with a struct: an OFD lock that conflicts": (library, bench) => {
    const lock = new Uint8Array(32);
    lock[0] = 1; // F_WRLCK
    const files = [0, 1].map(() => library.open(bench.path("lock"), 0o102, 0o600));
    const answers = files.map((file) => told(library, library.fcntlStruct(file, 37, lock)));
    for (const file of files) library.close(file);
    return `${answers}`;
  },
  "signals of this thread": (library) => {
    const set = new Uint8Array(128);
    set[4] = 0x80; // signal 40
    const before = new Uint8Array(128);
    const answers = [library.pthreadSigmask(0, set, before), library.tgkill(library.getpid(), library.gettid(), 40)];
    answers.push(library.sigtimedwait(set, new Uint8Array(16)));
    const none = told(library, library.sigtimedwait(set, new Uint8Array(16)));
    answers.push(library.pthreadSigmask(2, before, set), library.pthreadSigmask(99, set, before));
    return `${answers} ${none} ${told(library, library.tgkill(library.getpid(), 0x3fff_ffff, 0))}`;
  },
  "terminal calls on something else": (library) => {
    const file = library.open("/dev/null", 0, 0);
    const state = new Uint8Array(60);
    const answers = [`${library.isatty(file)}`, told(library, library.tcgetattr(file, state))];
    answers.push(told(library, library.tcsetattr(file, 0, state)));
    library.close(file);
    return `${answers}`;
  },
  "sockets: bind, listen, connect, accept4, sendmsg, recvmsg": (library, bench) => {
    const address = new Uint8Array(110);
    address[0] = 1;
    address.set(bytes(bench.path(`socket-${library === libc}`)), 2);
    const listener = library.socket(1, 0o2004001, 0);
    const client = library.socket(1, 0o2004001, 0);
    const answers = [told(library, library.connect(client, address, 110))];
    answers.push(`${library.bind(listener, address, 110)}`, told(library, library.bind(listener, address, 110)));
    answers.push(`${library.listen(listener, 1)}`, told(library, library.accept4(listener, 0o2004000)));
    answers.push(`${library.connect(client, address, 110)}`);
    const server = library.accept4(listener, 0o2004000);
    const payload = bytes("message");
    const iovec = BigUint64Array.of(BigInt(library.addressOf(payload)), BigInt(payload.length));
    const message = new BigUint64Array(7);
    message[2] = BigInt(library.addressOf(iovec));
    message[3] = 1n;
    answers.push(`${library.sendmsg(client, new Uint8Array(message.buffer), 0x4000)}`);
    payload.fill(0);
    answers.push(`${library.recvmsg(server, new Uint8Array(message.buffer), 0)}`, text(payload));
    answers.push(told(library, library.recvmsg(server, new Uint8Array(message.buffer), 0)));
    for (const socket of [server, client, listener]) library.close(socket);
    return `${answers}`;
  },
};

for (const [name, call] of Object.entries(CALLS)) {
  t.test(`libc answers as ffi-rs does: ${name}`, async (t) => {
    const ours = call(libc, new HostBench(t));
    const theirs = call(libcFfiRs, new HostBench(t));
    t.equal(ours, theirs);
  });
}

t.test("libc answers what these calls are known to answer", async (t) => {
  const known = (name: string): string | undefined => CALLS[name]?.(libc, new HostBench(t));
  t.equal(known("close of a bad descriptor"), "-1 errno 9");
  t.equal(known("ioctl that a file has not, with bit 31 set"), "-1 errno 25");
  const afterReads = `hehello${"\0".repeat(9)}`;
  t.equal(known("pwrite, pread, ftruncate, fallocate, fdatasync"), `5,7,0,2,0,0,0 -1 errno 22 ${afterReads}`);
  t.equal(known("preadv and pwritev at addresses"), "10 10 -1 errno 22 tered!scat");
  t.equal(
    known("mmap, view, memcpy, madvise, munmap"),
    "0,8192,5,0,0 -1 errno 22,-1 errno 9,-1 errno 22,-1 errno 22 mapped",
  );
  t.equal(
    known("process_vm_readv and process_vm_writev of this process"),
    "9,from here,9,and there -1 errno 14,-1 errno 14",
  );
  t.equal(known("io_setup, io_submit, io_getevents and io_destroy"), "0,1,1,8,1,0 -1 errno 22 -1 errno 22");
  t.equal(known("eventfd, read and write"), "8,8 -1 errno 11 7,0,0,0,0,0,0,0 -1 errno 22");
  t.equal(known("signals of this thread"), "0,0,40,0,22 -1 errno 11 -1 errno 3");
});

const probe = libc.open("/dev/kvm", 0o2000002, 0);
const isKvmOpen = probe >= 0;
if (isKvmOpen) libc.close(probe);

t.test(
  "libc.ioctl() answers as ffi-rs does on /dev/kvm",
  { skip: isKvmOpen ? false : "this user cannot open /dev/kvm: add the user to group kvm" },
  async (t) => {
    const system = libc.open("/dev/kvm", 0o2000002, 0);
    for (const request of [0xae00, 0xae03, 0xae04]) {
      t.equal(libc.ioctl(system, request, 3), libcFfiRs.ioctl(system, request, 3), request.toString(16));
    }
    const lists = [libc, libcFfiRs].map((library) => {
      const list = new Uint8Array(4);
      return `${told(library, library.ioctlStruct(system, 0xc004_ae02, list))} ${list}`;
    });
    t.match(lists[0], `-1 errno ${ERRNO.E2BIG}`);
    t.equal(lists[0], lists[1]);
    libc.close(system);
  },
);

t.test("libc.view() refuses more than 4 GiB instead of ending the process", async (t) => {
  for (const library of [libc, libcFfiRs]) t.throws(() => library.view(4096, 2 ** 32 + 1), RangeError);
});

t.test("libc.view() shows the memory that ref-napi reads through a pointer", async (t) => {
  // ref-napi has no types of its own; these two functions are all that is used of it.
  const ref = createRequire(import.meta.url)("ref-napi") as {
    address(buffer: Buffer): number;
    readPointer(buffer: Buffer, offset: number, length: number): Buffer;
  };
  const address = libc.mmap(0, 8192, 3, 0x22, -1, 0);
  const view = new Uint8Array(libc.view(address, 8192));
  view.set(bytes("seen by both"), 4096);
  const pointer = Buffer.alloc(8);
  pointer.writeBigUInt64LE(BigInt(address));
  // the whole mapping at once: a second length for one address is refused
  const other = ref.readPointer(pointer, 0, 8192);
  t.equal(other.length, 8192);
  t.equal(ref.address(other), address);
  t.equal(other.toString("latin1", 4096, 4108), "seen by both");
  other.write("written", 0, "latin1");
  t.equal(text(view.subarray(0, 7)), "written");
  t.equal(ref.address(Buffer.from(view.buffer, 16)), libc.addressOf(view) + 16);
  // Not unmapped: ref-napi's buffer reaches past the mapping and lives until it is collected.
});
