import { readdirSync } from "node:fs";
import t, { type Test } from "tap";
import { type Fd, fd } from "../../../../src/base/units.ts";
import { FCNTL, MMAN } from "../../../../src/host/constants.ts";
import { libc } from "../../../../src/host/libc.ts";
import { HostMapping } from "../../../../src/host/memory/mapping.ts";
import { MemoryBlock } from "../../../../src/vfio-user/server/memory-block.ts";
import { fields, RawClient } from "../../../support/user-client.ts";
import { startScratchServer } from "../../../support/user-server.ts";

const [REGION_INFO, REGION_READ] = [5, 9] as const;
const PAGE = 0x1000;

/** A client with the memory of scratch-device.ts, whose first word reads as the sum of the memory's first four. */
class MemoryClient extends RawClient {
  readonly file: Fd;
  readonly words: Uint32Array;

  constructor(t: Test, socket: string) {
    super(t, socket);
    this.negotiate();
    const { descriptors } = this.request(REGION_INFO, fields([64, 4], [0, 4], [0, 4], [0, 4], [0, 8], [0, 8]));
    this.file = descriptors[0] ?? fd(-1);
    const mapping = HostMapping.ofFile("scratch", this.file, PAGE, PAGE);
    this.words = new Uint32Array(mapping.view());
    t.teardown(() => mapping.unmap());
  }

  sum(): number {
    const { payload } = this.request(REGION_READ, fields([0, 8], [0, 4], [4, 4]));
    return new DataView(payload.buffer, payload.byteOffset).getUint32(16, true);
  }
}

t.test("DeviceServer gives each client memory of its own, which the one before cannot reach", async (t) => {
  const server = await startScratchServer(t);
  const descriptors = (): number => readdirSync(`/proc/${server.process.pid}/fd`).length;
  const first = new MemoryClient(t, server.socket);
  const before = descriptors();
  first.words.set([1, 2, 3, 4]);
  t.equal(first.sum(), 10);
  first.wire.close();
  for (let round = 0; round < 3; round++) {
    const next = new MemoryClient(t, server.socket);
    t.same([...next.words.subarray(0, 4)], [0, 0, 0, 0], "zeroes");
    next.words.set([10, 20, 30, 40]);
    first.words.set([5, 6, 7, 8]);
    t.equal(next.sum(), 100);
    t.equal(descriptors(), before);
    next.wire.close();
  }
});

t.test("MemoryBlock cannot be cut short or sealed by those who hold its file", async (t) => {
  const block = new MemoryBlock("block", PAGE, PAGE);
  const file = block.share();
  for (const size of [0, PAGE, 3 * PAGE]) t.equal(libc.ftruncate(file, size), -1, `${size} bytes`);
  const writeSeal = 0x8;
  t.equal(libc.fcntl(file, FCNTL.F_ADD_SEALS, writeSeal), -1);
  block.bytes[0] = 7;
  const punch = 0x03;
  libc.fallocate(file, punch, 0, 2 * PAGE);
  t.equal(block.bytes[0], 0, "a hole is zeroes");
  block.close();
});

t.test("MemoryBlock.renew() keeps the bytes of a block that was never shared, and its view", async (t) => {
  const block = new MemoryBlock("block", PAGE);
  const { bytes } = block;
  bytes[5] = 42;
  block.renew();
  t.equal(bytes[5], 42);
  const mapping = HostMapping.ofFile("others", block.share(), 0, PAGE, { protection: MMAN.PROT_READ });
  const others = new Uint8Array(mapping.view());
  block.renew();
  t.equal(bytes[5], 0);
  bytes[6] = 43;
  t.same([others[5], others[6]], [42, 0]);
  mapping.unmap();
  block.close();
  block.renew();
  block.close();
});
