import t from "tap";
import { describeGroup, isBridge, isVfioDriver, listFunctions, readFunction } from "../../../src/host-pci/functions.ts";
import { fakeSysfs } from "../../support/fake-sysfs.ts";

t.test("readFunction() reads a function's identity, driver, group, sizes, reset methods and node", async (t) => {
  const host = fakeSysfs(t.testdir(), [
    {
      bdf: "0000:01:00.0",
      vendor: "0x1b36",
      device: "0x0010",
      class: "0x010802",
      driver: "vfio-pci",
      group: 14,
      resource: [
        "0x00000000fe000000 0x00000000fe003fff 0x0000000000140204",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
        "0x000000000000c000 0x000000000000c01f 0x0000000000040101",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
        "0x00000000fe040000 0x00000000fe07ffff 0x0000000000046200",
        "0x00000000ff000000 0x00000000ff0fffff 0x0000000000000200",
      ],
      resetMethod: "flr bus",
      numaNode: 1,
    },
  ]);
  const expected = {
    bdf: "0000:01:00.0",
    vendorId: 0x1b36,
    deviceId: 0x0010,
    classCode: 0x01_0802,
    driver: "vfio-pci",
    group: 14,
    isNoIommuGroup: false,
    resources: [
      { index: 0, sizeBytes: 0x4000, kind: "memory" },
      { index: 2, sizeBytes: 0x20, kind: "io" },
      { index: 6, sizeBytes: 0x4_0000, kind: "memory" },
    ],
    resetMethods: ["flr", "bus"],
    numaNode: 1,
    physicalFunction: undefined,
  };
  t.match(readFunction(host.path("0000:01:00.0")), expected);
  t.match(readFunction(`${host.path("0000:01:00.0")}/`), expected, "with a slash at its end");
});

t.test("readFunction() answers undefined for what is no PCI function", async (t) => {
  const host = fakeSysfs(t.testdir({ file: "" }), [{ bdf: "0000:01:00.0" }]);
  t.equal(readFunction(host.path("0000:02:00.0")), undefined);
  t.equal(readFunction(host.sys), undefined);
});

t.test("readFunction() does without what the kernel does not tell", async (t) => {
  const host = fakeSysfs(t.testdir(), [{ bdf: "0000:01:10.0", physfn: "0000:01:00.0" }]);
  t.match(readFunction(host.path("0000:01:10.0")), {
    driver: undefined,
    group: undefined,
    resources: [],
    resetMethods: [],
    numaNode: -1,
    physicalFunction: "0000:01:00.0",
  });
});

t.test("readFunction() tells a group without an IOMMU", async (t) => {
  const host = fakeSysfs(t.testdir(), [{ bdf: "0000:01:00.0", group: 0, groupName: "vfio-noiommu" }]);
  t.equal(readFunction(host.path("0000:01:00.0"))?.isNoIommuGroup, true);
});

t.test("listFunctions() lists all functions in order", async (t) => {
  const host = fakeSysfs(t.testdir(), [{ bdf: "0000:02:00.0" }, { bdf: "0000:00:1f.2" }]);
  t.same(
    listFunctions(host.sys).map((found) => found.bdf),
    ["0000:00:1f.2", "0000:02:00.0"],
  );
  t.same(listFunctions("/nonexistent"), []);
});

t.test("describeGroup() names the members that stand in the way, not bridges or unbound ones", async (t) => {
  const host = fakeSysfs(t.testdir(), [
    { bdf: "0000:00:1c.0", class: "0x060400", driver: "pcieport", group: 5 },
    { bdf: "0000:03:00.0", driver: "vfio-pci", group: 5 },
    { bdf: "0000:03:00.1", driver: "snd_hda_intel", group: 5 },
    { bdf: "0000:03:00.2", group: 5 },
    { bdf: "0000:03:00.3", driver: "pci-stub", group: 5 },
    { bdf: "0000:03:00.4", driver: "mlx5_vfio_pci", group: 5 },
    { bdf: "0000:04:00.0", driver: "nvme", group: 6 },
  ]);
  const one = readFunction(host.path("0000:03:00.0"));
  const group = one === undefined ? undefined : describeGroup(one);
  t.equal(group?.number, 5);
  t.equal(group?.members.length, 6);
  t.same(
    group?.obstacles.map((member) => member.bdf),
    ["0000:03:00.1"],
  );
  t.ok(group?.members.some(isBridge));
});

t.test("isVfioDriver() knows vfio-pci and its variants", async (t) => {
  t.same(["vfio-pci", "mlx5_vfio_pci", "nvgrace_gpu_vfio_pci", "nvme", undefined].map(isVfioDriver), [
    true,
    true,
    true,
    false,
    false,
  ]);
});
