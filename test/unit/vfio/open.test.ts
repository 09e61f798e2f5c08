import t, { type Test } from "tap";
import { fd, gpa } from "../../../src/base/units.ts";
import { libc } from "../../../src/host/libc.ts";
import { openPassthrough } from "../../../src/vfio/open.ts";
import { FakePassthroughHost } from "../../support/fake-passthrough-host.ts";
import { fakeSysfs, type SysfsFunction } from "../../support/fake-sysfs.ts";
import { FakeVfioKernel, type KernelDevice } from "../../support/fake-vfio-kernel.ts";

const FUNCTIONS: readonly SysfsFunction[] = [
  { bdf: "0000:01:00.0", driver: "vfio-pci", group: 7 },
  { bdf: "0000:01:00.1", driver: "vfio-pci", group: 7 },
  { bdf: "0000:02:00.0", driver: "vfio-pci", group: 9 },
];

/** Trapped BAR, INTx and REQ: nothing of it needs a real descriptor. */
const device = (bdf: string, group: number): KernelDevice => ({
  bdf,
  group,
  flags: 3,
  regions: [{ size: 0x1000, flags: 3 }, ...new Array(6).fill({ size: 0, flags: 0 }), { size: 256, flags: 3 }],
  irqs: [[1, 7], [0, 9], [0, 9], undefined, [1, 9]],
});

interface Opening {
  readonly kernel: FakeVfioKernel;
  readonly host: FakePassthroughHost;
  readonly events: string[];
  open(): ReturnType<typeof openPassthrough>;
}

function setUp(t: Test, bdfs: readonly string[], kernelDevices?: readonly KernelDevice[]): Opening {
  const sysfs = fakeSysfs(t.testdir(), FUNCTIONS);
  const kernel = new FakeVfioKernel(
    kernelDevices ?? [device("0000:01:00.0", 7), device("0000:01:00.1", 7), device("0000:02:00.0", 9)],
  );
  const host = new FakePassthroughHost();
  const events: string[] = [];
  const devices = bdfs.map((bdf) => ({
    id: `id-${bdf}`,
    path: sysfs.path(bdf),
    bars: "map" as const,
    excludedMmapBars: [],
  }));
  return {
    kernel,
    host,
    events,
    open: () =>
      openPassthrough({
        libc: kernel,
        devices,
        files: { addFile: () => kernel.log.push("kvm add"), removeFile: () => kernel.log.push("kvm remove") },
        host,
        onError: (failed) => events.push(`error ${failed.id}`),
        onRequest: (wanted) => events.push(`request ${wanted.id}`),
      }),
  };
}

t.test("openPassthrough() attaches every group before it opens the first device", async (t) => {
  const { kernel, open } = setUp(t, ["0000:01:00.0", "0000:01:00.1", "0000:02:00.0"]);
  const { functions } = open();
  t.same(
    functions.map((one) => one.name),
    ["0000:01:00.0", "0000:01:00.1", "0000:02:00.0"],
  );
  const firstDevice = kernel.log.indexOf("open 0000:01:00.0");
  t.equal(kernel.log.filter((line) => line === "kvm add").length, 2);
  t.ok(kernel.log.lastIndexOf("kvm add") < firstDevice);
});

t.test("openPassthrough() lets devices reach each other's BARs by DMA, where there are several", async (t) => {
  const file = libc.memfdCreate("BAR", 0);
  libc.ftruncate(file, 0x1000);
  t.teardown(() => libc.close(fd(file)));
  const mappable = (bdf: string, group: number): KernelDevice => ({
    ...device(bdf, group),
    regions: [{ size: 0x1000, flags: 7 }, ...new Array(6).fill({ size: 0, flags: 0 }), { size: 256, flags: 3 }],
    file,
  });
  for (const [bdfs, count] of [
    [["0000:01:00.0"], 0],
    [["0000:01:00.0", "0000:02:00.0"], 1],
  ] as const) {
    const { kernel, host, open } = setUp(t, bdfs, [mappable("0000:01:00.0", 7), device("0000:02:00.0", 9)]);
    const opened = open();
    opened.functions[0]?.barPlaced(0, gpa(0xc000_0000));
    t.same(
      host.takeLog().filter((line) => line.startsWith("slot")),
      ["slot BAR 0 of 0000:01:00.0 at 0xc0000000+0x1000"],
    );
    t.equal(kernel.mappings.size, count, `${bdfs.length} devices`);
    if (count > 0) t.equal(kernel.mappings.get(0xc000_0000)?.[1], 0x1000);
    opened.close();
    t.equal(kernel.mappings.size, 0);
  }
});

t.test("openPassthrough() tells which device an event is of", async (t) => {
  const { host, events, open } = setUp(t, ["0000:01:00.0", "0000:02:00.0"]);
  open();
  for (const ring of host.watched.values()) ring();
  t.same(events, ["request id-0000:01:00.0", "request id-0000:02:00.0"]);
});

t.test("openPassthrough() gives everything back when a device cannot be opened", async (t) => {
  const { kernel, host, open } = setUp(
    t,
    ["0000:01:00.0", "0000:02:00.0"],
    [device("0000:01:00.0", 7), { ...device("0000:02:00.0", 9), flags: 1 }],
  );
  t.throws(open, /0000:02:00.0: it is not a PCI device/);
  t.same(kernel.log.slice(-9), [
    "close 0000:02:00.0",
    "close 0000:01:00.0",
    "kvm remove",
    "kvm remove",
    "unset container of group 7",
    "close group 7",
    "unset container of group 9",
    "close group 9",
    "close container",
  ]);
  t.equal(host.watched.size, 0);
});

t.test("openPassthrough() opens nothing for a path that is no PCI function's", async (t) => {
  const { kernel, open } = setUp(t, ["0000:0f:00.0"]);
  t.throws(open, /it is not a PCI function's directory/);
  t.same(kernel.log, []);
});
