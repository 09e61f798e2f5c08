import { once } from "node:events";
import { closeSync, ftruncateSync, openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import t, { type Test } from "tap";
import { type Fd, fd } from "../../../../src/base/units.ts";
import { FCNTL, MMAN } from "../../../../src/host/constants.ts";
import { libc } from "../../../../src/host/libc.ts";
import { socketPair } from "../../../support/socket-pair.ts";
import { fields, RawClient } from "../../../support/user-client.ts";
import { startServer } from "../../../support/user-server.ts";

const [ENOENT, EEXIST, EINVAL] = [2, 17, 22] as const;
const [DMA_MAP, DMA_UNMAP, REGION_READ, REGION_WRITE, DMA_READ] = [2, 3, 9, 10, 11] as const;
const PAGE = 0x1000;
const BUFFER = 0x4_0000;
const ALL = 2;

/** Plays the driver of an edu with bus mastering on. */
class DmaClient extends RawClient {
  /** Addresses that the server has asked for, which are answered with ones. */
  readonly asked: number[] = [];

  constructor(t: Test, socket: string) {
    super(t, socket);
    this.negotiate();
    this.request(REGION_WRITE, Uint8Array.from([...fields([4, 8], [7, 4], [2, 4]), 6, 0]));
  }

  map(address: number, pages: number, file?: Fd, flags = 3): number {
    const payload = fields([32, 4], [flags, 4], [0, 8], [address, 8], [pages * PAGE, 8]);
    return this.request(DMA_MAP, payload, file === undefined ? [] : [file]).error;
  }

  unmap(address: bigint | number, size: bigint | number, flags = 0): number {
    const view = new DataView(new ArrayBuffer(24));
    view.setUint32(0, 24, true);
    view.setUint32(4, flags, true);
    view.setBigUint64(8, BigInt(address), true);
    view.setBigUint64(16, BigInt(size), true);
    const sent = new Uint8Array(view.buffer);
    const { error, payload } = this.request(DMA_UNMAP, sent);
    if (error === 0 && `${payload}` !== `${sent}`) throw new Error(`It answered ${payload} to ${sent}`);
    return error;
  }

  /** Lets edu copy 8 bytes from one address to the other; one of them is its buffer's. */
  transfer(from: number, to: number): void {
    for (const [offset, value] of [
      [0x80, from],
      [0x88, to],
      [0x90, 8],
      [0x98, to === BUFFER ? 1 : 3],
    ] as const) {
      this.#serve(REGION_WRITE, fields([offset, 8], [0, 4], [4, 4], [value, 4]));
    }
    let command = 1;
    while ((command & 1) !== 0) {
      const payload = this.#serve(REGION_READ, fields([0x98, 8], [0, 4], [4, 4]));
      command = payload[16] ?? 0;
    }
  }

  /** A request during which the server may ask for memory. */
  #serve(command: number, payload: Uint8Array): Uint8Array {
    const id = this.send(command, payload);
    for (;;) {
      const message = this.message();
      if (message.isReply && message.id === id) return message.payload;
      const view = new DataView(message.payload.buffer, message.payload.byteOffset);
      this.asked.push(Number(view.getBigUint64(0, true)));
      const ones = new Array<number>(message.command === DMA_READ ? 8 : 0).fill(1);
      const answer = Uint8Array.from([...message.payload.subarray(0, 16), ...ones]);
      const reply = { id: message.id, command: message.command, isReply: true, payload: answer };
      this.wire.send(reply, performance.now() + 1000);
    }
  }
}

function memfd(t: Test, pages: number, seals = 0, flags = 0): Fd {
  const file = fd(libc.memfdCreate("client", MMAN.MFD_CLOEXEC | MMAN.MFD_ALLOW_SEALING | flags));
  t.teardown(() => libc.close(file));
  libc.ftruncate(file, pages * PAGE);
  libc.fcntl(file, FCNTL.F_ADD_SEALS, seals);
  return file;
}

const put = (file: Fd, offset: number, text: string): number =>
  libc.pwrite(file, Buffer.from(text), text.length, offset);
function get(file: Fd, offset: number): string {
  const bytes = Buffer.from(new ArrayBuffer(8));
  libc.pread(file, bytes, 8, offset);
  return bytes.toString();
}

for (const [what, seals] of [
  ["a sealed memfd", FCNTL.F_SEAL_SHRINK],
  ["a memfd without seals", 0],
  ["a memfd with another seal", FCNTL.F_SEAL_GROW],
] as const) {
  t.test(`DeviceServer's device reaches the memory of ${what} by itself`, async (t) => {
    const client = new DmaClient(t, (await startServer(t, "edu")).socket);
    const file = memfd(t, 2, seals);
    t.equal(client.map(0x10_0000, 2, file), 0);
    put(file, 0x1ff8, "from RAM");
    client.transfer(0x10_1ff8, BUFFER);
    client.transfer(BUFFER, 0x10_0ffc); // across pages
    t.equal(get(file, 0xffc), "from RAM");
    t.same(client.asked, []);
  });
}

const here = openSync(fileURLToPath(import.meta.url), "r");
const isInMemory = libc.fcntl(here, FCNTL.F_GET_SEALS, 0) >= 0;
closeSync(here);
const inMemory = isInMemory && "the tests lie in tmpfs";

t.test("DeviceServer asks for memory whose file is one of a file system", { skip: inMemory }, async (t) => {
  const client = new DmaClient(t, (await startServer(t, "edu")).socket);
  const file = fd(openSync(`${t.testdir({ ram: Buffer.alloc(PAGE, "x") })}/ram`, "r+"));
  t.teardown(() => closeSync(file));
  t.equal(client.map(0, 1, file), 0);
  client.transfer(0x100, BUFFER);
  client.transfer(BUFFER, 0x200);
  t.same(client.asked, [0x100, 0x200]);
  t.equal(get(file, 0x200), "xxxxxxxx");
});

t.test("DeviceServer survives a client that cuts its memory short, and goes on where it is whole again", async (t) => {
  const server = await startServer(t, "edu");
  const client = new DmaClient(t, server.socket);
  const file = memfd(t, 2);
  client.map(0, 2, file);
  put(file, 0, "whole...");
  client.transfer(0, BUFFER);
  ftruncateSync(file, 0);
  client.transfer(0, BUFFER);
  client.transfer(BUFFER, PAGE);
  await server.reported(/no memory of 0x8 bytes is at 0x0\n[\s\S]*no memory of 0x8 bytes is at 0x1000\n/);
  ftruncateSync(file, PAGE);
  client.transfer(BUFFER, 0xff8);
  t.equal(get(file, 0xff8), "whole...", "what the device had read before");
  client.transfer(BUFFER, 0xffc);
  await server.reported(/no memory of 0x8 bytes is at 0xffc\n/);
  server.process.kill("SIGTERM");
  t.same(await once(server.process, "close"), [0, null]);
});

const hugePages = libc.memfdCreate("probe", MMAN.MFD_HUGETLB | MMAN.MFD_HUGE_2MB);
if (hugePages >= 0) libc.close(hugePages);
const skip = hugePages < 0 && "the host's kernel has no huge pages";

t.test("DeviceServer survives huge pages that run out, though their file is sealed", { skip }, async (t) => {
  // There are none: a fault in the mapping would be SIGBUS, as it is when a client punches holes and takes the pool.
  const server = await startServer(t, "edu");
  const client = new DmaClient(t, server.socket);
  const file = memfd(t, 512, FCNTL.F_SEAL_SHRINK, MMAN.MFD_HUGETLB | MMAN.MFD_HUGE_2MB);
  t.equal(client.map(0, 512, file), 0);
  client.transfer(0, BUFFER);
  client.transfer(BUFFER, PAGE);
  t.same(client.asked, []);
  server.process.kill("SIGTERM");
  t.same(await once(server.process, "close"), [0, null]);
});

t.test("DeviceServer refuses a DMA_MAP that cannot be", async (t) => {
  const client = new DmaClient(t, (await startServer(t, "edu")).socket);
  const file = memfd(t, 2, FCNTL.F_SEAL_SHRINK);
  t.equal(client.map(0, 3, file), EINVAL, "a file that is too short");
  const [socket, peer] = socketPair(t);
  t.equal(client.map(0, 1, socket), EINVAL, "no file at all");
  libc.close(socket);
  libc.close(peer);
  t.equal(client.map(0, 1, file, 0), EINVAL, "neither readable nor writable");
  t.equal(client.map(0, 1, file, 7), EINVAL, "flags that there are not");
  t.equal(client.map(PAGE, 1, file), 0);
  for (const [address, pages] of [
    [PAGE, 1],
    [0, 3],
    [0, 2],
  ] as const) {
    t.equal(client.map(address, pages), EEXIST, `${pages} pages at ${address}`);
  }
  t.equal(client.map(2 * PAGE, 1), 0);
});

t.test("DeviceServer's device may only do with memory what its mapping says", async (t) => {
  const server = await startServer(t, "edu");
  const client = new DmaClient(t, server.socket);
  const file = memfd(t, 1, FCNTL.F_SEAL_SHRINK);
  put(file, 0, "read me.");
  client.map(0, 1, file, 1);
  client.map(PAGE, 1, file, 2);
  client.transfer(0, BUFFER);
  client.transfer(BUFFER, PAGE + 0x100);
  t.equal(get(file, 0x100), "read me.");
  client.transfer(BUFFER, 0x200);
  client.transfer(PAGE, BUFFER);
  await server.reported(/is at 0x200\n[\s\S]*is at 0x1000\n/);
  t.equal(get(file, 0x200), "\0".repeat(8));
});

t.test("DeviceServer unmaps each mapping between two addresses, and cuts none in two", async (t) => {
  const client = new DmaClient(t, (await startServer(t, "edu")).socket);
  const isMapped = (page: number): boolean => {
    const error = client.map(page * PAGE, 1);
    if (error === 0) client.unmap(page * PAGE, PAGE);
    return error === EEXIST;
  };
  for (const page of [1, 2, 5]) t.equal(client.map(page * PAGE, 1), 0);
  t.equal(client.map(8 * PAGE, 2), 0);
  const refused: readonly (readonly [
    what: string,
    errno: number,
    address: bigint | number,
    size: bigint | number,
    flags?: number,
  ])[] = [
    ["nothing is there", ENOENT, 3 * PAGE, 2 * PAGE],
    ["the start of a mapping", EINVAL, 8 * PAGE, PAGE],
    ["its end", EINVAL, 9 * PAGE, PAGE],
    ["another one and a part of it", EINVAL, 5 * PAGE, 4 * PAGE],
    ["no size", EINVAL, PAGE, 0],
    ["an odd size", EINVAL, PAGE, 100],
    ["an odd address", EINVAL, 100, PAGE],
    ["addresses beyond all", EINVAL, PAGE, 2n ** 64n - 1n],
    ["a dirty bitmap", EINVAL, PAGE, PAGE, 1],
    ["flags that there are not", EINVAL, PAGE, PAGE, 4],
    ["all, with an address", EINVAL, PAGE, 0, ALL],
    ["all, with a size", EINVAL, 0, PAGE, ALL],
    ["all, and a bitmap", EINVAL, 0, 0, ALL | 1],
  ];
  for (const [what, errno, address, size, flags] of refused) t.equal(client.unmap(address, size, flags), errno, what);
  t.same([1, 2, 5, 8, 9].map(isMapped), [true, true, true, true, true], "nothing of that had an effect");
  t.equal(client.unmap(0, 6 * PAGE), 0, "three of them, with gaps");
  t.same([1, 2, 5, 8, 9].map(isMapped), [false, false, false, true, true]);
  t.equal(client.map(0, 1), 0);
  t.equal(client.unmap(0, 0, ALL), 0);
  t.same([0, 8, 9].map(isMapped), [false, false, false]);
  t.equal(client.unmap(0, 0, ALL), 0, "all of nothing");
  client.map(5 * PAGE, 1);
  t.equal(client.unmap(PAGE, 2n ** 64n - 4096n), 0, "to the end of all addresses");
  t.notOk(isMapped(5));
});

t.test("DeviceServer's device reaches nothing that was taken back", async (t) => {
  const server = await startServer(t, "edu");
  const client = new DmaClient(t, server.socket);
  const file = memfd(t, 1, FCNTL.F_SEAL_SHRINK);
  client.map(0, 1, file);
  client.unmap(0, 4 * PAGE);
  client.transfer(BUFFER, 0);
  await server.reported(/no memory of 0x8 bytes is at 0x0\n/);
  client.map(0, 1); // not shared now
  client.transfer(BUFFER, 0);
  t.same(client.asked, [0]);
});
