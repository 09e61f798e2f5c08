import t, { type Test } from "tap";
import { fd, gpa, hva } from "../../../../../src/base/units.ts";
import { libc } from "../../../../../src/host/libc.ts";
import { FunctionFacts } from "../../../../../src/host-pci/functions.ts";
import { GroupSource } from "../../../../../src/vfio/group-source.ts";
import { HostFunctions } from "../../../../../src/vmm/device/passed/host-functions.ts";
import type { DmaMemory } from "../../../../../src/vmm/device/passed/ram-dma.ts";
import type { ResolvedDevice } from "../../../../../src/vmm/shared/resolved-machine.ts";
import { FakePassthroughHost } from "../../../../support/fake-passthrough-host.ts";
import { fakeSysfs, type SysfsFunction } from "../../../../support/fake-sysfs.ts";
import { FakeVfioKernel, type KernelDevice } from "../../../../support/fake-vfio-kernel.ts";

const FUNCTIONS: readonly SysfsFunction[] = [
  { bdf: "0000:01:00.0", driver: "vfio-pci", group: 7 },
  { bdf: "0000:01:00.1", driver: "vfio-pci", group: 7 },
  { bdf: "0000:02:00.0", driver: "vfio-pci", group: 9 },
  { bdf: "0000:01:00.4", driver: "vfio-pci", group: 11, physfn: "0000:01:00.0" },
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
  readonly steps: readonly string[];
  open(): HostFunctions;
}

/** No guest RAM: what is in the container's addresses is the devices' own. */
const NO_MEMORY: DmaMemory = { regions: [], sizeBytes: 0, hostAddress: () => undefined };

function setUp(
  t: Test,
  bdfs: readonly string[],
  kernelDevices?: readonly KernelDevice[],
  memory: DmaMemory = NO_MEMORY,
  choice: Pick<ResolvedDevice, "p2p"> = {},
): Opening {
  const sysfs = fakeSysfs(t.testdir(), FUNCTIONS);
  const facts = new FunctionFacts();
  const kernel = new FakeVfioKernel(
    kernelDevices ?? [device("0000:01:00.0", 7), device("0000:01:00.1", 7), device("0000:02:00.0", 9)],
  );
  const host = new FakePassthroughHost();
  const events: string[] = [];
  const steps: string[] = [];
  const devices = bdfs.flatMap((bdf): readonly ResolvedDevice[] => {
    const path = sysfs.path(bdf);
    const found = facts.at(path);
    return found === undefined
      ? []
      : [{ id: `id-${bdf}`, path, bars: "map", excludedMmapBars: [], host: found, ...choice }];
  });
  const files = { addFile: () => kernel.log.push("kvm add"), removeFile: () => kernel.log.push("kvm remove") };
  return {
    kernel,
    host,
    events,
    steps,
    open: () => {
      const functions = devices.map((one) => one.host);
      return new HostFunctions({
        devices,
        source: GroupSource.open(kernel, functions, host.report, files),
        memory,
        host,
        defer: () => undefined,
        onError: (id) => events.push(`error ${id}`),
        onRequest: (id) => events.push(`request ${id}`),
        onStep: (text, allowanceSeconds) => steps.push(`${text}: ${allowanceSeconds} s`),
      });
    },
  };
}

t.test("HostFunctions attaches every group before it opens the first device", async (t) => {
  const { kernel, open } = setUp(t, ["0000:01:00.0", "0000:01:00.1", "0000:02:00.0"]);
  const { passed } = open();
  t.same(
    passed.map((one) => one.function.name),
    ["0000:01:00.0", "0000:01:00.1", "0000:02:00.0"],
  );
  const firstDevice = kernel.log.indexOf("open 0000:01:00.0");
  t.equal(kernel.log.filter((line) => line === "kvm add").length, 2);
  t.ok(kernel.log.lastIndexOf("kvm add") < firstDevice);
});

t.test("HostFunctions lets devices of different slots reach each other's BARs by DMA", async (t) => {
  const file = libc.memfdCreate("BAR", 0);
  libc.ftruncate(file, 0x1000);
  t.teardown(() => libc.close(fd(file)));
  const mappable = (bdf: string, group: number): KernelDevice => ({
    ...device(bdf, group),
    regions: [{ size: 0x1000, flags: 7 }, ...new Array(6).fill({ size: 0, flags: 0 }), { size: 256, flags: 3 }],
    file,
  });
  for (const [bdfs, count, choice] of [
    [["0000:01:00.0"], 0],
    [["0000:01:00.0", "0000:01:00.1"], 0], // a graphics card and its sound
    [["0000:01:00.0", "0000:02:00.0"], 1],
    [["0000:01:00.0", "0000:01:00.1", "0000:02:00.0"], 1],
    [["0000:01:00.0", "0000:01:00.4"], 1], // a virtual function: its slot is arithmetic
    [["0000:01:00.0", "0000:02:00.0"], 0, { p2p: false }],
    [["0000:01:00.0", "0000:01:00.1"], 1, { p2p: true }],
    [["0000:01:00.0"], 0, { p2p: true }],
  ] as const satisfies readonly (readonly [readonly string[], number, Pick<ResolvedDevice, "p2p">?])[]) {
    const others = [device("0000:01:00.1", 7), device("0000:02:00.0", 9), device("0000:01:00.4", 11)];
    const { kernel, host, open } = setUp(t, bdfs, [mappable("0000:01:00.0", 7), ...others], undefined, choice);
    const opened = open();
    opened.passed[0]?.function.barPlaced(0, gpa(0xc000_0000));
    t.same(
      host.takeLog().filter((line) => line.startsWith("slot")),
      ["slot BAR 0 of 0000:01:00.0 at 0xc0000000+0x1000"],
    );
    t.equal(kernel.mappings.size, count, bdfs.join(" "));
    if (count > 0) t.equal(kernel.mappings.get(0xc000_0000)?.[1], 0x1000);
    opened.close();
    t.equal(kernel.mappings.size, 0);
  }
});

t.test("HostFunctions tells which device an event is of", async (t) => {
  const { host, events, open } = setUp(t, ["0000:01:00.0", "0000:02:00.0"]);
  open();
  for (const ring of host.watched.values()) ring();
  t.same(events, ["request id-0000:01:00.0", "request id-0000:02:00.0"]);
});

t.test("HostFunctions gives everything back when a device cannot be opened", async (t) => {
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

t.test("HostFunctions gives everything back when guest RAM cannot be mapped", async (t) => {
  const memory: DmaMemory = {
    regions: [{ gpa: gpa(0), sizeBytes: 0x20_0000, fileOffset: 0 }],
    sizeBytes: 0x20_0000,
    hostAddress: () => hva(0x7f00_0000_0000),
  };
  const { kernel, host, open } = setUp(t, ["0000:01:00.0"], undefined, memory);
  kernel.failures.set(0x3b71, 12);
  t.throws(open, /Cannot map guest RAM for DMA at 0x0: VFIO_IOMMU_MAP_DMA failed with ENOMEM/);
  t.same(kernel.log.slice(-5), [
    "close 0000:01:00.0",
    "kvm remove",
    "unset container of group 7",
    "close group 7",
    "close container",
  ]);
  t.equal(host.watched.size, 0);
});

/** Two functions on one bus, in a group each, that can only be reset together. */
const ONE_BUS: readonly KernelDevice[] = [
  ["0000:01:00.0", 7],
  ["0000:02:00.0", 9],
].map(([bdf, group]) => ({
  ...device(String(bdf), Number(group)),
  flags: 2,
  resetSet: [
    ["0000:01:00.0", 7],
    ["0000:02:00.0", 9],
  ],
}));

t.test("HostFunctions.close() resets the bus between the last use and the close of its functions", async (t) => {
  const { kernel, open } = setUp(t, ["0000:01:00.0", "0000:02:00.0"], ONE_BUS);
  const opened = open();
  kernel.log.length = 0;
  opened.close();
  t.same(kernel.log, [
    "reset bus of 0000:01:00.0 with groups 7 9",
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
});

t.test("PassedFunction.release() gives back one function with its group while the others go on", async (t) => {
  const { kernel, host, open } = setUp(t, ["0000:01:00.0", "0000:01:00.1", "0000:02:00.0"]);
  const opened = open();
  const [card, sound, network] = opened.passed;
  kernel.log.length = 0;
  network?.release();
  t.same(kernel.log, ["close 0000:02:00.0", "kvm remove", "unset container of group 9", "close group 9"]);
  t.equal(host.watched.size, 2, "the other ones' events are still watched");
  network?.release();
  t.equal(kernel.log.length, 4, "once");
  card?.release();
  t.same(kernel.log.slice(4), ["close 0000:01:00.0"], "its group has another function");
  sound?.release();
  opened.close();
  t.equal(kernel.log.at(-1), "close container");
  t.notOk(host.reports.some((line) => line.startsWith("warn")));
});

t.test("HostFunctions.close() tells each step that the kernel may take long for", async (t) => {
  const { steps, open } = setUp(t, ["0000:01:00.0", "0000:02:00.0"]);
  const functions = open();
  t.same(steps, []);
  functions.close();
  t.same(steps, [
    "buses are reset: 150 s",
    "the kernel resets 0000:02:00.0 and takes it back: 150 s",
    "the kernel resets 0000:01:00.0 and takes it back: 150 s",
    "guest RAM leaves the IOMMU: 0 s",
  ]);
});
