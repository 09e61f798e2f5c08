import t from "tap";
import { probeIovaRanges } from "../../../src/vfio/iova-probe.ts";
import { fakeSysfs } from "../../support/fake-sysfs.ts";
import { FakeVfioKernel } from "../../support/fake-vfio-kernel.ts";

const FUNCTIONS = [
  { bdf: "0000:01:00.0", driver: "vfio-pci", group: 7 },
  { bdf: "0000:01:00.1", driver: "vfio-pci", group: 7 },
  { bdf: "0000:02:00.0", driver: "vfio-pci", group: 9 },
];
const BDFS = FUNCTIONS.map(({ bdf }) => bdf);
const kernelOf = (): FakeVfioKernel =>
  new FakeVfioKernel(FUNCTIONS.map(({ bdf, group }) => ({ bdf, group, flags: 3, regions: [], irqs: [] })));

t.test("probeIovaRanges() asks with all groups in one container and holds nothing afterwards", async (t) => {
  const sysfs = fakeSysfs(t.testdir(), FUNCTIONS);
  const kernel = kernelOf();
  const ranges = probeIovaRanges(kernel, BDFS.map(sysfs.path), () => t.fail("nothing is to be reported"));
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

t.test("probeIovaRanges() gives everything back when a group cannot be taken", async (t) => {
  const sysfs = fakeSysfs(t.testdir(), FUNCTIONS);
  const kernel = kernelOf();
  kernel.notViable.add(9);
  t.throws(() => probeIovaRanges(kernel, BDFS.map(sysfs.path), () => undefined), /Cannot take IOMMU group 9/);
  t.equal(kernel.log.at(-1), "close container");
  t.equal(kernel.log.filter((line) => line.startsWith("close group")).length, 2);
});
