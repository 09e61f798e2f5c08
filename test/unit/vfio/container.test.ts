import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import t, { type Test } from "tap";
import { HostError } from "../../../src/base/errors.ts";
import type { VfioFiles } from "../../../src/base/mappings.ts";
import { hva, iova } from "../../../src/base/units.ts";
import { attachCauses } from "../../../src/host-pci/attach-causes.ts";
import { VfioContainer } from "../../../src/vfio/container.ts";
import { FakeVfioKernel, type KernelDevice } from "../../support/fake-vfio-kernel.ts";

type Host = Parameters<typeof attachCauses>[2];

const device = (bdf: string, group: number): KernelDevice => ({ bdf, group, flags: 3, regions: [], irqs: [] });
const THREE = [device("0000:01:00.0", 7), device("0000:01:00.1", 7), device("0000:02:00.0", 9)];

function setUp(): {
  kernel: FakeVfioKernel;
  files: VfioFiles;
  reports: string[];
  open: (root?: Host) => VfioContainer;
} {
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
    open: (root = { sys: "/nonexistent", proc: "/nonexistent" }) =>
      VfioContainer.open(
        kernel,
        files,
        (_level, text) => reports.push(text),
        (group, hasOthers) => attachCauses(group, hasOthers, root),
      ),
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
  t.throws(() => container.attachGroup(7), /EPERM/);
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

/** A host's /proc and /sys with these files. */
function hostWith(t: Test, files: Readonly<Record<string, string>>): { readonly sys: string; readonly proc: string } {
  const root = t.testdir();
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), `${text}\n`);
  }
  return { sys: join(root, "sys"), proc: join(root, "proc") };
}

const PLAIN_INTERRUPTS = { "proc/interrupts": "  9:  0  IO-APIC   9-fasteoi   acpi" };
const REMAPPED_INTERRUPTS = { "proc/interrupts": "  9:  0  IR-IO-APIC   9-fasteoi   acpi" };
const FIRMWARE = {
  "sys/kernel/iommu_groups/7/reserved_regions":
    "0x000000007b800000 0x000000007fffffff direct\n0x00000000fee00000 0x00000000feefffff msi",
};
const RELAXABLE = {
  "sys/kernel/iommu_groups/7/reserved_regions": "0x000000007b800000 0x000000007fffffff direct-relaxable",
};
const SET_CONTAINER = 0x3b68;
const SET_IOMMU = 0x3b66;
const EPERM = 1;
const EINVAL = 22;

t.test("VfioContainer.attachGroup() names firmware's memory where the kernel refuses a group for it", async (t) => {
  // Linux up to 6.4 answers EPERM at VFIO_SET_IOMMU, later ones EINVAL, there or at VFIO_GROUP_SET_CONTAINER.
  for (const [request, errno] of [
    [SET_IOMMU, EPERM],
    [SET_IOMMU, EINVAL],
    [SET_CONTAINER, EINVAL],
  ] as const) {
    const { kernel, open } = setUp();
    kernel.failures.set(request, errno);
    const container = open(hostWith(t, { ...PLAIN_INTERRUPTS, ...FIRMWARE }));
    t.throws(
      () => container.attachGroup(7),
      /\(the firmware reserves 0x7b800000-0x7fffffff for the group's devices, .* switch it off\)$/,
    );
  }
});

t.test("VfioContainer.attachGroup() advises unsafe interrupts only where the host does not remap them", async (t) => {
  const adviceOf = (files: Readonly<Record<string, string>>, errno = EPERM): string => {
    const { kernel, open } = setUp();
    kernel.failures.set(SET_IOMMU, errno);
    try {
      open(hostWith(t, files)).attachGroup(7);
    } catch (error) {
      return error instanceof HostError ? (error.advice ?? "none") : String(error);
    }
    return "attached";
  };
  t.match(adviceOf(PLAIN_INTERRUPTS), /no interrupt remapping; .*allow_unsafe_interrupts=1/);
  t.match(adviceOf({ ...PLAIN_INTERRUPTS, ...RELAXABLE }), /allow_unsafe_interrupts=1/);
  t.match(adviceOf(REMAPPED_INTERRUPTS), /^the kernel's log says why: dmesg/);
  t.match(adviceOf({}), /^the kernel's log says why: dmesg/, "a container may hide the file");
  t.match(adviceOf(PLAIN_INTERRUPTS, EINVAL), /^the kernel's log says why: dmesg/, "a single group shares nothing");
});

t.test("VfioContainer.attachGroup() says that address spaces differ for a group that comes to another", async (t) => {
  const { kernel, open } = setUp();
  const container = open(hostWith(t, REMAPPED_INTERRUPTS));
  container.attachGroup(7);
  kernel.failures.set(SET_CONTAINER, EINVAL);
  t.throws(() => container.attachGroup(9), /EINVAL \(the group's IOMMU cannot share an address space/);
});

t.test(
  "VfioContainer.openDevice() sends a token as vfio-pci takes it, and advises what a wrong one means",
  async (t) => {
    const token = "11111111-2222-3333-4444-555555555555";
    const kernel = new FakeVfioKernel([{ ...device("0000:01:10.0", 7), vfToken: token }, device("0000:02:00.0", 9)]);
    const files: VfioFiles = { addFile: () => undefined, removeFile: () => undefined };
    const container = VfioContainer.open(kernel, files, () => undefined);
    container.attachGroup(7);
    container.attachGroup(9);
    t.throws(() => container.openDevice(7, "0000:01:10.0"), /EACCES \(.*give its owner's token, .*vf-token=UUID\)$/);
    t.throws(
      () => container.openDevice(7, "0000:01:10.0", token.replaceAll("1", "2")),
      /EACCES \(the token is not the/,
    );
    t.throws(
      () => container.openDevice(9, "0000:02:00.0", token),
      /EINVAL \(the token has no use: .*leave vf-token out/,
    );
    t.ok(container.openDevice(7, "0000:01:10.0", token.toUpperCase()) >= 0);
  },
);

t.test("VfioContainer reads the addresses when iommufd serves it and a device is open", async (t) => {
  const { kernel, open } = setUp();
  kernel.isIommufd = true;
  const container = open();
  container.attachGroup(7);
  container.attachGroup(9);
  t.notOk(container.knowsAddresses);
  t.equal(container.pageSizeBytes, 4096);
  container.openDevice(7, "0000:01:00.0");
  t.ok(container.knowsAddresses);
  t.same(container.iovaRanges, [
    { start: 0, end: 0xfedf_ffff },
    { start: 0xfef0_0000, end: 0x7f_ffff_ffff },
  ]);
  t.equal(container.dmaAvailable, 0xffff_ffff);
  t.notOk(container.canMap(iova(0xfee0_0000), 0x1000), "the MSI window");
});

t.test("VfioContainer.openDevice() advises by cause where iommufd refuses a device", async (t) => {
  const { kernel, open } = setUp();
  kernel.isIommufd = true;
  kernel.bindFailure = EINVAL;
  const container = open(hostWith(t, { ...REMAPPED_INTERRUPTS, ...FIRMWARE }));
  container.attachGroup(7);
  t.throws(() => container.openDevice(7, "0000:01:00.0"), /EINVAL \(the firmware reserves 0x7b800000-0x7fffffff/);
  kernel.bindFailure = EPERM;
  const unmapped = open(hostWith(t, PLAIN_INTERRUPTS));
  unmapped.attachGroup(9);
  t.throws(() => unmapped.openDevice(9, "0000:02:00.0"), /EPERM \(.*allow_unsafe_interrupts/);
});
