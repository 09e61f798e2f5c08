import t from "tap";
import { HostError } from "../../../src/base/errors.ts";
import type { VfioFiles } from "../../../src/base/mappings.ts";
import { hva, iova } from "../../../src/base/units.ts";
import { VfioContainer } from "../../../src/vfio/container.ts";
import { FakeVfioKernel, type KernelDevice } from "../../support/fake-vfio-kernel.ts";

const device = (bdf: string, group: number): KernelDevice => ({ bdf, group, flags: 3, regions: [], irqs: [] });
const THREE = [device("0000:01:00.0", 7), device("0000:01:00.1", 7), device("0000:02:00.0", 9)];

function setUp(): { kernel: FakeVfioKernel; files: VfioFiles; reports: string[]; open: () => VfioContainer } {
  const kernel = new FakeVfioKernel(THREE);
  const reports: string[] = [];
  const files: VfioFiles = {
    addFile: (file) => kernel.log.push(`kvm add ${file}`),
    removeFile: (file) => kernel.log.push(`kvm remove ${file}`),
  };
  return {
    kernel,
    files,
    reports,
    open: () => VfioContainer.open(kernel, files, (_level, text) => reports.push(text)),
  };
}

t.test("VfioContainer attaches groups, chooses the IOMMU once and tells KVM before a device is opened", async (t) => {
  const { kernel, open } = setUp();
  const container = open();
  container.attachGroup(7);
  container.attachGroup(7);
  container.attachGroup(9);
  container.openDevice(7, "0000:01:00.0");
  container.openDevice(7, "0000:01:00.1");
  container.openDevice(9, "0000:02:00.0");
  t.same(kernel.log, [
    "open /dev/vfio/vfio",
    "open /dev/vfio/7",
    "set container of group 7",
    "set iommu 3",
    "kvm add 107",
    "open /dev/vfio/9",
    "set container of group 9",
    "kvm add 109",
    "open 0000:01:00.0",
    "open 0000:01:00.1",
    "open 0000:02:00.0",
  ]);
});

t.test("VfioContainer.close() undoes it in the kernel's order, after the devices are closed", async (t) => {
  const { kernel, reports, open } = setUp();
  const container = open();
  container.attachGroup(7);
  container.mapDma("RAM", iova(0), hva(0x7f00_0000_0000), 0x1000_0000);
  const opened = container.openDevice(7, "0000:01:00.0");
  kernel.close(opened);
  kernel.log.length = 0;
  container.close();
  container.close();
  t.same(kernel.log, ["kvm remove 107", "unmap 0x0", "unset container of group 7", "close group 7", "close container"]);
  t.same(reports, []);
});

t.test("VfioContainer.releaseGroup() takes DMA mappings away with the last group, not before", async (t) => {
  const { kernel, reports, open } = setUp();
  const container = open();
  container.attachGroup(7);
  container.attachGroup(9);
  container.mapDma("RAM", iova(0), hva(0x7f00_0000_0000), 0x1000_0000);
  kernel.log.length = 0;
  container.releaseGroup(7);
  container.releaseGroup(7);
  t.same(kernel.log, ["kvm remove 107", "unset container of group 7", "close group 7"]);
  t.equal(container.mappedBytes, 0x1000_0000, "the other group's devices go on");
  container.releaseGroup(9);
  container.close();
  t.same(kernel.log.slice(3), [
    "kvm remove 109",
    "unmap 0x0",
    "unset container of group 9",
    "close group 9",
    "close container",
  ]);
  t.same(reports, []);
});

t.test(
  "VfioContainer.releaseGroup() is content when the kernel took the group out of the container already",
  async (t) => {
    const { kernel, reports, open } = setUp();
    const container = open();
    container.attachGroup(7);
    kernel.failures.set(0x3b69, 22); // VFIO_GROUP_UNSET_CONTAINER: EINVAL
    container.releaseGroup(7);
    t.same(reports, []);
    t.equal(kernel.log.at(-1), "close group 7");
  },
);

t.test("VfioContainer.close() reports a group that a forgotten device keeps", async (t) => {
  const { reports, open } = setUp();
  const container = open();
  container.attachGroup(7);
  container.openDevice(7, "0000:01:00.0");
  container.close();
  t.match(reports, [/group 7 out of its container: EBUSY/]);
});

t.test("VfioContainer reads IOVA ranges, page size and the number of mappings left", async (t) => {
  const { open } = setUp();
  const container = open();
  t.equal(container.dmaAvailable, undefined, "nothing is known without a group");
  container.attachGroup(7);
  t.same(container.iovaRanges, [
    { start: 0, end: 0xfedf_ffff },
    { start: 0xfef0_0000, end: 0x7f_ffff_ffff },
  ]);
  t.equal(container.pageSizeBytes, 4096);
  t.equal(container.dmaAvailable, 65535);
  t.ok(container.canMap(iova(0x7f_ffff_f000), 0x1000));
  t.notOk(container.canMap(iova(0x7f_ffff_f000), 0x2000));
  t.notOk(container.canMap(iova(0xfee0_0000), 0x1000), "the MSI window");
});

t.test("VfioContainer takes an end of all addresses that no number holds", async (t) => {
  const { kernel, open } = setUp();
  kernel.iovaRanges = [[0n, 0xffff_ffff_ffff_ffffn]];
  const container = open();
  container.attachGroup(9);
  t.ok(container.canMap(iova(2 ** 52), 0x1000));
});

t.test("VfioContainer.mapDma() maps readable and writable, and unmaps once", async (t) => {
  const { kernel, open } = setUp();
  const container = open();
  container.attachGroup(7);
  const mapping = container.mapDma("RAM", iova(0x1_0000_0000), hva(0x7f12_3456_7000), 0x4000_0000);
  t.same([...kernel.mappings], [[0x1_0000_0000, [0x7f12_3456_7000, 0x4000_0000]]]);
  t.equal(container.mappedBytes, 0x4000_0000);
  mapping.unmap();
  mapping.unmap();
  t.equal(kernel.mappings.size, 0);
  t.equal(container.mappedBytes, 0);
  t.equal(kernel.log.filter((line) => line.startsWith("unmap")).length, 1);
});

t.test("VfioContainer.mapDma() says why a mapping cannot be", async (t) => {
  const { kernel, open } = setUp();
  const container = open();
  container.attachGroup(7);
  t.throws(
    () => container.mapDma("BAR 0", iova(0x80_0000_0000), hva(4096), 4096),
    /the IOMMU takes 0x0-0xfedfffff, 0xfef00000-/,
  );
  kernel.failures.set(0x3b71, 12);
  t.throws(() => container.mapDma("RAM", iova(0), hva(4096), 4096), /ENOMEM \(raise the limit of locked memory/);
  kernel.failures.set(0x3b71, 28);
  t.throws(() => container.mapDma("RAM", iova(0), hva(4096), 4096), /ENOSPC .*dma_entry_limit/);
});

t.test("VfioContainer gives a group back that it cannot use", async (t) => {
  const { kernel, open } = setUp();
  const container = open();
  kernel.notViable.add(7);
  t.throws(() => container.attachGroup(7), /a host driver still has a device in it/);
  t.equal(kernel.log.at(-1), "close group 7");
  kernel.notViable.clear();
  kernel.failures.set(0x3b66, 1);
  t.throws(() => container.attachGroup(7), /EPERM .*no interrupt remapping.*allow_unsafe_interrupts/);
  t.same(kernel.log.slice(-2), ["unset container of group 7", "close group 7"]);
  kernel.failures.clear();
  container.attachGroup(7);
  t.ok(kernel.log.includes("set iommu 3"));
});

t.test("VfioContainer.open() advises when VFIO is not there or offers nothing usable", async (t) => {
  const { kernel, open } = setUp();
  kernel.failures.set("/dev/vfio/vfio", 2);
  t.throws(open, /open \/dev\/vfio\/vfio failed with ENOENT \(modprobe/);
  kernel.failures.clear();
  kernel.failures.set(0x3b65, 25);
  t.throws(open, HostError);
  t.equal(kernel.log.at(-1), "close container");
  kernel.failures.clear();
  kernel.failures.set("/dev/vfio/9", 16);
  const container = open();
  t.throws(() => container.attachGroup(9), /EBUSY \(another process uses/);
});
