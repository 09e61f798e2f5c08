import { closeSync, openSync, writeFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import t, { type Test } from "tap";
import type { RamRegion } from "../../../../src/base/guest-memory.ts";
import { type Fd, fd, gpa } from "../../../../src/base/units.ts";
import { RESOURCE } from "../../../../src/host/constants.ts";
import { libc } from "../../../../src/host/libc.ts";
import { hugePages } from "../../../../src/host/limits.ts";
import { GuestRam } from "../../../../src/host/memory/guest-ram.ts";
import type { GuestRamOptions } from "../../../../src/host/memory/ram-file.ts";
import { HostBench } from "../../../support/host-bench.ts";
import { withLimit } from "../../../support/host-descriptors.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

const region = (address: number, sizeBytes: number, fileOffset: number): RamRegion => ({
  gpa: gpa(address),
  sizeBytes,
  fileOffset,
});

/** 16 GiB as a PC has it: 3 GiB below the hole, the rest from 4 GiB on. Nothing is touched, so it costs nothing. */
const LARGE = [region(0, 3 * GIB, 0), region(4 * GIB, 13 * GIB, 3 * GIB)];

function ram(t: Test, options: GuestRamOptions = { regions: [region(0, MIB, 0)] }): GuestRam {
  const made = GuestRam.create(options);
  t.teardown(() => made.close());
  return made;
}

t.test("GuestRam keeps values of each width, little endian, aligned or not", async (t) => {
  const memory = ram(t);
  for (const address of [0x1000, 0x1001, 0x1002, 0x1003]) {
    t.ok(memory.writeU32(gpa(address), 0x8899_aabb));
    t.equal(memory.readU32(gpa(address)), 0x8899_aabb);
    t.equal(memory.readU16(gpa(address)), 0xaabb);
    t.equal(memory.readU8(gpa(address + 3)), 0x88);
    t.ok(memory.writeU16(gpa(address), 0x1234));
    t.equal(memory.readU32(gpa(address)), 0x8899_1234);
    t.ok(memory.writeU8(gpa(address), 0xff));
    t.equal(memory.readU16(gpa(address)), 0x12ff);
    t.ok(memory.writeU64(gpa(address), 2 ** 52 + 3));
    t.equal(memory.readU64(gpa(address)), 2 ** 52 + 3);
    t.equal(memory.readU32(gpa(address + 4)), 2 ** 20);
  }
});

t.test("GuestRam.readU64() answers undefined for what a number cannot hold", async (t) => {
  const memory = ram(t);
  memory.write(gpa(0), new Uint8Array(8).fill(0xff));
  t.equal(memory.readU64(gpa(0)), undefined);
});

t.test("GuestRam.write() and fill() reach memory without a view, in any length", async (t) => {
  const memory = ram(t);
  const bytes = Uint8Array.from({ length: 200_000 }, (_, index) => (index * 7) & 0xff);
  t.ok(memory.write(gpa(0x1003), bytes));
  t.ok(memory.fill(gpa(0x1003 + 1), 150_000));
  t.ok(memory.write(gpa(0x40), new Uint8Array(0)));
  const read = new Uint8Array(bytes.length);
  memory.read(gpa(0x1003), read);
  t.equal(read[0], bytes[0]);
  t.ok(read.subarray(1, 150_001).every((byte) => byte === 0));
  t.same(read.subarray(150_001), bytes.subarray(150_001));
});

t.test("GuestRam answers undefined and false outside RAM and across region borders", async (t) => {
  const memory = ram(t, { regions: [region(0, MIB, 0), region(2 * MIB, MIB, MIB), region(3 * MIB, MIB, 2 * MIB)] });
  const bytes = new Uint8Array(2);
  for (const address of [MIB - 1, MIB, 2 * MIB - 1, 3 * MIB - 1, 4 * MIB - 1, 2 ** 52]) {
    t.equal(memory.readU16(gpa(address)), undefined, `${address}`);
    t.equal(memory.writeU16(gpa(address), 1), false);
    t.equal(memory.read(gpa(address), bytes), false);
    t.equal(memory.write(gpa(address), bytes), false);
    t.equal(memory.fill(gpa(address), 2), false);
    t.equal(memory.contains(gpa(address), 2), false);
    t.equal(memory.hostAddress(gpa(address), 2), undefined);
  }
  t.equal(memory.readU32(gpa(MIB - 2)), undefined);
  t.equal(memory.writeU64(gpa(MIB - 4), 0), false);
  t.equal(memory.contains(gpa(0), 2 ** 53), false);
  t.equal(memory.readU16(gpa(MIB - 2)), 0);
});

t.test("GuestRam maps regions to the file in the order of their file offsets", async (t) => {
  const memory = ram(t, { regions: [region(0, MIB, 0), region(16 * MIB, MIB, MIB)] });
  t.equal(memory.sizeBytes, 2 * MIB);
  memory.writeU32(gpa(16 * MIB + 8), 0x55aa);
  const bytes = new Uint8Array(4);
  t.equal(libc.pread(memory.fd, bytes, 4, MIB + 8), 4);
  t.same([...bytes], [0xaa, 0x55, 0, 0]);
  t.equal(memory.hostAddress(gpa(16 * MIB + 8), 4), memory.hostBase + MIB + 8);
});

t.test("GuestRam reaches all of 16 GiB, also where accesses cross its 4-GiB views", async (t) => {
  const memory = ram(t, { regions: LARGE });
  const top = 17 * GIB - 8;
  t.ok(memory.writeU64(gpa(top), 0x1_2345_6789));
  t.equal(memory.readU64(gpa(top)), 0x1_2345_6789);
  t.equal(memory.readU32(gpa(17 * GIB - 2)), undefined);
  const border = 5 * GIB; // file offset 4 GiB
  t.ok(memory.write(gpa(border - 3), Uint8Array.of(1, 2, 3, 4, 5, 6)));
  t.equal(memory.readU32(gpa(border - 2)), 0x0504_0302);
  t.ok(memory.writeU32(gpa(border - 1), 0xddcc_bbaa));
  t.ok(memory.writeU16(gpa(border - 1), 0x2211));
  t.equal(memory.readU16(gpa(border - 1)), 0x2211);
  const bytes = new Uint8Array(8);
  t.ok(memory.read(gpa(border - 4), bytes));
  t.same([...bytes], [0, 1, 2, 0x11, 0x22, 0xcc, 0xdd, 0]);
  t.ok(memory.fill(gpa(border - 2), 4));
  t.ok(memory.read(gpa(border - 4), bytes));
  t.same([...bytes], [0, 1, 0, 0, 0, 0, 0xdd, 0]);
});

t.test("GuestRam.readFile() reads a file range straight into RAM", async (t) => {
  const bench = new HostBench(t);
  const memory = ram(t);
  writeFileSync(bench.path("kernel"), Buffer.from("0123456789abcdef"));
  const file = openSync(bench.path("kernel"), "r");
  t.ok(memory.readFile(fd(file), 4, gpa(0x2001), 8));
  const bytes = new Uint8Array(10);
  memory.read(gpa(0x2000), bytes);
  t.equal(Buffer.from(bytes).toString("latin1"), "\u0000456789ab\u0000");
  t.equal(memory.readFile(fd(file), 0, gpa(MIB - 4), 8), false, "not all of it is RAM");
  t.equal(memory.readU32(gpa(MIB - 4)), 0, "and nothing was read");
  t.throws(() => memory.readFile(fd(file), 12, gpa(0), 8), { name: "HostError", message: /ends after 0x4/ });
  t.throws(() => memory.readFile(fd(-1), 0, gpa(0), 8), { name: "SyscallError", errno: "EBADF" });
  closeSync(file);
});

t.test("GuestRam.attach() in another thread sees the same bytes", async (t) => {
  const memory = ram(t);
  memory.writeU32(gpa(0x100), 41);
  const worker = new Worker(
    `const { workerData, parentPort } = require("node:worker_threads");
     import(workerData.module).then(({ GuestRam }) => {
       const ram = GuestRam.attach(workerData.attachment);
       ram.writeU32(0x104, ram.readU32(0x100) + 1);
       ram.close();
       parentPort.postMessage(ram.readU32(0x100) === undefined);
     });`,
    {
      eval: true,
      workerData: {
        module: new URL("../../../../src/host/memory/guest-ram.js", import.meta.url).href,
        attachment: memory.attachment,
      },
    },
  );
  const isForgotten = await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
  await worker.terminate();
  t.equal(isForgotten, true, "after close() it answers nothing");
  t.equal(memory.readU32(gpa(0x104)), 42, "and the owner's mapping is untouched");
});

t.test("GuestRam.close() makes every range no RAM and may be called twice", async (t) => {
  const memory = GuestRam.create({ regions: [region(0, MIB, 0)] });
  memory.writeU8(gpa(0), 1);
  memory.close();
  memory.close();
  t.equal(memory.readU8(gpa(0)), undefined);
  t.equal(memory.hostAddress(gpa(0), 1), undefined);
  t.equal(memory.fd, -1);
});

/** What a process that was handed the file's descriptor may do to its size; the errno, or 0. */
function resize(file: Fd, sizeBytes: number): number {
  return libc.ftruncate(file, sizeBytes) < 0 ? libc.errno() : 0;
}
const EPERM = 1;
const F_ADD_SEALS = 1033;
const F_SEAL_WRITE = 8;

t.test("GuestRam.create() seals the size of its file, and the seals", async (t) => {
  const memory = ram(t);
  t.equal(resize(memory.fd, 0), EPERM);
  t.equal(resize(memory.fd, MIB - 4096), EPERM);
  t.equal(resize(memory.fd, 2 * MIB), EPERM);
  t.equal(libc.fcntl(memory.fd, F_ADD_SEALS, F_SEAL_WRITE), -1, "no other process can make it read-only either");
  t.equal(memory.writeU32(gpa(MIB - 4), 7), true);
});

t.test("GuestRam.create() says what to do about a limit of file sizes", async (t) => {
  withLimit(RESOURCE.RLIMIT_FSIZE, BigInt(MIB - 1), () => {
    t.throws(() => ram(t), { errno: "EFBIG", message: /^Cannot make 1 MiB of guest RAM: .*: ulimit -f unlimited\)$/ });
  });
  ram(t);
});

t.test("GuestRam.create() can touch every page beforehand", async (t) => {
  const memory = ram(t, { regions: [region(0, 4 * MIB, 0)], prefault: true });
  memory.fence();
  t.equal(memory.readU32(gpa(4 * MIB - 4)), 0);
});

t.test("GuestRam.create() refuses regions that cannot be", async (t) => {
  const refused: readonly (readonly RamRegion[])[] = [
    [],
    [region(0, 0, 0)],
    [region(0, 1000, 0)],
    [region(0, MIB, 0), region(4096, MIB, MIB)],
    [region(0, MIB, 0), region(2 * MIB, MIB, 4096)],
  ];
  for (const regions of refused) t.throws(() => GuestRam.create({ regions }), RangeError);
});

const pool = hugePages(2 * MIB);

t.test(
  "GuestRam.create() says how many huge pages are missing",
  { skip: pool.freeCount > 0 ? "this host has free huge pages" : false },
  async (t) => {
    t.throws(() => GuestRam.create({ regions: [region(0, 64 * MIB, 0)], hugepageBytes: 2 * MIB }), {
      name: "SyscallError",
      message: /32 huge pages of 2 MiB are needed and 0 of \d+ are free: echo \d+ > .*nr_hugepages|no 2 MiB huge pages/,
    });
  },
);

t.test(
  "GuestRam.create() takes pages of 1 GiB where they are asked for, and says how many are missing",
  { skip: hugePages(1024 * MIB).freeCount > 0 ? "this host has free huge pages of 1 GiB" : false },
  async (t) => {
    const gib = 1024 * MIB;
    t.throws(() => GuestRam.create({ regions: [region(0, 2 * gib, 0)], hugepageBytes: gib }), {
      name: "SyscallError",
      message: /2 huge pages of 1 GiB are needed and 0 of \d+ are free: .*1048576kB.*hugepagesz=1G|no 1 GiB huge pages/,
    });
    t.throws(() => GuestRam.create({ regions: [region(0, 512 * MIB, 0)], hugepageBytes: gib }), {
      message: /is not a multiple of 0x40000000/,
    });
  },
);

t.test(
  "GuestRam.create() uses huge pages",
  { skip: pool.freeCount < 2 ? "no free huge pages: echo 16 > /proc/sys/vm/nr_hugepages" : false },
  async (t) => {
    const memory = ram(t, { regions: [region(0, 4 * MIB, 0)], hugepageBytes: 2 * MIB, prefault: true });
    t.equal(hugePages(2 * MIB).freeCount, pool.freeCount - 2);
    t.equal(resize(memory.fd, 2 * MIB), EPERM, "their file's size is sealed, too");
    t.ok(memory.writeU32(gpa(4 * MIB - 4), 7));
  },
);
