import t from "tap";
import { type FakeDevice, FakeDeviceBackend } from "../../support/fake-device-backend.ts";
import { E1000E, NVME, SD_HOST } from "../../support/fake-devices.ts";
import { PassthroughBench } from "../../support/fake-passthrough-host.ts";
import { pciImage, pmCapability } from "../../support/pci-image.ts";
import { randomNumbers } from "../../support/random-numbers.ts";

t.test("PassthroughFunction shows the device's identity and its own list of capabilities", async (t) => {
  const bench = new PassthroughBench(NVME);
  t.equal(bench.read(0x00, 4), 0x0010_1b36);
  t.equal(bench.read(0x08, 4), 0x0108_0200);
  t.equal(bench.capability(0x11), 0x40);
  t.equal(bench.capability(0x10), 0x80);
  t.equal(bench.capability(0x01), 0x60);
});

t.test(
  "PassthroughFunction shows an endpoint as integrated into the root complex where the user wants it, without a link",
  async (t) => {
    const bench = new PassthroughBench(NVME, { express: "integrated" });
    const express = bench.capability(0x10) ?? 0;
    t.equal(bench.read(express + 2, 2), 0x0092, "version 2, type 9");
    t.equal(bench.read(express + 4, 4), 0x1000_8fe2, "device capabilities stay, function-level reset too");
    t.equal(bench.read(express + 12, 4), 0, "link capabilities");
    t.equal(bench.read(express + 16, 4), 0, "link control and status");
    t.equal(bench.read(express + 36, 4), 0x0000_0012, "device capabilities 2 without LTR and OBFF");
    t.equal(bench.read(express + 44, 4), 0, "link capabilities 2");
  },
);

t.test("PassthroughFunction walks extended capabilities past hidden ones", async (t) => {
  const bench = new PassthroughBench(NVME);
  const found: [number, number][] = [];
  for (let at = 0x100; at >= 0x100; at = bench.read(at, 4) >>> 20) found.push([bench.read(at, 2), at]);
  t.same(found, [
    [0x0000, 0x100], // where AER was
    [0x0003, 0x148],
    [0x000b, 0x1a0],
  ]);
  t.equal(bench.read(0x104, 4), 0, "AER's registers are gone");
  t.equal(bench.read(0x164, 4), 0, "SR-IOV's registers are gone");
  t.equal(bench.read(0x12c, 4), 0xeeee_eeee, "what lies behind AER is the device's");
  t.equal(bench.read(0x14c, 4), 0x1122_3344, "the serial number is there");
  t.same(
    bench.function.summary().hiddenCapabilities.map((capability) => capability.name),
    ["advanced error reporting", "single root I/O virtualization"],
  );
});

t.test(
  "PassthroughFunction forwards vendor-specific and device-specific bytes, of any width, and nothing else",
  async (t) => {
    const bench = new PassthroughBench(E1000E);
    bench.host.takeLog();
    bench.write(0x44, 1, 0xab);
    bench.write(0xe6, 2, 0xbeef);
    t.same(bench.host.takeLog(), ["write config 0x44/1 = 0xab", "write config 0xe6/2 = 0xbeef"]);
    bench.backend.config.setUint32(0x48, 0x1234_5678, true);
    t.equal(bench.read(0x48, 4), 0x1234_5678, "reads are live");
    bench.write(0x00, 4, 0);
    bench.write(0x10, 4, 0xc100_0000);
    bench.write(0xa4, 4, 0);
    t.same(bench.host.takeLog(), [], "identity, BARs and the MSI-X table's place stay ours");
  },
);

t.test("PassthroughFunction asks the device for no header register that the host or firmware sets", async (t) => {
  const bench = new PassthroughBench(NVME);
  const before = bench.function.summary().forwardedConfigAccesses;
  for (const offset of [0x00, 0x0c, 0x10, 0x14, 0x34, 0x3c, 0x40, 0x44, 0x48]) bench.read(offset, 4);
  t.equal(bench.function.summary().forwardedConfigAccesses, before);
  bench.backend.config.setUint16(0x06, 0x0018, true); // interrupt pending, capability list
  t.equal(bench.read(0x06, 2), 0x0018);
  t.equal(bench.read(0x04, 4), 0x0018_0000);
  t.equal(bench.function.summary().forwardedConfigAccesses, before + 3, "two registers, two accesses");
});

t.test("PassthroughFunction clears the capability bit of the status when it shows no capability", async (t) => {
  const image = SD_HOST.image.slice();
  image[0x06] = 0x10;
  image[0x34] = 0x40;
  image[0x40] = 0x08; // HyperTransport
  const bench = new PassthroughBench({ ...SD_HOST, image });
  t.equal(bench.read(0x06, 2) & 0x10, 0);
  t.equal(bench.read(0x34, 1), 0);
});

t.test("PassthroughFunction keeps the pin of a function with INTx and hides that of one without", async (t) => {
  t.equal(new PassthroughBench(SD_HOST).read(0x3d, 1), 2, "INTB");
  t.equal(new PassthroughBench({ ...SD_HOST, interrupts: {} }).read(0x3d, 1), 0);
});

t.test("PassthroughFunction hides MSI-X that the host has no vectors for or that does not fit its BAR", async (t) => {
  const noVectors = new PassthroughBench({ ...NVME, interrupts: { intx: { count: 1 } } });
  t.equal(noVectors.capability(0x11), undefined);
  t.match(noVectors.host.reports, [/MSI-X is not shown/]);
  const tooMany = new PassthroughBench({ ...NVME, interrupts: { msix: { count: 2048 } } });
  t.equal(tooMany.capability(0x11), undefined);
});

t.test("PassthroughFunction's peek shows live registers as they were read last, and asks no device", async (t) => {
  const bench = new PassthroughBench(NVME);
  const power = (bench.capability(0x01) ?? 0) + 4;
  const live = (): number => new DataView(bench.function.config.peek().buffer).getUint16(power, true);
  const atStart = bench.backend.config.getUint16(power, true);
  t.equal(live(), atStart);
  bench.backend.config.setUint16(power, atStart | 0x8000, true);
  const before = bench.function.summary().forwardedConfigAccesses;
  t.equal(live(), atStart, "the guest has not looked yet");
  t.equal(bench.function.summary().forwardedConfigAccesses, before);
  t.equal(bench.read(power, 2), atStart | 0x8000);
  t.equal(live(), atStart | 0x8000);
});

t.test("PassthroughFunction reads COMMAND from the device and hands it every write of it", async (t) => {
  const bench = new PassthroughBench(NVME);
  bench.write(0x04, 2, 0x0406);
  bench.backend.vfioConfig.resetByBackDoor();
  t.equal(bench.read(0x04, 2), 0x0400, "as the device has it; INTx disable is the host's word");
  bench.host.takeLog();
  bench.write(0x04, 2, 0x0406);
  t.same(bench.host.takeLog(), ["write config 0x4/2 = 0x406"], "no slot comes or goes");
  t.equal(bench.read(0x04, 2), 0x0406);
  bench.write(0x04, 1, 0x06);
  t.same(bench.host.takeLog(), ["write config 0x4/2 = 0x406"], "a byte, too");
});

t.test("PassthroughFunction lets the host restore decode and BARs after a reset by a back door", async (t) => {
  const bench = new PassthroughBench(NVME);
  bench.write(0x04, 2, 0x0006);
  const address = bench.barAddress(0) + 0x3108; // in the page of the pending bits
  bench.backend.memory.get(0)?.setUint32(0x3108, 0xcafe_f00d, true);
  t.equal(bench.host.mmio.read(address, 4), 0xcafe_f00d);
  bench.backend.vfioConfig.resetByBackDoor();
  t.equal(bench.host.mmio.read(address, 4), 0xffff_ffff, "no device answers");
  bench.write(0x04, 4, 0x0006);
  t.equal(bench.backend.vfioConfig.restores, 1);
  t.equal(bench.host.mmio.read(address, 4), 0xcafe_f00d);
});

t.test("PassthroughFunction leaves it to the device which bits of COMMAND it has", async (t) => {
  const bench = new PassthroughBench(NVME);
  bench.write(0x04, 2, 0xffff);
  t.equal(bench.backend.config.getUint16(0x04, true), 0x03ff, "INTx disable is virtual");
});

t.test("PassthroughFunction reads class, revision and subsystem from the device", async (t) => {
  const bench = new PassthroughBench(NVME);
  bench.host.takeLog();
  // bnxt_en polls the subsystem id for the end of a firmware reset.
  bench.backend.config.setUint32(0x2c, 0xffff_ffff, true);
  bench.backend.config.setUint8(0x08, 0x42);
  t.equal(bench.read(0x2e, 2), 0xffff);
  t.equal(bench.read(0x08, 4), 0x0108_0242);
  bench.write(0x08, 4, 0);
  bench.write(0x2c, 4, 0);
  t.same(bench.host.takeLog(), [], "they cannot be written");
});

t.test("PassthroughFunction hands on registers beyond 0x100 that no capability has", async (t) => {
  const bench = new PassthroughBench(NVME);
  bench.backend.config.setUint32(0x724, 0xcafe_f00d, true);
  bench.backend.config.setUint32(0x814, 0x1234_5678, true);
  t.equal(bench.read(0x724, 4), 0xcafe_f00d, "RTS525A's board settings");
  t.equal(bench.read(0x814, 4), 0x1234_5678);
  bench.host.takeLog();
  bench.write(0x70f, 1, 0x27);
  bench.write(0x890, 2, 0xbeef);
  t.same(bench.host.takeLog(), ["write config 0x70f/1 = 0x27", "write config 0x890/2 = 0xbeef"]);
});

t.test("PassthroughFunction shortens capabilities that reach into each other, and shows what is whole", async (t) => {
  const image = E1000E.image.slice();
  // MSI with masks at 0xd0, of 24 bytes, with power management 16 bytes behind it.
  image.set([0x05, 0xe0, 0x80, 0x01], 0xd0);
  image.set([0x01, 0xa0, 0x03, 0x00], 0xe0);
  image[0x34] = 0xd0;
  const short = new PassthroughBench({ ...E1000E, image, interrupts: { ...E1000E.interrupts, msi: { count: 1 } } });
  t.equal(short.read(0xd2, 2), 0x0080, "MSI without masks");
  t.equal(short.capability(0x01), 0xe0);
  image[0xd1] = 0xd8;
  image.set([0x01, 0xa0, 0x03, 0x00], 0xd8);
  const inside = new PassthroughBench({ ...E1000E, image, interrupts: { ...E1000E.interrupts, msi: { count: 1 } } });
  t.equal(inside.capability(0x05), undefined);
  t.equal(inside.capability(0x01), 0xd8);
  t.match(inside.host.reports, [/MSI is not shown: another capability begins 8 bytes behind its start/]);
});

t.test("PassthroughFunction takes whatever a list of capabilities says", async () => {
  const random = randomNumbers(7);
  const ids = [0x01, 0x03, 0x05, 0x05, 0x09, 0x10, 0x11, 0x11, 0x13, 0x14, 0x77];
  for (let round = 0; round < 500; round++) {
    const image = NVME.image.slice();
    for (let at = 0x40; at < 0x100; at++) image[at] = random(256);
    let link = 0x34;
    for (let count = 1 + random(8); count > 0; count--) {
      const at = 0x40 + 4 * random(0x30);
      image[link] = at;
      image[at] = ids[random(ids.length)] ?? 0;
      link = at + 1;
    }
    for (let at = 0x100; at < 0x400; at += 4) if (random(3) === 0) image[at] = random(0x30);
    const interrupts = { intx: { count: 1 }, msi: { count: 4 }, msix: { count: 16 } };
    const bench = new PassthroughBench({ ...NVME, image, interrupts });
    bench.function.close();
  }
});

t.test("PassthroughFunction refuses a device that does not answer, with the way back", async (t) => {
  const off = { ...NVME, image: NVME.image.map((byte, at) => (at < 0x04 ? byte : 0xff)) };
  const log: string[] = [];
  const backend = new FakeDeviceBackend(off, log);
  t.throws(() => new PassthroughBench(backend), {
    name: "HostError",
    message:
      /^Cannot use 0000:01:00.0: it does not answer: .* \(echo 1 > .*0000:01:00.0\/remove, then .*rescan; else power the host off/,
  });
  t.same(log, ["close device"], "and gives it back");
});

t.test("PassthroughFunction shows an endpoint as it is on the host, with its link", async (t) => {
  const bench = new PassthroughBench(NVME);
  const express = bench.capability(0x10) ?? 0;
  t.equal(bench.read(express + 2, 2), 0x0002, "version 2, an endpoint");
  t.equal(bench.read(express + 12, 4), 0x0041_0843, "link capabilities");
  t.equal(bench.read(express + 16, 4), 0x1043_0040, "link control and status");
  bench.backend.config.setUint16(express + 18, 0x1041, true);
  t.equal(bench.read(express + 18, 2), 0x1041, "the speed as it is now");
  bench.host.takeLog();
  bench.write(express + 16, 2, 0x0003);
  t.same(bench.host.takeLog(), [], "the link is the host's");
});

/** An Intel GPU as its host's firmware has set it up. */
function intelGraphics(deviceId: number, name = "0000:00:02.0"): FakeDevice {
  const image = pciImage({
    ...{ vendorId: 0x8086, deviceId, classCode: 0x03_0000, barFlags: [4, 0] },
    capabilities: [pmCapability(0xd0)],
  });
  const view = new DataView(image.buffer);
  view.setUint16(0x50, 0x02c9, true); // GMS, GGMS and flags
  view.setUint32(0x5c, 0x7c80_0001, true);
  view.setUint32(0xc0, 0x7c80_0001, true);
  view.setUint32(0xc4, 0x0000_0001, true);
  view.setUint32(0xfc, 0x7a5e_3018, true);
  return { name, image, regions: [{ index: 0, sizeBytes: 0x100_0000 }], interrupts: { msi: { count: 1 } } };
}

t.test("PassthroughFunction shows no host address of an Intel GPU", async (t) => {
  const skylake = new PassthroughBench(intelGraphics(0x1912));
  t.equal(skylake.read(0x50, 2), 0x00c9, "GMS is 0, the size of the GTT stays");
  t.equal(skylake.read(0x5c, 4), 0, "BDSM");
  t.equal(skylake.read(0xc0, 4), 0x7c80_0001, "no such register before generation 11");
  t.equal(skylake.read(0xfc, 4), 0, "ASLS");
  t.match(skylake.host.reports, [/^warn: 0000:00:02.0 is the processor's GPU: rendering, video and compute work/]);
  skylake.host.takeLog();
  for (const at of [0x50, 0x5c, 0xfc]) skylake.write(at, 4, 0xffff_ffff);
  t.same(
    skylake.host.takeLog().filter((line) => !line.startsWith("write config 0x52/2")),
    [],
    "none of them can be written",
  );
  t.equal(skylake.read(0xfc, 4), 0);

  const alderLake = new PassthroughBench(intelGraphics(0x4680));
  t.same([alderLake.read(0xc0, 4), alderLake.read(0xc4, 4)], [0, 0], "BDSM of 64 bits");
  t.equal(alderLake.read(0x5c, 4), 0x7c80_0001);
  const haswell = new PassthroughBench(intelGraphics(0x0412));
  t.equal(haswell.read(0x50, 2), 0x0201, "GMS in bits 7:3");

  const card = new PassthroughBench(intelGraphics(0x56a0, "0000:03:00.0"));
  t.equal(card.read(0xfc, 4), 0x7a5e_3018, "a card of the same vendor is any device");
  t.same(card.host.reports, []);
});
