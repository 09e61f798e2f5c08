import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import t from "tap";
import { fd } from "../../../../src/base/units.ts";
import { MMAN } from "../../../../src/host/constants.ts";
import type { CausesByErrno } from "../../../../src/host/errors.ts";
import { HostMapping } from "../../../../src/host/memory/mapping.ts";
import { prefault, touchPages } from "../../../../src/host/memory/prefault.ts";
import { HostBench } from "../../../support/host-bench.ts";

const MIB = 1024 * 1024;

t.test("HostMapping.anonymous() is zeroed memory that views share", async (t) => {
  const mapping = HostMapping.anonymous("scratch", 8192);
  const whole = new Uint8Array(mapping.view());
  const part = new Uint8Array(mapping.view(4096, 16));
  t.equal(whole.length, 8192);
  t.ok(whole.every((byte) => byte === 0));
  whole[4097] = 7;
  t.equal(part[1], 7);
  mapping.unmap();
});

t.test("HostMapping.ofFile() shows a file from an offset and writes to it", async (t) => {
  const bench = new HostBench(t);
  const path = bench.path("file");
  writeFileSync(path, Buffer.alloc(12288, "."));
  const file = openSync(path, "r+");
  const mapping = HostMapping.ofFile("file", fd(file), 4096, 8192);
  closeSync(file);
  new Uint8Array(mapping.view())[0] = 0x58;
  mapping.unmap();
  const text = readFileSync(path, "latin1");
  t.equal(text.indexOf("X"), 4096);
});

t.test("HostMapping aligns its address to any power of two and keeps no other addresses", async (t) => {
  for (const alignment of [4096, 2 * MIB, 1024 * MIB]) {
    const mapping = HostMapping.anonymous("aligned", 3 * 4096, { alignment, flags: MMAN.MAP_NORESERVE });
    t.equal(mapping.address % alignment, 0, `${alignment}`);
    new Uint8Array(mapping.view()).fill(1);
    const start = mapping.address;
    const maps = readFileSync("/proc/self/maps", "latin1").split("\n");
    const holders = maps.filter((line) => {
      const [from, to] = (line.split(" ")[0] ?? "").split("-").map((hex) => Number.parseInt(hex, 16));
      return from !== undefined && to !== undefined && from < start + 3 * 4096 && start < to;
    });
    t.equal(holders.length, 1);
    t.notMatch(holders[0], "---p");
    mapping.unmap();
  }
});

t.test("HostMapping puts its address at a remainder of the alignment", async (t) => {
  for (const remainder of [0, 0x3000, 2 * MIB - 4096]) {
    const mapping = HostMapping.anonymous("shifted", 3 * 4096, { alignment: 2 * MIB, remainder });
    t.equal(mapping.address % (2 * MIB), remainder);
    new Uint8Array(mapping.view()).fill(1);
    mapping.unmap();
  }
});

t.test("HostMapping gives its reserved addresses back when mapping a file fails", async (t) => {
  const before = readFileSync("/proc/self/maps", "latin1").match(/---p/g)?.length;
  const causes: CausesByErrno = { otherwise: "TSVMM_NO_MEMORY", EBADF: ["TSVMM_HOST_CALL", "open it"] };
  t.throws(() => HostMapping.ofFile("nothing", fd(-1), 0, 4096, { alignment: 2 * MIB, causes }), {
    code: "TSVMM_HOST_CALL",
    message: "Cannot map nothing (0x1000 bytes): mmap failed with EBADF (open it)",
  });
  t.equal(readFileSync("/proc/self/maps", "latin1").match(/---p/g)?.length, before);
});

t.test("HostMapping refuses alignments, sizes and views that cannot be", async (t) => {
  t.throws(() => HostMapping.anonymous("odd", 4096, { alignment: 3 * 4096 }), RangeError);
  t.throws(() => HostMapping.anonymous("empty", 0), RangeError);
  const mapping = HostMapping.anonymous("small", 4096);
  t.throws(() => mapping.view(4096, 1), RangeError);
  t.throws(() => mapping.view(-1, 1), RangeError);
  mapping.unmap();
});

t.test("HostMapping refuses use after unmap()", async (t) => {
  const mapping = HostMapping.anonymous("gone", 4096);
  mapping.unmap();
  mapping.unmap();
  t.equal(mapping.isMapped, false);
  t.throws(() => mapping.address, { name: "InvariantError" });
  t.throws(() => mapping.view(), { name: "InvariantError" });
});

t.test("HostMapping.pieces() cuts what is larger than 4 GiB", async (t) => {
  const mapping = HostMapping.anonymous("large", 9 * 1024 * MIB, { flags: MMAN.MAP_NORESERVE });
  const pieces = mapping.pieces();
  t.same(
    pieces.map((piece) => piece.byteLength),
    [2 ** 32, 2 ** 32, 2 ** 30],
  );
  const last = pieces[2];
  t.ok(last);
  if (last !== undefined) new Uint8Array(last)[2 ** 30 - 1] = 9;
  t.equal(new Uint8Array(mapping.view(9 * 2 ** 30 - 1, 1))[0], 9);
  mapping.unmap();
});

for (const [name, touch] of Object.entries({ prefault, touchPages })) {
  t.test(`${name}() gives every page its memory and keeps its bytes`, async (t) => {
    const mapping = HostMapping.anonymous("touched", 4 * MIB);
    const bytes = new Uint8Array(mapping.view());
    bytes[4096] = 5;
    touch(mapping);
    t.equal(bytes[4096], 5);
    const smaps = readFileSync("/proc/self/smaps", "latin1");
    const start = smaps.slice(smaps.indexOf(`${mapping.address.toString(16)}-`));
    const residentKib = Number(/^Rss:\s*(\d+) kB/m.exec(start)?.[1]);
    t.ok(residentKib >= 4096, `${residentKib} KiB are resident`);
    mapping.unmap();
  });
}
