import fs, { mkdirSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { basename, dirname, join } from "node:path";
import t, { type Test } from "tap";
import { FunctionFacts, type HostFunction } from "../../../../src/host-pci/functions.ts";
import { askIovaRanges, resolveMachine } from "../../../../src/vmm/control/passthrough-checks.ts";
import type { MachineSpec } from "../../../../src/vmm/spec/spec.ts";
import { completeSpec } from "../../../../src/vmm/spec/spec-check.ts";
import { fakeSysfs } from "../../../support/fake-sysfs.ts";
import { FakeVfioKernel } from "../../../support/fake-vfio-kernel.ts";

const FUNCTIONS = [
  { bdf: "0000:01:00.0", driver: "vfio-pci", group: 7 },
  { bdf: "0000:01:00.1", driver: "vfio-pci", group: 7 },
  { bdf: "0000:02:00.0", driver: "vfio-pci", group: 9 },
];

function functionsOf(t: Test): readonly HostFunction[] {
  const sysfs = fakeSysfs(t.testdir(), FUNCTIONS);
  const facts = new FunctionFacts();
  return FUNCTIONS.map(({ bdf }) => facts.at(sysfs.path(bdf))).filter((found) => found !== undefined);
}

const kernelOf = (): FakeVfioKernel =>
  new FakeVfioKernel(FUNCTIONS.map(({ bdf, group }) => ({ bdf, group, flags: 3, regions: [], irqs: [] })));

t.test("askIovaRanges() asks with all groups in one container and holds nothing afterwards", async (t) => {
  const kernel = kernelOf();
  const ranges = askIovaRanges(functionsOf(t), () => t.fail("nothing is to be reported"), kernel);
  t.same(ranges, [
    { start: 0, end: 0xfedf_ffff },
    { start: 0xfef0_0000, end: 0x7f_ffff_ffff },
  ]);
  t.same(kernel.log, [
    "open /dev/vfio/vfio",
    "open /dev/vfio/7",
    "set container of group 7",
    "set iommu 3",
    "open /dev/vfio/9",
    "set container of group 9",
    "unset container of group 7",
    "close group 7",
    "unset container of group 9",
    "close group 9",
    "close container",
  ]);
});

t.test("askIovaRanges() opens the devices where iommufd tells their addresses only then", async (t) => {
  const kernel = kernelOf();
  kernel.isIommufd = true;
  const ranges = askIovaRanges(functionsOf(t), () => t.fail("nothing is to be reported"), kernel);
  t.same(ranges, [
    { start: 0, end: 0xfedf_ffff },
    { start: 0xfef0_0000, end: 0x7f_ffff_ffff },
  ]);
  t.same(
    kernel.log.filter((line) => /^(open|close) (0000|container)/.test(line)),
    [
      ...["open 0000:01:00.0", "open 0000:01:00.1", "open 0000:02:00.0"],
      ...["close 0000:01:00.0", "close 0000:01:00.1", "close 0000:02:00.0", "close container"],
    ],
  );
});

t.test("askIovaRanges() gives everything back when a group cannot be taken", async (t) => {
  const kernel = kernelOf();
  kernel.notViable.add(9);
  t.throws(() => askIovaRanges(functionsOf(t), () => undefined, kernel), /Cannot take IOMMU group 9/);
  t.equal(kernel.log.at(-1), "close container");
  t.equal(kernel.log.filter((line) => line.startsWith("close group")).length, 2);
});

/** A machine with these functions; any file will do for its kernel. */
const machineOf = (paths: readonly string[]): MachineSpec => ({
  ...completeSpec({ kernel: process.execPath }),
  devices: paths.map((path) => ({ id: basename(path), path, bars: "map", excludedMmapBars: [] })),
});

/** Counts how often each file was read, by all code of this process, until the test ends. */
function countReads(t: Test): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  const { readFileSync } = fs;
  const counting: unknown = (path: string, ...rest: readonly []): unknown => {
    counts.set(path, (counts.get(path) ?? 0) + 1);
    return readFileSync(path, ...rest);
  };
  // Cast: it is called as the function it stands for.
  fs.readFileSync = counting as typeof readFileSync;
  syncBuiltinESMExports();
  t.teardown(() => {
    fs.readFileSync = readFileSync;
    syncBuiltinESMExports();
  });
  return counts;
}

t.test("resolveMachine() and the checks before a start read each function's directory once", async (t) => {
  const root = fakeSysfs(t.testdir(), FUNCTIONS);
  for (const node of ["vfio", "7", "9"]) writeFileSync(join(root.dev, "vfio", node), "");
  for (const module of ["module/vfio_iommu_type1", "bus/pci/drivers/vfio-pci"]) {
    mkdirSync(join(root.sys, module), { recursive: true });
  }
  const reads = countReads(t);
  const spec = machineOf(FUNCTIONS.map(({ bdf }) => root.path(bdf)));
  const machine = resolveMachine(spec, new FunctionFacts(), {
    root,
    memoryLock: { limitBytes: 0, isUnlimited: true },
  });
  const hosts = machine.devices.map(({ host }) => host);
  askIovaRanges(hosts, () => undefined, kernelOf());
  t.same(
    machine.devices.map(({ id, host }) => [id, host.bdf, host.group]),
    FUNCTIONS.map(({ bdf, group }) => [bdf, bdf, group]),
  );
  const ofFunctions = [...reads].filter(([path]) => FUNCTIONS.some(({ bdf }) => basename(dirname(path)) === bdf));
  t.ok(ofFunctions.length > FUNCTIONS.length, "their files are seen");
  t.same(
    ofFunctions.filter(([, count]) => count !== 1),
    [],
  );
});

t.test("resolveMachine() names a function that cannot be passed through", async (t) => {
  const root = fakeSysfs(t.testdir(), FUNCTIONS);
  const spec = machineOf([root.path("0000:0f:00.0")]);
  t.throws(
    () => resolveMachine(spec, new FunctionFacts(), { root }),
    /Cannot pass .*0000:0f:00.0 through: there is no/,
  );
});

t.test(
  "resolveMachine() keeps every device's memory to itself with vfio_p2p_dma=off, unless it says p2p=on",
  async (t) => {
    const host = fakeSysfs(t.testdir(), FUNCTIONS);
    writeFileSync(join(host.dev, "vfio/vfio"), "");
    for (const { group } of FUNCTIONS) writeFileSync(join(host.dev, `vfio/${group}`), "");
    mkdirSync(join(host.sys, "module/vfio_iommu_type1"), { recursive: true });
    mkdirSync(join(host.sys, "class/iommu/dmar0"), { recursive: true });
    const machine = machineOf(FUNCTIONS.map(({ bdf }) => host.path(bdf)));
    const devices = machine.devices.map((device, index) => (index === 1 ? { ...device, p2p: true } : device));
    const p2p = (vfioP2pDma: boolean): readonly (boolean | undefined)[] =>
      resolveMachine({ ...machine, devices, platform: { vfioP2pDma } }, new FunctionFacts(), {
        root: host,
        memoryLock: { limitBytes: 0, isUnlimited: true },
      }).devices.map((device) => device.p2p);
    t.same(p2p(true), [undefined, true, undefined]);
    t.same(p2p(false), [false, true, false]);
  },
);
