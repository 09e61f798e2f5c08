import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import t, { type Test } from "tap";
import { listFunctions, readFunction } from "../../../src/host-pci/functions.ts";
import { DeviceUsage } from "../../../src/host-pci/usage.ts";
import { judge } from "../../../src/host-pci/verdict.ts";
import { fakeSysfs, type SysfsFunction } from "../../support/fake-sysfs.ts";

const DISK = "0000:01:00.0";
const NIC = "0000:02:00.0";

/** A pretended host whose use of functions a test describes. */
class Host {
  readonly root: { readonly sys: string; readonly dev: string; readonly proc: string; readonly run: string };
  readonly #path: (bdf: string) => string;

  constructor(t: Test, functions: readonly SysfsFunction[]) {
    const made = fakeSysfs(t.testdir(), functions);
    this.root = { ...made, run: "" };
    this.#path = made.path;
  }

  /** A block device or interface: `place` is its directory below a function's, or below devices/virtual. */
  device(
    kind: "block" | "net",
    name: string,
    bdf: string | undefined,
    files: Readonly<Record<string, string>> = {},
  ): void {
    const { sys } = this.root;
    const parent = bdf === undefined ? "virtual" : `pci0000:00/${bdf}`;
    const directory = join(sys, "devices", parent, kind, name);
    mkdirSync(directory, { recursive: true });
    for (const [file, text] of Object.entries(files)) this.#put(join(directory, file), text);
    mkdirSync(join(sys, "class", kind), { recursive: true });
    symlinkSync(directory, join(sys, "class", kind, name));
  }

  proc(file: string, text: string): void {
    this.#put(join(this.root.proc, file), text);
  }

  link(file: string, target: string): void {
    mkdirSync(dirname(join(this.root.proc, file)), { recursive: true });
    symlinkSync(target, join(this.root.proc, file));
  }

  reasons(bdf: string): readonly string[] {
    const found = readFunction(this.#path(bdf));
    return found === undefined ? ["no such function"] : new DeviceUsage(this.root).reasons(found);
  }

  verdict(bdf: string): ReturnType<typeof judge> | undefined {
    const found = readFunction(this.#path(bdf));
    return found === undefined ? undefined : judge(found, new DeviceUsage(this.root));
  }

  #put(path: string, text: string): void {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${text}\n`);
  }
}

const both = (t: Test): Host =>
  new Host(t, [
    { bdf: DISK, class: "0x010802", driver: "nvme", group: 1 },
    { bdf: NIC, driver: "e1000e", group: 2 },
  ]);

t.test("DeviceUsage.reasons() finds none for an unused disk and network card", async (t) => {
  const host = both(t);
  host.device("block", "nvme0n1", DISK, { dev: "259:0" });
  host.device("net", "eth0", NIC);
  host.proc("self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw");
  host.proc("swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 100 0 -2");
  host.proc(
    "net/route",
    "Iface Destination Gateway Flags RefCnt Use Metric Mask\nwlan0 00000000 0100000A 3 0 0 0 00000000",
  );
  t.same(host.reasons(DISK), []);
  t.same(host.reasons(NIC), []);
});

t.test("DeviceUsage.reasons() names the mount point of a partition", async (t) => {
  const host = both(t);
  host.device("block", "nvme0n1", DISK, { dev: "259:0" });
  host.device("block", "nvme0n1p2", DISK, { dev: "259:2" });
  host.proc("self/mountinfo", "22 1 259:2 / /home rw,relatime shared:1 - ext4 /dev/root rw");
  t.same(host.reasons(DISK), ["a file system is mounted at /home (nvme0n1p2)"]);
});

t.test("DeviceUsage.reasons() finds a btrfs by its source, as its device number is made up", async (t) => {
  const host = both(t);
  host.device("block", "nvme0n1p1", DISK, { dev: "259:1" });
  host.proc("1/mountinfo", "22 1 0:27 /@ / rw shared:1 - btrfs /dev/nvme0n1p1 rw");
  t.same(host.reasons(DISK), ["a file system is mounted at / (nvme0n1p1)"]);
});

t.test("DeviceUsage.reasons() follows volumes on encrypted devices on partitions", async (t) => {
  const host = both(t);
  host.device("block", "nvme0n1p3", DISK, { dev: "259:3", "holders/dm-0": "" });
  host.device("block", "dm-0", undefined, { dev: "253:0", "dm/name": "crypt", "holders/dm-1": "" });
  host.device("block", "dm-1", undefined, { dev: "253:1", "dm/name": "vg-root" });
  host.proc("self/mountinfo", "22 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw");
  t.same(host.reasons(DISK), ["a file system is mounted at / (vg-root)"]);
});

t.test("DeviceUsage.reasons() finds swap, by its device's number or its volume's name", async (t) => {
  const host = both(t);
  host.device("block", "nvme0n1p1", DISK, { dev: "259:1", "holders/dm-4": "" });
  host.device("block", "dm-4", undefined, { dev: "253:4", "dm/name": "vg-swap" });
  host.proc("swaps", "Filename Type Size Used Priority\n/dev/dm-4 partition 100 0 -2");
  t.same(host.reasons(DISK), ["the host swaps to it (vg-swap)"]);
});

t.test("DeviceUsage.reasons() finds the shared namespace of an NVMe controller with several paths", async (t) => {
  const host = both(t);
  host.device("block", "nvme0c1n1", DISK);
  host.device("block", "nvme0n1", undefined, { dev: "259:0" });
  host.device("block", "nvme0n1p1", undefined, { dev: "259:1" });
  host.proc("self/mountinfo", "22 1 259:1 / /srv rw - xfs /dev/nvme0n1p1 rw");
  t.same(host.reasons(DISK), ["a file system is mounted at /srv (nvme0n1p1)"]);
});

t.test("DeviceUsage.reasons() finds a default route, through bonds, bridges and VLANs, and for IPv6", async (t) => {
  const host = both(t);
  host.device("net", "eth0", NIC, { upper_bond0: "" });
  host.device("net", "bond0", undefined, { "upper_bond0.7": "" });
  host.device("net", "bond0.7", undefined);
  host.proc("net/route", "Iface Destination Gateway Flags RefCnt Use Metric Mask\nbond0.7 00000000 0 3 0 0 0 00000000");
  t.same(host.reasons(NIC), ["the default route is bond0.7, by eth0"]);

  const six = both(t);
  six.device("net", "eth1", NIC);
  const zeros = "0".repeat(32);
  six.proc(
    "net/ipv6_route",
    `${zeros} 00 ${zeros} 00 fe800000000000000000000000000001 1 1 0 3 eth1\n${zeros} 00 ${zeros} 00 ${zeros} ` +
      "ffffffff 1 0 200200 lo",
  );
  t.same(six.reasons(NIC), ["the default route is eth1"]);
});

t.test("DeviceUsage.reasons() does not take a route to one network for the default route", async (t) => {
  const host = both(t);
  host.device("net", "eth0", NIC);
  host.proc("net/route", "Iface Destination Gateway Flags RefCnt Use Metric Mask\neth0 0000000A 0 1 0 0 0 00FFFFFF");
  t.same(host.reasons(NIC), []);
});

t.test("DeviceUsage.reasons() finds the boot display, bridges, virtual functions and open groups", async (t) => {
  const host = new Host(t, [
    { bdf: "0000:00:02.0", class: "0x030000", driver: "i915", group: 0, files: { boot_vga: "1" } },
    { bdf: "0000:00:1f.0", class: "0x060100", group: 1 },
    { bdf: NIC, driver: "ice", group: 2, files: { sriov_numvfs: "4" } },
    { bdf: DISK, driver: "vfio-pci", group: 7 },
  ]);
  host.link("77/fd/9", "/dev/vfio/7");
  host.proc("77/comm", "qemu-system-x86");
  t.same(host.reasons("0000:00:02.0"), ["it is the display the host started with"]);
  t.same(host.reasons("0000:00:1f.0"), ["it is a bridge"]);
  t.same(host.reasons(NIC), ["it has 4 virtual functions, which would go"]);
  t.same(host.reasons(DISK), ["process 77 (qemu-system-x86) has its IOMMU group open"]);
});

t.test("judge() tells ready, needs bind and blocked apart", async (t) => {
  const host = new Host(t, [
    { bdf: "0000:00:01.0", class: "0x060400", driver: "pcieport", group: 0 },
    { bdf: "0000:01:00.0", driver: "vfio-pci", group: 1 },
    { bdf: "0000:02:00.0", driver: "e1000e", group: 2 },
    { bdf: "0000:02:00.1", driver: "e1000e", group: 2 },
    { bdf: "0000:03:00.0", driver: "vfio-pci", group: 3 },
    { bdf: "0000:03:00.1", class: "0x030000", driver: "amdgpu", group: 3, files: { boot_vga: "1" } },
    { bdf: "0000:04:00.0", group: 4, groupName: "vfio-noiommu" },
    { bdf: "0000:05:00.0", driver: "e1000e" },
  ]);
  t.same(host.verdict("0000:00:01.0"), { state: "blocked", reason: "it is a bridge" });
  t.same(host.verdict("0000:01:00.0"), { state: "ready" });
  t.same(host.verdict("0000:02:00.0"), { state: "needs bind", bind: ["0000:02:00.0", "0000:02:00.1"] });
  t.same(host.verdict("0000:03:00.0"), {
    state: "blocked",
    reason: "0000:03:00.1 of its group: it is the display the host started with",
  });
  t.same(host.verdict("0000:04:00.0"), { state: "blocked", reason: "its group has no IOMMU behind it" });
  t.same(host.verdict("0000:05:00.0"), { state: "blocked", reason: "no IOMMU translates for it" });
});

t.test(
  "judge() takes a virtual function whose own driver offers it by VFIO for ready, and advises no bind",
  async (t) => {
    const vgpu: SysfsFunction = {
      bdf: "0000:41:00.4",
      vendor: "0x10de",
      class: "0x030200",
      driver: "nvidia",
      group: 7,
    };
    const host = new Host(t, [{ ...vgpu, physfn: "0000:41:00.0", files: { "vfio-dev/vfio0/dev": "511:0" } }]);
    t.same(host.verdict("0000:41:00.4"), { state: "ready" });
  },
);

/** An NVMe drive behind Intel VMD, in a domain of the kernel's own. */
const BEHIND_VMD: SysfsFunction = {
  ...{ bdf: "10000:e1:00.0", class: "0x010802", driver: "nvme", group: 9 },
  under: "0000:00:0e.0/pci10000:e0/10000:e0:06.0",
};

t.test("judge() blocks what is behind Intel VMD for the true reason, and lists it", async (t) => {
  const host = new Host(t, [{ bdf: DISK, driver: "nvme", group: 1 }, BEHIND_VMD]);
  t.same(
    listFunctions(host.root.sys).map(({ bdf }) => bdf),
    [DISK, "10000:e1:00.0"],
  );
  const reason =
    "it is behind the VMD controller 0000:00:0e.0, which does DMA for it, so that it cannot be given away alone";
  t.same(host.verdict("10000:e1:00.0"), { state: "blocked", reason });
});

/** A second graphics card with its nodes, as the kernel's drivers lay them out; and an NVIDIA one, which has none. */
const CARD: SysfsFunction = {
  ...{ bdf: "0000:41:00.0", class: "0x030000", driver: "amdgpu", group: 41 },
  files: {
    "drm/card1/uevent": "MAJOR=226\nMINOR=1\nDEVNAME=dri/card1\nDEVTYPE=drm_minor",
    "drm/renderD129/uevent": "MAJOR=226\nMINOR=129\nDEVNAME=dri/renderD129",
  },
};
const SOUND: SysfsFunction = {
  ...{ bdf: "0000:41:00.1", class: "0x040300", driver: "snd_hda_intel", group: 41 },
  files: { "sound/card1/pcmC1D3p/uevent": "MAJOR=116\nMINOR=3\nDEVNAME=snd/pcmC1D3p" },
};
const NVIDIA: SysfsFunction = { bdf: "0000:42:00.0", class: "0x030200", driver: "nvidia", group: 42 };

t.test("DeviceUsage.reasons() names the process that has a device open by its node", async (t) => {
  const host = new Host(t, [CARD, SOUND, NVIDIA]);
  t.same(host.reasons(CARD.bdf), [], "no process has it open");
  host.link("77/fd/9", "/dev/dri/card1");
  host.proc("77/comm", "Xorg");
  host.link("88/fd/4", "/dev/snd/pcmC1D3p");
  host.proc("88/comm", "pipewire");
  host.link("99/fd/5", "/dev/nvidia0");
  host.proc("99/comm", "nvidia-persiste");
  host.link("99/fd/6", "/dev/nvidiactl");
  t.same(host.reasons(CARD.bdf), ["process 77 (Xorg) has /dev/dri/card1 open"]);
  t.same(host.reasons(SOUND.bdf), ["process 88 (pipewire) has /dev/snd/pcmC1D3p open"]);
  t.same(host.reasons(NVIDIA.bdf), ["process 99 (nvidia-persiste) has /dev/nvidia0 open"]);
  t.same(host.verdict(CARD.bdf), { state: "blocked", reason: "process 77 (Xorg) has /dev/dri/card1 open" });
  host.proc("driver/nvidia/gpus/0000:42:00.0/information", "Model: \t\t NVIDIA A2\nDevice Minor: \t 1");
  t.same(host.reasons(NVIDIA.bdf), [], "another card is in use");
});

t.test("DeviceUsage.reasons() follows the default route through Open vSwitch, which sysfs does not show", async (t) => {
  const host = new Host(t, [{ bdf: NIC, driver: "ixgbe", group: 2 }]);
  host.device("net", "eth0", NIC, { "upper_ovs-system/ifindex": "5" });
  host.device("net", "ovs-system", undefined);
  host.device("net", "br-ex", undefined);
  t.same(host.reasons(NIC), [], "there is no default route");
  host.proc(
    "net/route",
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\nbr-ex\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000",
  );
  t.same(host.reasons(NIC), ["the default route is br-ex, by Open vSwitch and its port eth0"]);
});

t.test("DeviceUsage.reasons() lets an Open vSwitch port go where the default route is elsewhere", async (t) => {
  const host = new Host(t, [{ bdf: NIC, driver: "ixgbe", group: 2 }]);
  host.device("net", "eth0", NIC, { "upper_ovs-system/ifindex": "5" });
  host.device("net", "ovs-system", undefined);
  host.device("net", "br0", undefined, { "bridge/bridge_id": "8000.000000000000" });
  host.proc(
    "net/route",
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\nbr0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000",
  );
  t.same(host.reasons(NIC), []);
});

t.test("judge() blocks a function whose registers read as all ones", async (t) => {
  const host = new Host(t, [{ bdf: DISK, driver: "vfio-pci", group: 1, config: new Uint8Array(256).fill(0xff) }]);
  t.match(host.verdict(DISK), { state: "blocked", reason: /^it does not answer: .*rescan/ });
});
