import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { HostError } from "../../../src/base/errors.ts";
import { findObstacles, holderOf, preflight } from "../../../src/vfio/preflight.ts";
import { fakeSysfs, type SysfsFunction } from "../../support/fake-sysfs.ts";

const GIB = 1024 ** 3;
const UNLIMITED = { limitBytes: 0, isUnlimited: true };
const GOOD: SysfsFunction = { bdf: "0000:01:00.0", driver: "vfio-pci", group: 7 };

interface Case {
  readonly functions: readonly SysfsFunction[];
  readonly paths?: readonly string[];
  readonly nodes?: readonly string[];
  readonly cpu?: string;
  readonly memoryLock?: { limitBytes: number; isUnlimited: boolean };
}

/** The messages of a pretended host. */
function messagesOf(t: Test, { functions, paths, nodes, cpu, memoryLock }: Case): readonly string[] {
  const host = fakeSysfs(t.testdir(), functions);
  for (const node of nodes ?? ["vfio", "7"]) writeFileSync(join(host.dev, "vfio", node), "");
  if (cpu !== undefined) writeFileSync(join(host.proc, "cpuinfo"), `processor\t: 0\nvendor_id\t: ${cpu}\n`);
  const obstacles = findObstacles({
    paths: (paths ?? [functions[0]?.bdf ?? ""]).map((bdf) => host.path(bdf)),
    ramBytes: GIB,
    memoryLock: memoryLock ?? UNLIMITED,
    root: host,
  });
  return obstacles.map((error) => error.message.replaceAll(host.dev, "/dev").replaceAll(host.sys, "/sys"));
}

t.test("findObstacles() finds none on a host that is set up", async (t) => {
  t.same(messagesOf(t, { functions: [GOOD] }), []);
  t.same(messagesOf(t, { functions: [], paths: [], nodes: [] }), [], "a machine without devices needs no VFIO");
});

t.test("findObstacles() names a device that does not exist, and a path that is no PCI function's", async (t) => {
  t.match(messagesOf(t, { functions: [GOOD], paths: ["0000:09:00.0"] }), [
    /there is no such device \(ls \/sys\/bus\/pci\/devices/,
  ]);
  t.match(messagesOf(t, { functions: [GOOD], paths: [".."] }), [/it is not a PCI function's directory$/]);
});

t.test("findObstacles() refuses bridges", async (t) => {
  t.match(messagesOf(t, { functions: [{ ...GOOD, class: "0x060400", driver: "pcieport" }] }), [
    /0000:01:00.0 through: it is a bridge/,
  ]);
});

t.test("findObstacles() names the kernel argument that switches the IOMMU on, by the CPU's maker", async (t) => {
  const functions = [{ bdf: "0000:01:00.0", driver: "e1000e" }];
  t.match(messagesOf(t, { functions, cpu: "GenuineIntel" }), [/the IOMMU is off \(enable VT-d .* intel_iommu=on\)$/]);
  t.match(messagesOf(t, { functions, cpu: "AuthenticAMD" }), [/the IOMMU is off \(enable the IOMMU \(AMD-Vi\)/]);
  t.match(messagesOf(t, { functions }), [/Intel: .*AMD: /]);
});

t.test("findObstacles() refuses groups without an IOMMU behind them", async (t) => {
  t.match(messagesOf(t, { functions: [{ ...GOOD, groupName: "vfio-noiommu" }] }), [
    /its DMA would reach all of the host's memory/,
  ]);
});

t.test("findObstacles() gives the commands that bind a function, with and without a driver to unbind", async (t) => {
  t.match(messagesOf(t, { functions: [{ ...GOOD, driver: "e1000e" }] }), [
    "Cannot pass 0000:01:00.0 through: driver e1000e has it, not vfio-pci (modprobe vfio-pci; " +
      "echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override; " +
      "echo 0000:01:00.0 > /sys/bus/pci/devices/0000:01:00.0/driver/unbind; " +
      "echo 0000:01:00.0 > /sys/bus/pci/drivers_probe)",
  ]);
  const [unbound] = messagesOf(t, { functions: [{ bdf: "0000:01:00.0", group: 7 }] });
  t.match(unbound, /no driver has it/);
  t.notMatch(unbound, /unbind/);
});

t.test("findObstacles() names every other member of the group that a driver has, once", async (t) => {
  const messages = messagesOf(t, {
    functions: [
      GOOD,
      { bdf: "0000:01:00.1", driver: "vfio-pci", group: 7 },
      { bdf: "0000:01:00.2", driver: "snd_hda_intel", group: 7 },
      { bdf: "0000:01:00.3", driver: "xhci_hcd", group: 7 },
    ],
    paths: ["0000:01:00.0", "0000:01:00.1"],
  });
  t.equal(messages.length, 1);
  t.match(
    messages[0],
    /others of IOMMU group 7: 0000:01:00.2 \(driver snd_hda_intel\), 0000:01:00.3 \(driver xhci_hcd\)/,
  );
  t.match(messages[0], /0000:01:00.3\/driver\/unbind/);
});

t.test("findObstacles() says when VFIO's nodes are missing", async (t) => {
  t.match(messagesOf(t, { functions: [GOOD], nodes: [] }), [
    /open \/dev\/vfio\/vfio: VFIO is not loaded.*modprobe vfio_iommu_type1/,
  ]);
  t.match(messagesOf(t, { functions: [GOOD], nodes: ["vfio"] }), [/open \/dev\/vfio\/7/]);
  t.match(
    messagesOf(t, { functions: [{ ...GOOD, driver: "e1000e" }], nodes: ["vfio"] }),
    [/driver e1000e has it/],
    "the missing node follows from the driver",
  );
});

t.test("findObstacles() compares the memory lock limit with the guest's RAM, unless it does not count", async (t) => {
  const memoryLock = { limitBytes: 8 * 1024 * 1024, isUnlimited: false };
  t.match(messagesOf(t, { functions: [GOOD], memoryLock }), [
    /Cannot lock the guest's 1024 MiB of RAM for DMA: the limit is 8 MiB \(.*ulimit -l/,
  ]);
  t.same(messagesOf(t, { functions: [GOOD], memoryLock: { limitBytes: GIB, isUnlimited: false } }), []);
  t.same(
    messagesOf(t, { functions: [GOOD], memoryLock: { limitBytes: Number.POSITIVE_INFINITY, isUnlimited: false } }),
    [],
  );
});

t.test("preflight() throws the first obstacle", async (t) => {
  const host = fakeSysfs(t.testdir(), [{ bdf: "0000:01:00.0", driver: "e1000e" }]);
  const options = { paths: [host.path("0000:01:00.0")], ramBytes: GIB, memoryLock: UNLIMITED, root: host };
  t.throws(() => preflight(options), HostError);
  t.doesNotThrow(() => preflight({ ...options, paths: [] }));
});

t.test("holderOf() finds the process that has a node open", async (t) => {
  const proc = t.testdir();
  for (const [pid, name, target] of [
    ["12", "systemd", "/dev/null"],
    ["345", "qemu-system-x86", "/dev/vfio/7"],
    ["self", "node", "/dev/vfio/7"],
  ] as const) {
    mkdirSync(join(proc, pid, "fd"), { recursive: true });
    writeFileSync(join(proc, pid, "comm"), `${name}\n`);
    symlinkSync(target, join(proc, pid, "fd/3"));
  }
  t.same(holderOf("/dev/vfio/7", proc), { pid: 345, name: "qemu-system-x86" });
  t.equal(holderOf("/dev/vfio/8", proc), undefined);
});
