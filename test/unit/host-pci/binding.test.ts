import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { Binder } from "../../../src/host-pci/binding.ts";
import { type HostFunction, readFunction } from "../../../src/host-pci/functions.ts";
import { type FakeDriver, FakePciDrivers } from "../../support/fake-pci-drivers.ts";
import { fakeSysfs, type SysfsFunction } from "../../support/fake-sysfs.ts";

const DISK = "0000:01:00.0";
const CARD = "0000:02:00.0";
const FREE = "0000:03:00.0";
const DEVICES = "/sys/bus/pci/devices";

function setUp(
  t: Test,
  options: { readonly drivers?: readonly FakeDriver[]; readonly modules?: readonly string[] } = {},
) {
  const functions: readonly SysfsFunction[] = [
    { bdf: DISK, driver: "nvme", group: 1 },
    { bdf: CARD, driver: "sdhci-pci", group: 2 },
    { bdf: FREE, group: 3 },
  ];
  const host = { ...fakeSysfs(t.testdir(), functions), run: join(t.testdirName, "run/tsvmm") };
  const drivers = options.drivers ?? [
    { name: "vfio-pci", takes: [] },
    { name: "vfio_iommu_type1", takes: [] },
    { name: "nvme", takes: [DISK] },
    { name: "sdhci-pci", takes: [CARD] },
  ];
  const kernel = new FakePciDrivers(host.sys, drivers, options.modules);
  const find = (...bdfs: readonly string[]): readonly HostFunction[] =>
    bdfs.flatMap((bdf) => readFunction(host.path(bdf)) ?? []);
  return { host, kernel, find, binder: new Binder(host, kernel) };
}

t.test("Binder.bind() gives a function to vfio-pci through driver_override, and no other", async (t) => {
  const { kernel, binder, find } = setUp(t);
  t.same(binder.bind(find(DISK)), [{ bdf: DISK, before: "nvme", after: "vfio-pci" }]);
  t.same(kernel.log, [
    `vfio-pci > ${DEVICES}/${DISK}/driver_override`,
    `${DISK} > ${DEVICES}/${DISK}/driver/unbind`,
    `${DISK} > /sys/bus/pci/drivers_probe`,
  ]);
  t.equal(kernel.driverOf(CARD), "sdhci-pci");
});

t.test("Binder.bind() changes nothing the second time, and unbind() still knows the first driver", async (t) => {
  const { kernel, binder, find, host } = setUp(t);
  binder.bind(find(DISK));
  const writes = kernel.log.length;
  t.same(binder.bind(find(DISK)), [{ bdf: DISK, before: "vfio-pci", after: "vfio-pci" }]);
  t.equal(kernel.log.length, writes);
  t.same(binder.unbind(find(DISK)), [{ bdf: DISK, before: "vfio-pci", after: "nvme" }]);
  t.same(readdirSync(host.run), [], "nothing is remembered any more");
  t.equal(find(DISK)[0]?.driverOverride, undefined);
});

t.test("Binder.bind() loads the modules that are missing", async (t) => {
  const { kernel, binder, find } = setUp(t, { modules: ["vfio-pci", "vfio_iommu_type1"] });
  binder.bind(find(DISK));
  t.same(kernel.log.slice(0, 2), ["modprobe vfio-pci", "modprobe vfio_iommu_type1"]);
  t.equal(kernel.driverOf(DISK), "vfio-pci");
});

t.test("Binder.bind() does without vfio_iommu_type1 where the kernel has iommufd for it", async (t) => {
  const drivers = [
    { name: "vfio-pci", takes: [] },
    { name: "iommufd", takes: [] },
    { name: "nvme", takes: [DISK] },
  ];
  const { kernel, binder, find } = setUp(t, { drivers });
  binder.bind(find(DISK));
  t.equal(kernel.log[0], "modprobe vfio_iommu_type1", "it may be there all the same");
  t.equal(kernel.driverOf(DISK), "vfio-pci");
  const without = setUp(t, { drivers: [{ name: "vfio-pci", takes: [] }] });
  t.throws(() => without.binder.bind(without.find(DISK)), /Cannot load module vfio_iommu_type1/);
});

t.test("Binder leaves a function alone whose own driver offers it by VFIO", async (t) => {
  const { host, kernel, binder, find } = setUp(t);
  mkdirSync(join(host.path(DISK), "vfio-dev/vfio0"), { recursive: true });
  t.same(binder.bind(find(DISK)), [{ bdf: DISK, before: "nvme", after: "nvme" }]);
  t.same(binder.unbind(find(DISK)), [{ bdf: DISK, before: "nvme", after: "nvme" }]);
  t.same(kernel.log, []);
});

t.test("Binder.unbind() leaves a function without a driver that had none", async (t) => {
  const { kernel, binder, find } = setUp(t);
  binder.bind(find(FREE));
  t.equal(kernel.driverOf(FREE), "vfio-pci");
  t.same(binder.unbind(find(FREE)), [{ bdf: FREE, before: "vfio-pci", after: undefined }]);
  t.equal(kernel.driverOf(FREE), undefined);
});

t.test("Binder.unbind() lets the kernel choose where nothing is remembered", async (t) => {
  const { kernel, binder, find, host } = setUp(t);
  binder.bind(find(DISK));
  writeFileSync(join(host.run, `${DISK}.json`), "not JSON");
  t.same(binder.unbind(find(DISK)), [{ bdf: DISK, before: "vfio-pci", after: "nvme" }]);
  t.ok(kernel.log.includes(` > ${DEVICES}/${DISK}/driver_override`), "the override is emptied");
  t.equal(kernel.log.at(-1), `${DISK} > /sys/bus/pci/drivers_probe`);
});

t.test("Binder.unbind() does not follow a name in its memory out of the drivers' directory", async (t) => {
  const { kernel, binder, find, host } = setUp(t);
  binder.bind(find(DISK));
  writeFileSync(join(host.run, `${DISK}.json`), '{"driver":"../../../etc"}');
  binder.unbind(find(DISK));
  t.notOk(kernel.log.some((line) => line.includes("etc")));
});

t.test("Binder.unbind() changes nothing on a function that vfio-pci does not have", async (t) => {
  const { kernel, binder, find } = setUp(t);
  t.same(binder.unbind(find(DISK, FREE)), [
    { bdf: DISK, before: "nvme", after: "nvme" },
    { bdf: FREE, before: undefined, after: undefined },
  ]);
  t.same(kernel.log, []);
});

t.test("Binder.bind() puts everything back when a later function fails", async (t) => {
  const drivers: readonly FakeDriver[] = [
    { name: "vfio-pci", takes: [], fails: [CARD] },
    { name: "vfio_iommu_type1", takes: [] },
    { name: "nvme", takes: [DISK] },
    { name: "sdhci-pci", takes: [CARD] },
  ];
  const { kernel, binder, find, host } = setUp(t, { drivers });
  t.throws(() => binder.bind(find(DISK, CARD)), {
    message: /^Cannot give 0000:02:00.0 to vfio-pci: it did not take it .*; everything is as it was$/,
  });
  t.equal(kernel.driverOf(DISK), "nvme");
  t.equal(kernel.driverOf(CARD), "sdhci-pci");
  t.same(
    find(DISK, CARD).map(({ driverOverride }) => driverOverride),
    [undefined, undefined],
  );
  t.same(readdirSync(host.run), []);
});

t.test("Binder.bind() puts everything back at each point where a write can fail", async (t) => {
  for (const [end, errno] of [
    [`${CARD}/driver_override`, "EACCES"],
    [`${CARD}/driver/unbind`, "ENODEV"],
  ] as const) {
    const { kernel, binder, find } = setUp(t);
    kernel.refused.set(end, errno);
    t.throws(() => binder.bind(find(DISK, CARD)), { message: new RegExp(`failed with ${errno}`) }, end);
    t.equal(kernel.driverOf(DISK), "nvme", end);
    t.equal(kernel.driverOf(CARD), "sdhci-pci", end);
  }
});

t.test("Binder.bind() changes no driver when a module cannot be loaded", async (t) => {
  const { kernel, binder, find, host } = setUp(t, {
    modules: ["vfio-pci"],
    drivers: [
      { name: "vfio-pci", takes: [] },
      { name: "nvme", takes: [DISK] },
    ],
  });
  t.throws(() => binder.bind(find(DISK)), { message: /^Cannot load module vfio_iommu_type1/ });
  t.equal(kernel.driverOf(DISK), "nvme");
  t.notOk(existsSync(host.run));
});

t.test("Binder.unbind() keeps a function with vfio-pci, and its memory, when the old driver is gone", async (t) => {
  const { kernel, binder, find, host } = setUp(t);
  binder.bind(find(DISK));
  writeFileSync(join(host.run, `${DISK}.json`), '{"driver":"gone","driverOverride":"gone"}');
  t.throws(() => binder.unbind(find(DISK)), { message: /gone did not take it .*; everything is as it was$/ });
  t.equal(kernel.driverOf(DISK), "vfio-pci");
  t.ok(existsSync(join(host.run, `${DISK}.json`)));
});

t.test("Binder prints what a dry run would do, and remembers nothing", async (t) => {
  const { find, host } = setUp(t, { modules: ["vfio-pci", "vfio_iommu_type1"] });
  const log: string[] = [];
  const changes = {
    write: (file: string, text: string) => void log.push(`${text.trim()} > ${file.replace(host.sys, "/sys")}`),
    loadModule: (name: string) => void log.push(`modprobe ${name}`),
  };
  const binder = new Binder(host, changes, true);
  t.same(binder.bind(find(DISK)), [{ bdf: DISK, before: "nvme", after: "vfio-pci" }]);
  t.equal(log.length, 5);
  t.notOk(existsSync(host.run));
});
