import { existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { HostError, SpecError } from "../../../src/base/errors.ts";
import { bind, tellWait, unbind } from "../../../src/cli/binding.ts";
import { listFunctions } from "../../../src/host-pci/functions.ts";
import { FakePciDrivers } from "../../support/fake-pci-drivers.ts";
import { type FakeSurroundings, fakeSurroundings } from "../../support/fake-surroundings.ts";

const GPU = "0000:01:00.0";
const AUDIO = "0000:01:00.1";
const DISK = "0000:02:00.0";

function setUp(t: Test): { readonly around: FakeSurroundings; readonly kernel: FakePciDrivers } {
  const around = fakeSurroundings(t, [
    { bdf: "0000:00:01.0", class: "0x060400", driver: "pcieport", group: 1 },
    { bdf: GPU, class: "0x030000", driver: "amdgpu", group: 1 },
    { bdf: AUDIO, class: "0x040300", driver: "snd_hda_intel", group: 1 },
    { bdf: DISK, class: "0x010802", driver: "nvme", group: 2 },
    { bdf: "0000:03:00.0", driver: "e1000e" },
  ]);
  const { sys, proc } = around.root;
  const block = join(sys, "devices/pci0000:00", DISK, "nvme/nvme0/nvme0n1");
  mkdirSync(block, { recursive: true });
  mkdirSync(join(sys, "class/block"), { recursive: true });
  symlinkSync(block, join(sys, "class/block/nvme0n1"));
  mkdirSync(join(proc, "self"), { recursive: true });
  writeFileSync(join(proc, "self/mountinfo"), "22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
  const kernel = new FakePciDrivers(sys, [
    { name: "vfio-pci", takes: [] },
    { name: "vfio_iommu_type1", takes: [] },
    { name: "pcieport", takes: [] },
    { name: "amdgpu", takes: [GPU] },
    { name: "snd_hda_intel", takes: [AUDIO] },
    { name: "nvme", takes: [DISK] },
  ]);
  return { around, kernel };
}

t.test("bind() and unbind() say what changed, and what did not", async (t) => {
  const { around, kernel } = setUp(t);
  const run = (command: typeof bind, ...argv: string[]): string => {
    const before = around.printed().length;
    t.equal(command(argv, around, kernel), 0);
    return around.printed().slice(before);
  };
  t.equal(run(bind, "01:00.0"), `${GPU}: amdgpu → vfio-pci\n`);
  t.match(
    around.remarks(),
    "group 1 cannot be used yet, host drivers have 0000:01:00.1 (snd_hda_intel): tsvmm bind --group",
  );
  t.equal(run(bind, "01:00.0"), `${GPU}: vfio-pci has it already\n`);
  t.equal(run(unbind, GPU), `${GPU}: vfio-pci → amdgpu\n`);
  t.equal(run(unbind, GPU), `${GPU}: nothing to do, amdgpu has it\n`);
});

t.test("bind() --group takes the whole group but its bridges", async (t) => {
  const { around, kernel } = setUp(t);
  bind(["--group", GPU], around, kernel);
  t.equal(around.printed(), `${GPU}: amdgpu → vfio-pci\n${AUDIO}: snd_hda_intel → vfio-pci\n`);
  t.equal(kernel.driverOf("0000:00:01.0"), "pcieport");
  t.equal(around.remarks(), "");
  unbind(["--group", AUDIO], around, kernel);
  t.equal(kernel.driverOf(GPU), "amdgpu");
  t.equal(kernel.driverOf(AUDIO), "snd_hda_intel");
});

t.test("bind() refuses what the host uses, unless --force is given", async (t) => {
  const { around, kernel } = setUp(t);
  t.throws(() => bind([DISK], around, kernel), {
    message: `Cannot bind ${DISK}: a file system is mounted at / (nvme0n1) (--force does it all the same)`,
  });
  t.throws(() => bind([GPU, DISK], around, kernel), HostError, "nothing is done to the first either");
  t.same(kernel.log, []);
  bind([DISK, "--force"], around, kernel);
  t.equal(kernel.driverOf(DISK), "vfio-pci");
});

t.test("bind() refuses bridges and functions without an IOMMU", async (t) => {
  const { around, kernel } = setUp(t);
  t.throws(() => bind(["0000:00:01.0"], around, kernel), { message: /it is a bridge/ });
  t.throws(() => bind(["0000:03:00.0"], around, kernel), { message: /no IOMMU translates for it \(.*intel_iommu=on/ });
});

t.test("unbind() refuses a function whose group a process has open: the kernel would wait for it", async (t) => {
  const { around, kernel } = setUp(t);
  bind([GPU], around, kernel);
  const pid = join(around.root.proc, "77");
  mkdirSync(join(pid, "fd"), { recursive: true });
  writeFileSync(join(pid, "comm"), "node\n");
  symlinkSync("/dev/vfio/1", join(pid, "fd/20"));
  t.throws(() => unbind([GPU], around, kernel), {
    message: `Cannot unbind ${GPU}: process 77 (node) has its IOMMU group open (--force does it all the same)`,
  });
  unbind([GPU, "--force"], around, kernel);
  t.equal(kernel.driverOf(GPU), "amdgpu");
});

t.test("bind() --dry-run prints each write and does none", async (t) => {
  const { around, kernel } = setUp(t);
  bind(["--dry-run", GPU], around, kernel);
  const devices = `${around.root.sys}/bus/pci/devices/${GPU}`;
  t.equal(
    around.printed(),
    `echo vfio-pci > ${devices}/driver_override\necho ${GPU} > ${devices}/driver/unbind\necho ${GPU} > ` +
      `${around.root.sys}/bus/pci/drivers_probe\n`,
  );
  t.same(kernel.log, []);
  t.notOk(existsSync(around.root.run));
});

t.test("bind() and unbind() refuse wrong words", async (t) => {
  const { around, kernel } = setUp(t);
  for (const command of [bind, unbind]) {
    for (const argv of [[], ["0000:77:00.0"], [GPU, "01:00.0"], ["--goup", GPU], ["--group=yes", GPU], ["."], ["\0"]]) {
      t.throws(() => command(argv, around, kernel), SpecError, `${command.name} ${argv.join(" ")}`);
    }
    t.equal(command(["-h"], around, kernel), 0);
  }
  t.same(kernel.log, []);
});

t.test("tellWait() says who has the device open that a driver does not let go of", async (t) => {
  const { around } = setUp(t);
  const { sys, proc } = around.root;
  const card = join(sys, "devices/pci0000:00", GPU, "drm/card1");
  mkdirSync(card, { recursive: true });
  writeFileSync(join(card, "uevent"), "DEVNAME=dri/card1\n");
  const functions = listFunctions(sys).filter(({ bdf }) => bdf === GPU);
  tellWait(functions, GPU, 10, around);
  mkdirSync(join(proc, "77/fd"), { recursive: true });
  writeFileSync(join(proc, "77/comm"), "Xorg\n");
  symlinkSync("/dev/dri/card1", join(proc, "77/fd/9"));
  tellWait(functions, GPU, 20, around);
  const how = "Ctrl-C ends this command, and the kernel goes on waiting";
  t.same(around.remarks().trimEnd().split("\n"), [
    `${GPU}: amdgpu has not let go of it for 10 s: no process is seen that has it open; ${how}`,
    `${GPU}: amdgpu has not let go of it for 20 s: process 77 (Xorg) has /dev/dri/card1 open; ${how}`,
  ]);
});
