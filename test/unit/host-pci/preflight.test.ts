import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import t, { type Test } from "tap";
import { HostError } from "../../../src/base/errors.ts";
import { FunctionFacts } from "../../../src/host-pci/functions.ts";
import { holdersOf, takersOfDevices } from "../../../src/host-pci/open-files.ts";
import { findObstacles, type PreflightOptions, passthroughChecks, preflight } from "../../../src/host-pci/preflight.ts";
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
  /** Files of /proc and /sys, by path. */
  readonly files?: Readonly<Record<string, string>>;
  readonly modules?: readonly string[];
}

/** A pretended host, as the checks take it. */
function optionsOf(t: Test, { functions, paths, nodes, cpu, memoryLock, files, modules }: Case): PreflightOptions {
  const host = fakeSysfs(t.testdir(), functions);
  for (const node of nodes ?? ["vfio", "7"]) writeFileSync(join(host.dev, "vfio", node), "");
  const put = (path: string, text: string): void => {
    mkdirSync(dirname(join(host.sys, "..", path)), { recursive: true });
    writeFileSync(join(host.sys, "..", path), `${text}\n`);
  };
  if (cpu !== undefined) put("proc/cpuinfo", `processor\t: 0\nvendor_id\t: ${cpu}`);
  for (const [path, text] of Object.entries(files ?? {})) put(path, text);
  for (const module of modules ?? ["vfio_iommu_type1", "vfio-pci"]) {
    const directory = module === "vfio-pci" ? "bus/pci/drivers" : "module";
    mkdirSync(join(host.sys, directory, module), { recursive: true });
  }
  return {
    paths: (paths ?? [functions[0]?.bdf ?? ""]).map((bdf) => host.path(bdf)),
    facts: new FunctionFacts(),
    ramBytes: GIB,
    memoryLock: memoryLock ?? UNLIMITED,
    root: host,
  };
}

/** The messages of a pretended host. */
function messagesOf(t: Test, host: Case): readonly string[] {
  const options = optionsOf(t, host);
  const { sys = "", dev = "" } = options.root ?? {};
  return findObstacles(options).map((error) => error.message.replaceAll(dev, "/dev").replaceAll(sys, "/sys"));
}

/** State and finding of one check, as "good: on"; `undefined` where it was not made. */
function stateOf(t: Test, topic: string, host: Case): string | undefined {
  const found = passthroughChecks(optionsOf(t, host)).find((check) => check.topic === topic);
  return found === undefined ? undefined : `${found.state}: ${found.found}`;
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

t.test("findObstacles() says who has a function, and gives the command that binds it", async (t) => {
  t.match(messagesOf(t, { functions: [{ ...GOOD, driver: "e1000e" }] }), [
    "Cannot pass 0000:01:00.0 through: driver e1000e has it, not vfio-pci (tsvmm bind 0000:01:00.0)",
  ]);
  t.match(messagesOf(t, { functions: [{ bdf: "0000:01:00.0", group: 7 }] }), [
    "Cannot pass 0000:01:00.0 through: no driver has it, not vfio-pci (tsvmm bind 0000:01:00.0)",
  ]);
});

/** A virtual function that NVIDIA's own driver offers to guests: a vGPU. */
const VGPU: SysfsFunction = {
  ...{ bdf: "0000:01:00.4", vendor: "0x10de", class: "0x030200", driver: "nvidia", group: 7, physfn: "0000:01:00.0" },
  files: { "vfio-dev/vfio0/dev": "511:0" },
};

t.test("A function is ready by the VFIO device that its driver registered, whatever the driver's name", async (t) => {
  t.same(messagesOf(t, { functions: [VGPU] }), []);
  t.equal(stateOf(t, `driver of ${VGPU.bdf}`, { functions: [VGPU] }), "good: nvidia, by VFIO as vfio0");
  t.same(messagesOf(t, { functions: [GOOD, VGPU] }), [], "nor is it in the way of its group");
  const { files: _, ...withoutProfile } = VGPU;
  t.match(messagesOf(t, { functions: [withoutProfile] }), [/driver nvidia has it/]);
});

t.test("findObstacles() refuses a function behind Intel VMD with the remedy", async (t) => {
  const functions = [{ bdf: "10000:e1:00.0", driver: "vfio-pci", group: 7, under: "0000:00:0e.0/pci10000:e0" }];
  t.same(messagesOf(t, { functions }), [
    "Cannot pass 10000:e1:00.0 through: it is behind the VMD controller 0000:00:0e.0, which does DMA for it, so that " +
      "it cannot be given away alone (switch VMD off in the firmware setup, or pass the VMD controller with all that " +
      "is behind it)",
  ]);
});

t.test("findObstacles() judges a token as vfio-pci does", async (t) => {
  const physical = (driver: string): SysfsFunction => ({ bdf: "0000:01:00.0", driver, group: 6 });
  const virtual: SysfsFunction = { bdf: "0000:01:10.0", driver: "vfio-pci", group: 7, physfn: "0000:01:00.0" };
  const judgeToken = (driver: string, token: boolean | undefined, which = virtual): string | undefined => {
    const options = optionsOf(t, { functions: [physical(driver), which], paths: [which.bdf] });
    const [path = ""] = options.paths;
    const vfTokens = token === undefined ? {} : { vfTokens: new Map(token ? [[path, "any"]] : []) };
    const found = passthroughChecks({ ...options, ...vfTokens }).find(({ topic }) => topic.startsWith("token"));
    return found === undefined ? undefined : `${found.state}: ${found.found} (${found.remedy})`;
  };
  t.equal(
    judgeToken("vfio-pci", false),
    "failed: its physical function 0000:01:00.0 belongs to vfio-pci, whose owner's token is needed (--device " +
      "...,vf-token=UUID)",
  );
  t.match(judgeToken("vfio-pci", undefined), /^warning: its physical function/, "doctor takes no token");
  t.match(judgeToken("vfio-pci", true), /^good: given/);
  t.equal(judgeToken("igb", false), undefined);
  t.match(judgeToken("igb", true), /^failed: a token is given, which has no use: .* 0000:01:00.0 has the driver igb/);
  const plain: SysfsFunction = { bdf: "0000:02:00.0", driver: "vfio-pci", group: 7 };
  t.match(judgeToken("igb", true, plain), /^failed: a token is given, and it has nothing to do with virtual functions/);
  t.match(judgeToken("igb", true, { ...plain, files: { sriov_totalvfs: "7" } }), /^good: given, for its virtual/);
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
  t.match(messages[0], /\(tsvmm bind --group 0000:01:00.0\)$/);
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

t.test("findObstacles() asks for the module that maps memory for devices", async (t) => {
  t.match(messagesOf(t, { functions: [GOOD], modules: ["vfio-pci"] }), [
    "Cannot use VFIO: vfio_iommu_type1 is not loaded (modprobe vfio_iommu_type1 && modprobe vfio-pci)",
  ]);
});

t.test("findObstacles() is content with iommufd behind /dev/vfio/vfio, and says when it is not there", async (t) => {
  const modules = ["vfio-pci", "iommufd"];
  t.same(messagesOf(t, { functions: [GOOD], modules }), []);
  t.equal(stateOf(t, "VFIO modules", { functions: [GOOD], modules }), "good: vfio-pci and iommufd are there");
  t.match(messagesOf(t, { functions: [GOOD], modules, nodes: ["7"] }), [
    /^Cannot use VFIO: the kernel offers \/dev\/vfio\/devices only \(iommufd\), and no \/dev\/vfio\/vfio \(modprobe vfio_iommu/,
    /^Cannot open \/dev\/vfio\/vfio: .*\(modprobe vfio-pci\)$/,
  ]);
  const files = { "proc/interrupts": PLAIN, "sys/module/iommufd/parameters/allow_unsafe_interrupts": "Y" };
  t.match(stateOf(t, "interrupt remapping", { functions: [GOOD], modules, files }), /^warning/);
});

const REMAPPED = "  9:  0  0  IR-IO-APIC   9-fasteoi   acpi\n 24:  0  0  IR-PCI-MSI 16384-edge  xhci_hcd";
const PLAIN = "  9:  0  0  IO-APIC   9-fasteoi   acpi\n 24:  0  0  PCI-MSI 16384-edge  xhci_hcd";
const UNSAFE = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";

t.test(
  "passthroughChecks() tells interrupt remapping from /proc/interrupts, and what the host allows without",
  async (t) => {
    const state = (files: Readonly<Record<string, string>>): string | undefined =>
      stateOf(t, "interrupt remapping", { functions: [GOOD], files });
    t.equal(state({ "proc/interrupts": REMAPPED }), "good: on");
    t.equal(state({ "proc/interrupts": PLAIN }), "failed: the host does not remap interrupts");
    t.match(state({ "proc/interrupts": PLAIN, [UNSAFE]: "N" }), /^failed/);
    t.match(state({ "proc/interrupts": PLAIN, [UNSAFE]: "Y" }), /^warning: .*allow_unsafe_interrupts/);
    t.match(state({}), /^unknown: /, "a container may hide the file");
    t.match(messagesOf(t, { functions: [GOOD], files: { "proc/interrupts": PLAIN } }), [
      /^Cannot keep interrupts of devices apart: .*allow_unsafe_interrupts=1/,
    ]);
  },
);

t.test("passthroughChecks() reads the IOMMU's address width, Intel's and AMD's", async (t) => {
  const width = (file: string, text: string): string | undefined =>
    stateOf(t, "DMA address width of 0000:01:00.0", {
      functions: [{ ...GOOD, files: { [`iommu/${file}`]: text } }],
    });
  t.equal(width("intel-iommu/cap", "d2008c222f0686"), "good: 48 bits", "MGAW says 48, SAGAW 39 and 48");
  t.equal(width("intel-iommu/cap", "1c0000c40660462"), "good: 39 bits", "MGAW says 39, SAGAW 48");
  t.equal(width("amd-iommu/features", "29d3"), "good: 64 bits", "HATS 2: six levels");
  t.equal(width("amd-iommu/features", "1d3"), "good: 48 bits", "HATS 0: four levels");
  t.equal(width("intel-iommu/cap", "?"), undefined);
});

t.test(
  "passthroughChecks() warns of what a device that cannot be reset keeps, and of firmware's mappings",
  async (t) => {
    const topic = "reset of 0000:01:00.0";
    t.equal(stateOf(t, topic, { functions: [{ ...GOOD, resetMethod: "flr bus" }] }), "good: flr, bus");
    t.match(stateOf(t, topic, { functions: [GOOD] }), /^warning: the kernel cannot reset it alone/);
    const pm = stateOf(t, topic, { functions: [{ ...GOOD, resetMethod: "pm bus" }] });
    t.match(pm, /^warning: pm, bus: the kernel takes the trip through D3 first/);
    const files = {
      "sys/kernel/iommu_groups/7/reserved_regions":
        "0x00000000000e0000 0x00000000000effff direct\n0x00000000fee00000 0x00000000feefffff msi",
    };
    t.match(
      stateOf(t, "firmware's use of 0000:01:00.0", { functions: [GOOD], files }),
      /^warning: the firmware reserves 0xe0000-0xeffff for the group/,
    );
  },
);

t.test("passthroughChecks() fails nothing for a machine without devices, but warns", async (t) => {
  const options = optionsOf(t, { functions: [], paths: [], nodes: [], modules: [], cpu: "GenuineIntel" });
  const checks = passthroughChecks(options);
  t.same(
    checks.filter(({ state }) => state === "warning").map(({ topic }) => topic),
    ["IOMMU", "VFIO modules", "VFIO container"],
  );
  t.notOk(checks.some(({ state }) => state === "failed"));
  t.match(checks[0]?.remedy, /intel_iommu=on/);
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
  const facts = new FunctionFacts();
  const options = { paths: [host.path("0000:01:00.0")], facts, ramBytes: GIB, memoryLock: UNLIMITED, root: host };
  t.throws(() => preflight(options), HostError);
  t.doesNotThrow(() => preflight({ ...options, paths: [] }));
});

t.test("holdersOf() finds the processes that have a file open", async (t) => {
  const proc = t.testdir();
  const process = (pid: string, name: string, ...targets: readonly string[]): void => {
    mkdirSync(join(proc, pid, "fd"), { recursive: true });
    writeFileSync(join(proc, pid, "comm"), `${name}\n`);
    for (const [fd, target] of targets.entries()) symlinkSync(target, join(proc, pid, "fd", String(fd)));
  };
  process("12", "systemd", "/dev/null");
  process("345", "qemu-system-x86", "/dev/vfio/7", "/dev/vfio/7");
  process("self", "node", "/dev/vfio/7");
  process("9", "bash", "/sys/bus/pci/drivers/vfio-pci/unbind");
  const holder = { pid: 345, name: "qemu-system-x86", file: "/dev/vfio/7" };
  t.same(
    holdersOf((file) => file === "/dev/vfio/7", proc),
    [holder],
  );
  t.same(
    holdersOf((file) => file === "/dev/vfio/8", proc),
    [],
  );
  t.same(takersOfDevices(proc), [{ pid: 9, name: "bash", file: "/sys/bus/pci/drivers/vfio-pci/unbind" }]);
});

t.test(
  "findObstacles() refuses a function whose registers read as all ones, and tells how it comes back",
  async (t) => {
    const off = { ...GOOD, config: new Uint8Array(64).fill(0xff) };
    t.same(messagesOf(t, { functions: [off] }), [
      "Cannot pass 0000:01:00.0 through: it does not answer: its registers read as all ones " +
        "(echo 1 > /sys/bus/pci/devices/0000:01:00.0/remove, then echo 1 > /sys/bus/pci/rescan; " +
        "if it stays silent, switch the host off and on)",
    ]);
    // A virtual function has ones for its ids, and a class.
    const virtual = { ...GOOD, config: Uint8Array.of(...new Array(8).fill(0xff), 0, 0, 0, 2) };
    t.same(messagesOf(t, { functions: [virtual] }), []);
  },
);

t.test("passthroughChecks() warns of an Intel processor's GPU, with what works", async (t) => {
  const gpu = { bdf: "0000:00:02.0", driver: "vfio-pci", group: 7, vendor: "0x8086", class: "0x030000" };
  const found = "warning: rendering, video and compute work in a guest; displays and its boot screen do not";
  t.equal(stateOf(t, "graphics of 0000:00:02.0", { functions: [gpu] }), found);
  t.equal(stateOf(t, "graphics of 0000:01:00.0", { functions: [{ ...gpu, bdf: "0000:01:00.0" }] }), undefined);
});
