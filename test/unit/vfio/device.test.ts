import t from "tap";
import { fd, hva } from "../../../src/base/units.ts";
import { libc } from "../../../src/host/libc.ts";
import { planBar } from "../../../src/passthrough/bar-areas.ts";
import type { VfioLibc } from "../../../src/vfio/calls.ts";
import { mappingPlace, VfioDevice } from "../../../src/vfio/device.ts";
import { FakeVfioKernel, type KernelDevice } from "../../support/fake-vfio-kernel.ts";

const TWO_POW_40 = 2 ** 40;
const RW = 3;
const RW_MMAP = 7;

const NIC: KernelDevice = {
  bdf: "0000:01:00.0",
  group: 7,
  flags: 3,
  regions: [
    { size: 0x2_0000, flags: RW_MMAP },
    { size: 0, flags: 0 },
    { size: 0x20, flags: RW },
    {
      size: 0x8000,
      flags: RW_MMAP,
      sparse: [
        [0, 0x4000],
        [0x7000, 0x1000],
      ],
      isMsixMappable: true,
    },
    { size: 0x4000, flags: RW_MMAP, isMsixMappable: true },
    { size: 0, flags: 0 },
    { size: 0x1_0000, flags: 1 },
    { size: 0x1000, flags: RW },
    undefined, // VGA
  ],
  // INTx: eventfd, maskable, automasked. MSI: eventfd, not resizable. MSI-X: eventfd. ERR: none. REQ: eventfd.
  irqs: [[1, 0x7], [4, 0x9], [65, 0x1], undefined, [1, 0x9]],
};

function open(
  device: KernelDevice = NIC,
  methods: readonly string[] = ["flr", "bus"],
): { kernel: FakeVfioKernel; device: VfioDevice } {
  const kernel = new FakeVfioKernel([device]);
  kernel.ioctlStruct(107, 0x3b68, Uint8Array.of(10, 0, 0, 0));
  kernel.ioctl(10, 0x3b66, 3);
  const opened = kernel.ioctlStruct(107, 0x3b6a, new TextEncoder().encode(`${device.bdf}\0`));
  kernel.log.length = 0;
  return { kernel, device: new VfioDevice(kernel, fd(opened), device.bdf, methods) };
}

t.test("VfioDevice reads regions with every sparse area and the MSI-X flag behind them", async (t) => {
  const { device } = open();
  t.match(device.region(0), {
    sizeBytes: 0x2_0000,
    mappableAreas: [{ offset: 0, sizeBytes: 0x2_0000 }],
    isMsixMappable: false,
  });
  t.same(device.region(2)?.mappableAreas, [], "no MMAP flag");
  t.match(device.region(3), {
    mappableAreas: [
      { offset: 0, sizeBytes: 0x4000 },
      { offset: 0x7000, sizeBytes: 0x1000 },
    ],
    isMsixMappable: true,
  });
  t.match(device.region(4), { mappableAreas: [{ offset: 0, sizeBytes: 0x4000 }], isMsixMappable: true });
  t.match(device.region(6), { sizeBytes: 0x1_0000, isReadable: true, isWritable: false });
  t.equal(device.region(7)?.sizeBytes, 0x1000);
  t.equal(device.region(8), undefined);
});

t.test("VfioDevice keeps the regions' numbers when the kernel does not know one", async (t) => {
  const { device } = open({ ...NIC, regions: [undefined, ...NIC.regions.slice(1)] });
  t.equal(device.region(0), undefined);
  t.equal(device.region(2)?.sizeBytes, 0x20);
});

t.test("VfioDevice reads what interrupts there are", async (t) => {
  const { device } = open();
  t.same(device.interrupt("intx"), { count: 1, canGrow: true, isAutomasked: true });
  t.same(device.interrupt("msi"), { count: 4, canGrow: false, isAutomasked: false });
  t.same(device.interrupt("msix"), { count: 65, canGrow: true, isAutomasked: false });
  t.equal(device.interrupt("error").count, 0);
  t.equal(device.interrupt("request").count, 1);
});

t.test("VfioDevice reads and writes regions in the given width at region index << 40", async (t) => {
  const { kernel, device } = open();
  t.ok(device.writeRegion(3, 0x10, 4, 0xdead_beef));
  t.ok(device.writeRegion(7, 4, 2, 0x0406));
  t.same(
    [...kernel.bytes],
    [
      [3 * TWO_POW_40 + 0x10, 0xef],
      [3 * TWO_POW_40 + 0x11, 0xbe],
      [3 * TWO_POW_40 + 0x12, 0xad],
      [3 * TWO_POW_40 + 0x13, 0xde],
      [7 * TWO_POW_40 + 4, 0x06],
      [7 * TWO_POW_40 + 5, 0x04],
    ],
  );
  t.equal(device.readRegion(3, 0x10, 4), 0xdead_beef);
  t.equal(device.readRegion(3, 0x12, 2), 0xdead);
  t.equal(device.readRegion(3, 0x11, 1), 0xbe);
});

t.test("VfioDevice answers nothing when the device does not, and outside its regions", async (t) => {
  const { kernel, device } = open();
  t.equal(device.readRegion(2, 0x1e, 4), undefined);
  t.notOk(device.writeRegion(1, 0, 4, 0));
  t.equal(device.readRegion(8, 0, 4), undefined);
  kernel.isAnswering = false;
  t.equal(device.readRegion(0, 0, 4), undefined);
  t.notOk(device.writeRegion(0, 0, 4, 0));
});

t.test("VfioDevice encodes interrupt requests as the kernel takes them", async (t) => {
  const { kernel, device } = open();
  device.setTrigger("msix", 0, [fd(5), fd(-1), fd(6)]);
  device.setTrigger("msix", 7, [fd(8)]);
  device.disableInterrupts("msix");
  device.setTrigger("intx", 0, [fd(9)]);
  device.maskIntx();
  device.setIntxResample(fd(11));
  device.unmaskIntx();
  device.disableInterrupts("intx");
  device.setTrigger("msi", 0, [fd(3)]);
  device.setRequestEvent(fd(12));
  t.same(kernel.irqs.calls, [
    "0x24 2 0 3: 5 -1 6",
    "0x24 2 7 1: 8",
    "0x21 2 0 0",
    "0x24 0 0 1: 9",
    "0x9 0 0 1",
    "0x14 0 0 1: 11",
    "0x11 0 0 1",
    "0x21 0 0 0",
    "0x24 1 0 1: 3",
    "0x24 4 0 1: 12",
  ]);
});

t.test(
  "VfioDevice.disableInterrupts() does not ask for a kind the device has not: the kernel would refuse",
  async (t) => {
    const { kernel, device } = open();
    device.disableInterrupts("error");
    t.same(kernel.irqs.calls, []);
  },
);

t.test("VfioDevice.setTrigger() takes fewer vectors than asked for as the refusal it is", async (t) => {
  const { kernel, device } = open();
  kernel.irqs.granted = 2;
  t.throws(
    () => device.setTrigger("msix", 0, [fd(5), fd(6), fd(7)]),
    /Cannot arm 3 msix vectors of 0000:01:00.0: the host has 2 left/,
  );
});

t.test("VfioDevice.reset() names the method, and does nothing without one", async (t) => {
  const { kernel, device } = open();
  t.equal(device.reset(), "flr");
  t.same(kernel.log, ["reset 0000:01:00.0"]);
  t.equal(open(NIC, []).device.reset(), "unknown");
  t.equal(open({ ...NIC, flags: 2 }).device.reset(), false);
});

t.test("VfioDevice closes its descriptor once, also when the device is not one of PCI", async (t) => {
  const { kernel, device } = open();
  device.close();
  device.close();
  t.same(kernel.log, ["close 0000:01:00.0"]);
  t.throws(() => open({ ...NIC, flags: 1 }), /it is not a PCI device/);
});

/** Calls for a device whose file is a real one: questions go to the fake device, reads, writes and mappings to it. */
function mappedFrom(kernel: FakeVfioKernel, bdf: string): VfioLibc {
  kernel.ioctlStruct(107, 0x3b68, Uint8Array.of(10, 0, 0, 0));
  kernel.ioctl(10, 0x3b66, 3);
  const opened = kernel.ioctlStruct(107, 0x3b6a, new TextEncoder().encode(`${bdf}\0`));
  return {
    errno: () => kernel.errno(),
    ioctl: (_fd, request, argument) => kernel.ioctl(opened, request, argument),
    ioctlStruct: (_fd, request, argument) => kernel.ioctlStruct(opened, request, argument),
    open: libc.open,
    close: libc.close,
    pread: libc.pread,
    pwrite: libc.pwrite,
  };
}

t.test("VfioDevice.mapRegion() maps an area of the device's file", async (t) => {
  // A memfd stands for the device: region 0 lies at its start.
  const file = libc.memfdCreate("device", 1);
  t.teardown(() => libc.close(file));
  libc.ftruncate(file, 0x4000);
  libc.pwrite(file, Uint8Array.of(1, 2, 3, 4), 4, 0x2000);
  const device = new VfioDevice(mappedFrom(new FakeVfioKernel([NIC]), NIC.bdf), fd(file), NIC.bdf, []);
  const mapped = device.mapRegion(0, { offset: 0x2000, sizeBytes: 0x100 });
  t.equal(mapped.sizeBytes, 0x1000, "a whole page");
  t.not(mapped.address, hva(0));
  t.same([...new Uint8Array(libc.view(mapped.address, 4))], [1, 2, 3, 4]);
  mapped.unmap();
  mapped.unmap();
  t.throws(() => device.mapRegion(8, { offset: 0, sizeBytes: 0x1000 }), RangeError);
});

t.test("mappingPlace() lets the kernel use huge pages wherever a whole one is in the area", async (t) => {
  const mib = 2 ** 20;
  const gib = 2 ** 30;
  t.same(mappingPlace({ offset: 0, sizeBytes: gib }), { alignment: gib, remainder: 0 });
  t.same(mappingPlace({ offset: 0, sizeBytes: gib / 2 }), { alignment: 2 * mib, remainder: 0 });
  t.same(mappingPlace({ offset: 2 * mib, sizeBytes: gib }), { alignment: 2 * mib, remainder: 0 });
  t.same(mappingPlace({ offset: 2 * mib, sizeBytes: 2 * gib }), { alignment: gib, remainder: 2 * mib });
  t.same(mappingPlace({ offset: 0x3000, sizeBytes: gib }), { alignment: 2 * mib, remainder: 0x3000 });
  t.same(mappingPlace({ offset: 0x3000, sizeBytes: 64 * gib - 0x3000 }), { alignment: gib, remainder: 0x3000 });
  t.same(mappingPlace({ offset: 0x3000, sizeBytes: 2 * mib }), { alignment: 4096, remainder: 0 }, "no whole one");
  t.same(mappingPlace({ offset: 0, sizeBytes: 0x4000 }), { alignment: 4096, remainder: 0 });
});

t.test("VfioDevice.mapRegion() keeps pieces round an MSI-X table congruent to their offsets", async (t) => {
  const gib = 2 ** 30;
  const barBytes = 4 * gib;
  const file = libc.memfdCreate("device", 1);
  t.teardown(() => libc.close(file));
  libc.ftruncate(file, barBytes);
  const gpu: KernelDevice = { ...NIC, regions: [{ size: barBytes, flags: RW_MMAP, isMsixMappable: true }] };
  const device = new VfioDevice(mappedFrom(new FakeVfioKernel([gpu]), gpu.bdf), fd(file), gpu.bdf, []);
  const region = device.region(0);
  const table = { offset: 0x2000, sizeBytes: 0x1000, reason: "MSI-X table" } as const;
  const choice = { bars: "map", isExcluded: false } as const;
  const pieces = region === undefined ? [] : planBar(region, [table], choice).mapped;
  t.same(
    pieces.map(({ offset }) => offset),
    [0, 0x3000],
  );
  for (const piece of pieces) {
    const mapped = device.mapRegion(0, piece);
    t.teardown(() => mapped.unmap());
    // BARs are naturally aligned: a slot at BAR + offset is congruent as well, which is what KVM asks of a huge page.
    if (piece.sizeBytes > gib) t.equal(mapped.address % gib, piece.offset, `the piece at ${piece.offset}`);
  }
});

t.test("VfioDevice reads and writes eight bytes by one call each", async (t) => {
  const { kernel, device } = open();
  t.ok(device.writeWide(3, 0x4010, { low: 0x8899_aabb, high: 0xccdd_eeff }));
  t.same(device.readWide(3, 0x4010), { low: 0x8899_aabb, high: 0xccdd_eeff });
  t.same(kernel.accesses, ["pwrite 8 at 0x30000004010", "pread 8 at 0x30000004010"]);
  t.equal(device.readWide(2, 0x1c), undefined, "beyond its end");
  t.notOk(device.writeWide(2, 0x1c, { low: 0, high: 0 }));
  kernel.isAnswering = false;
  t.equal(device.readWide(3, 0x4010), undefined);
});
