import t from "tap";
import type { Width } from "../../../src/base/units.ts";
import { ConfigSpace } from "../../../src/pci/config-space.ts";

const identity = {
  vendorId: 0x1af4,
  deviceId: 0x1042,
  revision: 0x01,
  classCode: 0x010802,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x0002,
  interruptPin: 1,
};

t.test("ConfigSpace.setIdentity() fills the header where the specification has it", async (t) => {
  const config = new ConfigSpace("disk", 256);
  config.setIdentity(identity);
  t.equal(config.read(0x00, 4), 0x1042_1af4);
  t.equal(config.read(0x08, 4), 0x0108_0201);
  t.equal(config.read(0x0e, 1), 0x00);
  t.equal(config.read(0x2c, 4), 0x0002_1af4);
  t.equal(config.read(0x3d, 1), 1);
});

t.test("ConfigSpace.read() answers every width at every offset", async (t) => {
  const config = new ConfigSpace("disk", 256);
  for (let at = 0; at < 256; at++) config.set8(at, at);
  for (const [offset, width, value] of [
    [0x81, 1, 0x81],
    [0x81, 2, 0x8281],
    [0x81, 4, 0x8483_8281],
    [0x83, 4, 0x8685_8483],
  ] as const) {
    t.equal(config.read(offset, width), value, `${width} bytes at ${offset}`);
  }
});

t.test("ConfigSpace.read() gives ones and write() does nothing beyond the end", async (t) => {
  const config = new ConfigSpace("disk", 256);
  config.allowWrites(0xfe, 2, 0xffff);
  config.write(0xfe, 4, 0x4433_2211);
  t.equal(config.read(0xfe, 4), 0xffff_2211);
  t.equal(config.read(0x100, 4), 0xffff_ffff);
  t.equal(config.read(0xff, 2), 0xff22);
});

t.test("ConfigSpace.write() keeps read-only bits and the neighbours of the written bytes", async (t) => {
  const config = new ConfigSpace("disk", 256);
  config.set32(0x40, 0x1234_5678);
  config.allowWrites(0x40, 4, 0x00ff_0ff0);
  config.write(0x40, 4, 0xffff_ffff);
  t.equal(config.read(0x40, 4), 0x12ff_5ff8);
  config.write(0x41, 1, 0x00);
  t.equal(config.read(0x40, 4), 0x12ff_50f8);
  config.write(0x41, 2, 0x00ff);
  t.equal(config.read(0x40, 4), 0x1200_5ff8);
});

t.test("ConfigSpace has the rules of a type 0 header built in", async (t) => {
  const config = new ConfigSpace("disk", 256);
  config.setIdentity(identity);
  config.set16(0x06, 0xf910);
  config.write(0x00, 4, 0);
  t.equal(config.read(0x00, 4), 0x1042_1af4, "ids are read-only");
  config.write(0x04, 2, 0xffff);
  t.equal(config.read(0x04, 2), 0x0547, "command keeps the bits that exist");
  config.write(0x06, 2, 0x9000);
  t.equal(config.read(0x06, 2), 0x6910, "status bits are cleared by ones");
  config.write(0x04, 4, 0);
  t.equal(config.read(0x04, 4), 0x6910_0000, "zeroes clear no status bit");
  config.write(0x0c, 4, 0xffff_ffff);
  t.equal(config.read(0x0c, 4), 0x0000_ffff, "cache line size and latency timer can be written");
  config.write(0x3c, 4, 0xffff_ff0b);
  t.equal(config.read(0x3c, 4), 0x0000_010b, "only the interrupt line can be written");
});

t.test("ConfigSpace.isMultifunction sets bit 7 of the header type and survives setIdentity()", async (t) => {
  const config = new ConfigSpace("disk", 256);
  config.isMultifunction = true;
  config.setIdentity({ ...identity, headerType: 1 });
  t.equal(config.read(0x0e, 1), 0x81);
  config.isMultifunction = false;
  t.equal(config.read(0x0e, 1), 0x01);
});

t.test("ConfigSpace.onWrite() calls once a write that overlaps, after the bytes were merged", async (t) => {
  const config = new ConfigSpace("disk", 256);
  config.allowWrites(0x40, 4, 0xffff_ffff);
  config.allowWrites(0x44, 4, 0xffff_ffff);
  const seen: string[] = [];
  config.onWrite(0x42, 2, (offset, width) => seen.push(`second ${offset} ${width} ${config.get16(0x42).toString(16)}`));
  config.onWrite(0x42, 2, () => seen.push("first"), "first");
  config.write(0x40, 2, 0x1111);
  t.same(seen, []);
  config.write(0x40, 4, 0xabcd_0000);
  t.same(seen.splice(0), ["first", "second 64 4 abcd"]);
  config.write(0x43, 4, 0x11);
  t.same(seen.splice(0), ["first", "second 67 4 11cd"]);
  config.write(0x44, 4, 0);
  t.same(seen, []);
});

t.test("ConfigSpace.overlay() splits accesses at its borders and keeps the width inside", async (t) => {
  const config = new ConfigSpace("disk", 256);
  const calls: string[] = [];
  config.overlay(0x50, 8, {
    read: (offset: number, width: Width) => {
      calls.push(`r${offset.toString(16)}/${width}`);
      return 0xa0a0_a0a0; // more bits than asked for
    },
    write: (offset, width, value) => calls.push(`w${offset.toString(16)}/${width}=${value.toString(16)}`),
  });
  for (let at = 0x4c; at < 0x5c; at++) config.set8(at, 0x11);
  for (const [offset, width, value, expected] of [
    [0x50, 4, 0xa0a0_a0a0, "r50/4"],
    [0x51, 2, 0xa0a0, "r51/2"],
    [0x4e, 4, 0xa0a0_1111, "r50/2"],
    [0x4f, 4, 0xa0a0_a011, "r50/2 r52/1"],
    [0x55, 4, 0x11a0_a0a0, "r55/1 r56/2"],
    [0x58, 4, 0x1111_1111, ""],
  ] as const) {
    t.equal(config.read(offset, width), value, `${width} bytes at ${offset.toString(16)}`);
    t.equal(calls.splice(0).join(" "), expected);
  }
  config.allowWrites(0x4c, 4, 0xffff_ffff);
  config.write(0x4e, 4, 0x4433_2211);
  t.same(calls.splice(0), ["w50/2=4433"]);
  t.equal(config.get16(0x4e), 0x2211);
  config.write(0x54, 4, 0xdead_beef);
  t.same(calls.splice(0), ["w54/4=deadbeef"]);
  t.equal(config.get32(0x54), 0x1111_1111, "the space's own bytes stay");
});

t.test(
  "ConfigSpace.overlay() with only a reader leaves writes to the masks, and refuses a second overlay",
  async (t) => {
    const config = new ConfigSpace("disk", 256);
    config.overlay(0x60, 2, { read: () => 0x7777 });
    config.allowWrites(0x60, 2, 0x00ff);
    config.write(0x60, 2, 0xabcd);
    t.equal(config.read(0x60, 2), 0x7777);
    t.equal(config.get16(0x60), 0x00cd);
    t.throws(() => config.overlay(0x61, 4, {}), RangeError);
    t.throws(() => config.overlay(0xfe, 4, {}), RangeError);
  },
);

t.test("ConfigSpace.addCapability() links the list in the order of adding", async (t) => {
  const config = new ConfigSpace("disk", 256);
  t.equal(config.read(0x06, 2) & 0x10, 0);
  t.equal(config.addCapability(0x09, Uint8Array.of(0x10, 1, 2, 3, 4)), 0x40);
  t.equal(config.addCapability(0x10, new Uint8Array(0x3a), 0x80), 0x80);
  t.equal(config.addCapability(0x11, new Uint8Array(10)), 0x48, "the first free room, dword-aligned");
  t.equal(config.read(0x06, 2) & 0x10, 0x10);
  t.equal(config.read(0x34, 1), 0x40);
  t.equal(config.read(0x40, 4), 0x0110_8009);
  t.equal(config.read(0x81, 1), 0x48);
  t.equal(config.read(0x48, 2), 0x0011);
  t.equal(config.findCapability(0x11), 0x48);
  t.equal(config.findCapability(0x05), undefined);
});

t.test("ConfigSpace.addCapability() refuses what does not fit", async (t) => {
  const config = new ConfigSpace("disk", 256);
  config.addCapability(0x10, new Uint8Array(0x3a), 0x80);
  t.throws(() => config.addCapability(0x11, new Uint8Array(10), 0xb8), RangeError);
  t.throws(() => config.addCapability(0x11, new Uint8Array(10), 0x42), RangeError);
  t.throws(() => config.addCapability(0x11, new Uint8Array(10), 0x38), RangeError);
  t.throws(() => config.addCapability(0x11, new Uint8Array(10), 0xf8), RangeError);
  t.throws(() => config.addCapability(0x09, new Uint8Array(0x50)), RangeError);
  t.equal(config.addCapability(0x09, new Uint8Array(0x3e)), 0x40, "a refused one leaves nothing behind");
});

t.test("ConfigSpace.findCapability() ends on a list with a loop", async (t) => {
  const config = new ConfigSpace("broken", 256);
  config.set8(0x34, 0x40);
  config.set16(0x40, 0x4009);
  t.equal(config.findCapability(0x11), undefined);
  const extended = new ConfigSpace("broken", 4096);
  extended.set32(0x100, 0x1001_0001);
  t.equal(extended.findExtendedCapability(0x02), undefined);
});

t.test("ConfigSpace.addExtendedCapability() starts the list at 0x100", async (t) => {
  const config = new ConfigSpace("nic", 4096);
  t.equal(config.findExtendedCapability(0x01), undefined);
  t.equal(config.addExtendedCapability(0x01, 2, new Uint8Array(0x44)), 0x100);
  t.equal(config.addExtendedCapability(0x03, 1, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)), 0x148);
  t.equal(config.read(0x100, 4), 0x1482_0001);
  t.equal(config.read(0x148, 4), 0x0001_0003);
  t.equal(config.read(0x14c, 4), 0x0403_0201);
  t.equal(config.findExtendedCapability(0x03), 0x148);
});

t.test("ConfigSpace.addExtendedCapability() leads from a null capability to one that may not move", async (t) => {
  const config = new ConfigSpace("nic", 4096);
  t.equal(config.addExtendedCapability(0x03, 1, new Uint8Array(8), 0x200), 0x200);
  t.equal(config.read(0x100, 4), 0x2000_0000);
  t.equal(config.findExtendedCapability(0x03), 0x200);
  t.equal(config.addExtendedCapability(0x01, 1, new Uint8Array(0x20), 0x100), 0x100);
  t.equal(config.read(0x100, 4), 0x2001_0001, "a later capability takes the null one's place and keeps its link");
  t.throws(() => config.addExtendedCapability(0x02, 1, new Uint8Array(8), 0x204), RangeError);
  t.throws(() => new ConfigSpace("old", 256).addExtendedCapability(0x02, 1, new Uint8Array(8)), RangeError);
});

t.test("ConfigSpace.restore() undoes guest writes and nothing else", async (t) => {
  const config = new ConfigSpace("disk", 256);
  config.set8(0x3c, 17);
  config.set16(0x06, 0x1000);
  config.capture();
  config.write(0x04, 2, 0x0007);
  config.write(0x06, 2, 0x1000);
  config.write(0x3c, 1, 99);
  config.set8(0x44, 0x5a);
  config.restore();
  t.equal(config.read(0x04, 4), 0x1000_0000);
  t.equal(config.read(0x3c, 1), 17);
  t.equal(config.read(0x44, 1), 0x5a);
});

t.test("ConfigSpace.image() shows what the guest would read", async (t) => {
  const config = new ConfigSpace("disk", 256);
  config.setIdentity(identity);
  config.overlay(0x70, 1, { read: () => 0x5a });
  const image = config.image();
  t.equal(image.length, 256);
  t.same([...image.subarray(0, 4)], [0xf4, 0x1a, 0x42, 0x10]);
  t.equal(image[0x70], 0x5a);
});

t.test("ConfigSpace.peek() shows the bytes without reading what lives elsewhere", async (t) => {
  const config = new ConfigSpace("disk", 256);
  config.set32(0x40, 0x4433_2211);
  let reads = 0;
  const read = (): number => ++reads;
  config.overlay(0x40, 2, { read });
  config.overlay(0x42, 1, { read, peek: (offset) => offset });
  t.same([...config.peek().subarray(0x40, 0x44)], [0x11, 0x22, 0x42, 0x44]);
  t.equal(reads, 0);
});
