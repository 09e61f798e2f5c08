import t from "tap";
import { withRom } from "../../../src/passthrough/rom.ts";
import { FakeDeviceBackend } from "../../support/fake-device-backend.ts";
import { E1000E, NVME } from "../../support/fake-devices.ts";

const ROM = 6;

t.test("withRom() leaves a device its own ROM without another", async (t) => {
  const device = new FakeDeviceBackend(E1000E);
  t.equal(withRom(device, undefined), device);
});

t.test("withRom() takes a device's ROM away, and nothing else", async (t) => {
  const device = new FakeDeviceBackend(E1000E);
  const without = withRom(device, "none");
  t.equal(device.region(ROM)?.sizeBytes, 0x4_0000);
  t.equal(without.region(ROM), undefined);
  t.equal(without.readRegion(ROM, 0, 4), undefined);
  t.same(without.region(0), device.region(0));
  t.equal(without.readRegion(7, 0, 4), 0x10d3_8086);
  without.close();
  t.ok(device.isClosed);
});

t.test("withRom() shows an image, grown to a power of two, to a device without a ROM too", async (t) => {
  const image = Buffer.concat([Buffer.from([0x55, 0xaa, 0x08]), Buffer.alloc(4096)]);
  const device = withRom(new FakeDeviceBackend(NVME), image);
  t.match(device.region(ROM), { index: ROM, sizeBytes: 8192, isReadable: true, isWritable: false, mappableAreas: [] });
  t.equal(device.readRegion(ROM, 0, 4), 0x0008_aa55);
  t.equal(device.readRegion(ROM, 1, 2), 0x08aa);
  t.equal(device.readRegion(ROM, 4099, 1), 0xff, "erased flash behind the image");
  t.equal(device.readRegion(ROM, 8190, 4), undefined, "not beyond the region");
  t.equal(device.writeRegion(ROM, 0, 1, 0), false);
  t.equal(device.readRegion(ROM, 0, 1), 0x55);
});
