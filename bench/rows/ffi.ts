import { closeSync, openSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { EPOLL_EVENT } from "../../src/host/constants.ts";
import { type Libc, libc } from "../../src/host/libc.ts";
import { compare, interleave, type Measure } from "../measure/interleave.ts";
import type { Context, Row } from "../measure/row.ts";

const require = createRequire(import.meta.url);

/** Calls this VMM makes, as one of the libraries does them. Each answers how long one takes, in nanoseconds. */
type Call = (library: Libc, things: Things) => () => unknown;

interface Things {
  readonly file: number;
  readonly event: number;
  readonly epoll: number;
  /** Of 4 KiB. */
  readonly buffer: Uint8Array;
}

const EFD_NONBLOCK = 0o4000;
/** FIONREAD: an ioctl that every file has. */
const FIONREAD = 0x541b;
/** _IO(KVMIO, 0x03) on a bad descriptor: the cost of the way, without the work. */
const KVM_CHECK_EXTENSION = 0xae03;

const CALLS: Readonly<Record<string, Call>> = {
  "ioctl with a number (as KVM_RUN)": (library) => () => library.ioctl(-1, KVM_CHECK_EXTENSION, 3),
  "ioctl with a struct":
    (library, { file, buffer }) =>
    () =>
      library.ioctlStruct(file, FIONREAD, buffer),
  "eventfd: ring and drain": (library, { event, buffer }) => {
    const one = new Uint8Array(BigUint64Array.of(1n).buffer);
    return () => {
      library.write(event, one, 8);
      library.read(event, buffer, 8);
    };
  },
  "epoll_wait, nothing ready": (library, { epoll }) => {
    const events = new Uint8Array(64 * EPOLL_EVENT.size);
    return () => library.epollWait(epoll, events, 64, 0);
  },
  "preadv of 4 KiB": (library, { file, buffer }) => {
    const address = libc.addressOf(buffer);
    const segments = new Uint8Array(BigUint64Array.of(BigInt(address), 4096n).buffer);
    return () => library.preadv(file, segments, 1, 0);
  },
};
const VIEW = "view of memory, 64 bytes";
const VIEW_READ = "u32 in such a view";

/** Nanoseconds a call takes: as many as fit in some milliseconds. */
function time(call: () => unknown): number {
  let count = 16;
  for (;;) {
    const started = performance.now();
    for (let i = 0; i < count; i++) call();
    const took = performance.now() - started;
    if (took > 20) return (took * 1e6) / count;
    count *= 2;
  }
}

function callsOf(library: Libc, things: Things): Measure<string> {
  const prepared = Object.entries(CALLS).map(([name, make]) => [name, make(library, things)] as const);
  const address = libc.addressOf(things.buffer);
  return async () => {
    const view = new Uint32Array(library.view(address, 64));
    const mask = { value: 0 };
    return Object.fromEntries([
      ...prepared.map(([name, call]) => [name, time(call)] as const),
      [VIEW, time(() => library.view(address, 64))],
      [
        VIEW_READ,
        time(() => {
          for (let i = 0; i < 100; i++) mask.value ^= view[i & 15] ?? 0;
        }) / 100,
      ],
    ]);
  };
}

/** What we use of ref-napi, which has no calls. */
interface Ref {
  alloc(type: string, value: Buffer): Buffer;
  readPointer(buffer: Buffer, offset: number, length: number): Buffer;
  writePointer(buffer: Buffer, offset: number, value: Buffer): void;
}

/** A pointer that was read before: a new one costs milliseconds. */
function refNapi(things: Things): Measure<string> {
  const ref = require("ref-napi") as Ref; // cast: the package has no types
  const pointer = Buffer.alloc(8);
  ref.writePointer(pointer, 0, Buffer.from(things.buffer.buffer, things.buffer.byteOffset, things.buffer.byteLength));
  const view = ref.readPointer(pointer, 0, 64);
  const mask = { value: 0 };
  return async () => ({
    [VIEW]: time(() => ref.readPointer(pointer, 0, 64)),
    [VIEW_READ]:
      time(() => {
        for (let i = 0; i < 100; i++) mask.value ^= view.readUInt32LE(4 * (i & 15));
      }) / 100,
  });
}

/** True where a development dependency is installed. */
function has(name: string): boolean {
  try {
    require.resolve(name);
    return true;
  } catch {
    return false;
  }
}

export const ffi: Row = {
  name: "ffi",
  own: "koffi",
  meaning:
    "The calls this VMM makes, by each FFI package, in nanoseconds, the system call included. Only koffi is " +
    "shipped; ffi-rs is the tests' " +
    "second opinion; ref-napi reads memory but calls nothing, and is timed on a pointer it has seen before.",
  missing: () =>
    has("ffi-rs") ? undefined : "ffi-rs is not installed: npm install, with the development dependencies",
  async run(context: Context) {
    const path = join(context.folder, "ffi.bin");
    writeFileSync(path, Buffer.alloc(8192, 1));
    const { libcFfiRs } = await import("../../tools/libc-ffi-rs.ts");
    const things: Things = {
      file: openSync(path, "r"),
      event: libc.eventfd(0, EFD_NONBLOCK),
      epoll: libc.epollCreate(0),
      buffer: new Uint8Array(4096),
    };
    const samples = await interleave<string>(context, {
      koffi: callsOf(libc, things),
      "ffi-rs": callsOf(libcFfiRs, things),
      ...(has("ref-napi") ? { "ref-napi": refNapi(things) } : {}),
    });
    for (const what of [...Object.keys(CALLS), VIEW, VIEW_READ]) {
      context.add(compare(samples, "koffi", what, { what, unit: "ns" }));
    }
    closeSync(things.file);
    libc.close(things.event);
    libc.close(things.epoll);
  },
};
