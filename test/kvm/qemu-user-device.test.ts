import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { findQemu, QEMU_MEMORY, QemuPeer } from "../support/qemu-peer.ts";
import { type ServerProcess, startServer } from "../support/user-server.ts";

/*
 * Device servers and a client that somebody else has written: QEMU's vfio-user-pci, from Debian's packages unpacked
 * into the cache.
 */

t.setTimeout(200_000); // the first time some 40 MB are downloaded
const found = await findQemu(t);
const skip = "missing" in found && found.missing;

const BAR = 0xe000_0000;
const BUFFER = 0x4_0000;
const [MSI, MSIX] = [0x05, 0x11] as const;

/** A machine with the server's device, its BAR 0 placed, decode and bus mastering on. */
async function connect(t: Test, server: ServerProcess, memory: string): Promise<QemuPeer> {
  if ("missing" in found) throw new Error(found.missing);
  const qemu = await QemuPeer.start(t, found.qemu, server.socket, memory);
  await qemu.writeConfig(0x10, BAR);
  await qemu.writeConfig(0x04, 0x6);
  return qemu;
}

/** Where messages are written to, and what. */
const MESSAGE = { address: 0x30_0000, data: 0x55 } as const;

/** A message is a write, wherever to: here to memory, where it can be seen. */
async function enableMsi(qemu: QemuPeer): Promise<void> {
  const msi = await qemu.capability(MSI);
  await qemu.writeConfig(msi + 4, MESSAGE.address);
  await qemu.writeConfig(msi + 8, 0);
  await qemu.writeConfig(msi + 12, MESSAGE.data);
  await qemu.writeConfig(msi, (await qemu.readConfig(msi)) | 0x1_0000);
}

async function takeMessage(qemu: QemuPeer): Promise<void> {
  await qemu.until("the message arrives", async () => (await qemu.read32(MESSAGE.address)) === MESSAGE.data);
  await qemu.write32(MESSAGE.address, 0);
}

/**
 * Lets edu copy four bytes, one of the addresses being its buffer's, and waits for its message. A register is not asked
 * meanwhile: QEMU answers a server that asks for memory only while it waits for nothing itself.
 */
async function transfer(qemu: QemuPeer, from: number, to: number): Promise<void> {
  for (const [offset, value] of [
    [0x80, from],
    [0x88, to],
    [0x90, 4],
    [0x98, to === BUFFER ? 5 : 7],
  ] as const) {
    await qemu.write32(BAR + offset, value);
  }
  await takeMessage(qemu);
  await qemu.write32(BAR + 0x64, 0x100);
}

t.test("QEMU's vfio-user-pci uses edu: identity, registers, posted writes, a reset", { skip }, async (t) => {
  const server = await startServer(t, "edu");
  const qemu = await connect(t, server, QEMU_MEMORY["a sealed memfd"]);
  t.equal(await qemu.readConfig(0x00), 0x11e8_1234);
  t.equal(await qemu.readConfig(0x08), 0x00ff_0010, "class and revision");
  t.equal(await qemu.readConfig(0x2c), 0x1100_1af4);
  await qemu.writeConfig(0x10, 0xffff_ffff);
  t.equal(await qemu.readConfig(0x10), 0xfff0_0000, "BAR 0 has a mebibyte");
  await qemu.writeConfig(0x10, BAR);
  t.equal(await qemu.read32(BAR), 0x0100_00ed);
  for (let value = 0; value < 50; value++) await qemu.write32(BAR + 4, value);
  t.equal(await qemu.read32(BAR + 4), ~49 >>> 0, "a read comes after the writes before it");
  await qemu.write32(BAR + 8, 5);
  await qemu.until("5! is computed", async () => ((await qemu.read32(BAR + 0x20)) & 1) === 0);
  t.equal(await qemu.read32(BAR + 8), 120);
  await qemu.writePort(0xcf9, 0x06);
  await qemu.until("the machine is reset", async () => ((await qemu.readConfig(0x04)) & 6) === 0);
  await qemu.writeConfig(0x10, BAR);
  await qemu.writeConfig(0x04, 0x6);
  t.equal(await qemu.read32(BAR + 4), 0);
  t.equal(qemu.said, "", "it warns of nothing");
  await qemu.end();
  await server.reported(/the machine is gone/);
});

t.test("QEMU's vfio-user-pci and edu move memory, however it is shared", { skip }, async (t) => {
  const server = await startServer(t, "edu");
  for (const [what, memory] of Object.entries(QEMU_MEMORY)) {
    const qemu = await connect(t, server, memory);
    await enableMsi(qemu);
    await qemu.write32(0x10_0000, 0xcafe_babe);
    await transfer(qemu, 0x10_0000, BUFFER);
    await transfer(qemu, BUFFER, 0x3f_fffc);
    t.equal(await qemu.read32(0x3f_fffc), 0xcafe_babe, what);
    t.equal(qemu.said, "");
    await qemu.end();
  }
});

t.test("QEMU's vfio-user-pci takes edu's interrupts, as a pin and as messages", { skip }, async (t) => {
  const server = await startServer(t, "edu");
  const qemu = await connect(t, server, QEMU_MEMORY["a sealed memfd"]);
  // The four pins to IRQ 11, which the second PIC has as its third request.
  await qemu.writeConfig(0x60, 0x0b0b_0b0b, 1);
  const isPinHigh = async (): Promise<boolean> => {
    await qemu.writePort(0xa0, 0x0a);
    return ((await qemu.readPort(0xa0)) & 0x08) !== 0;
  };
  await qemu.writePort(0x4d1, 0x08); // level-triggered
  t.notOk(await isPinHigh());
  await qemu.write32(BAR + 0x60, 1);
  await qemu.until("the pin rises", isPinHigh);
  for (let round = 0; round < 3; round++) {
    await qemu.read32(BAR + 0x24); // QEMU takes any access for the end of an interrupt, and unmasks the pin
    await qemu.until("a pin that is still high rises again", isPinHigh);
  }
  await qemu.write32(BAR + 0x64, 1);
  await qemu.until("the pin falls", async () => !(await isPinHigh()));

  await enableMsi(qemu);
  await qemu.write32(BAR + 0x60, 2);
  await takeMessage(qemu);
  t.notOk(await isPinHigh());
  t.equal(qemu.said, "");
  await qemu.end();
});

t.test("QEMU's vfio-user-pci drives nvme with MSI-X: identify, read, write", { skip }, async (t) => {
  const image = join(t.testdir({}), "disk.raw");
  const blocks = Buffer.alloc(1 << 20, "block 0\n");
  writeFileSync(image, blocks);
  const server = await startServer(t, "nvme", "--image", image, "--serial", "PEER");
  const qemu = await connect(t, server, QEMU_MEMORY["a sealed memfd"]);
  t.equal(await qemu.readConfig(0x00), 0x0010_1b36);
  const msix = await qemu.capability(MSIX);
  await qemu.writeConfig(msix, ((await qemu.readConfig(msix)) | 0x8000_0000) >>> 0);
  for (const vector of [0, 1]) {
    for (const [index, value] of [0x30_0000 + 4 * vector, 0, 0x60 + vector, 0].entries()) {
      await qemu.write32(BAR + 0x2000 + 16 * vector + 4 * index, value);
    }
  }
  const [admin, io] = [0x10_0000, 0x10_4000];
  for (const [offset, value] of [
    [0x24, 0x000f_000f],
    [0x28, admin],
    [0x30, admin + 0x1000],
    [0x14, 0x0046_0001],
  ] as const) {
    await qemu.write32(BAR + offset, value);
  }
  await qemu.until("the controller is ready", async () => (await qemu.read32(BAR + 0x1c)) === 1);

  /** Carries the command at `place` of a queue out, and takes its message. @returns Its status. */
  const run = async (queue: number, place: number, words: Readonly<Record<number, number>>): Promise<number> => {
    const base = queue === 0 ? admin : io;
    await qemu.write32(0x30_0000 + 4 * queue, 0);
    for (let word = 0; word < 16; word++) await qemu.write32(base + 64 * place + 4 * word, words[word] ?? 0);
    await qemu.write32(BAR + 0x1000 + 8 * queue, place + 1);
    await qemu.until("its message arrives", async () => (await qemu.read32(0x30_0000 + 4 * queue)) === 0x60 + queue);
    const status = (await qemu.read32(base + 0x1000 + 16 * place + 12)) >>> 16;
    await qemu.write32(BAR + 0x1004 + 8 * queue, place + 1);
    return status;
  };
  t.equal(await run(0, 0, { 0: 0x06, 6: 0x20_0000, 10: 1 }), 1, "Identify, and the phase of the first round");
  t.equal(await qemu.read32(0x20_0004), Buffer.from("PEER").readUInt32LE(0), "the serial number");
  t.equal(await run(0, 1, { 0: 0x05, 6: io + 0x1000, 10: 0x000f_0001, 11: 0x0001_0003 }), 1, "completion queue 1");
  t.equal(await run(0, 2, { 0: 0x01, 6: io, 10: 0x000f_0001, 11: 0x0001_0001 }), 1, "submission queue 1");
  t.equal(await run(1, 0, { 0: 0x02, 1: 1, 6: 0x21_0000, 10: 3, 12: 7 }), 1, "a read of a page");
  t.equal(await qemu.read32(0x21_0ffc), blocks.readUInt32LE(4), "its last word");
  await qemu.write32(0x22_0000, 0x1234_5678);
  t.equal(await run(1, 1, { 0: 0x01, 1: 1, 6: 0x22_0000, 10: 9, 12: 0 }), 1, "a write of a block");
  t.equal(readFileSync(image).readUInt32LE(9 * 512), 0x1234_5678);
  t.equal(qemu.said, "");
  await qemu.end();
});
