import { createHash } from "node:crypto";
import { copyFileSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eduGuest } from "../../guests/edu-guest.ts";
import { Machine, type MachineInput, type MachineStatistics } from "../../src/index.ts";
import { GuestShell } from "./guest-shell.ts";
import { startDeviceProcess, tsvmm } from "./host-commands.ts";
import { maskedVectorsGuest } from "./masked-vectors-guest.ts";
import { type Observations, runScenarioProgram, type Scenarios } from "./scenario-program.ts";

/*
 * Runs inside the nested host, as a program: `node scenarios.js '{"vmlinux": …}' RESULTS NAME…`. Each scenario is a
 * guest or two; the test on the other side judges what it saw.
 */

/** What the nested host has, as paths and addresses. */
export interface LabInputs {
  readonly vmlinux: string;
  readonly plainVmlinux: string;
  readonly vmlinuz: string;
  readonly initramfs: string;
  readonly disk: string;
  /** Host addresses of the passed functions. */
  readonly nvme: string;
  readonly e1000e: string;
  readonly sdhci: string;
  readonly edu: string;
}

const MIB = 1024 ** 2;
/** How much the data-path scenarios read, in MiB. */
const READ_MIB = 64;
/** What the guest computes of the NVMe disk's first 4 MiB. */
const SHA256 = "head -c 4194304 /dev/nvme0n1 | sha256sum";

let inputs: LabInputs;
let folder: string;

/** A fresh copy of the disk for each guest. */
function disk(): string {
  const path = join(folder, "disk.raw");
  copyFileSync(inputs.disk, path);
  return path;
}

const linux = (more: Partial<MachineInput>): MachineInput => ({
  kernel: inputs.vmlinux,
  cmdline: "console=ttyS0 root=/dev/vda1 rw quiet",
  memory: { sizeBytes: 512 * MIB },
  disks: [{ path: disk() }],
  ...more,
});

/** Userspace exits that are no port I/O: what a passed-through device's data path could cause. */
const mmioExits = ({ exits }: MachineStatistics): number => exits.mmioRead + exits.mmioWrite;

/** Reads {@link READ_MIB} MiB of the disk past the guest's cache and answers the exits that took. */
async function readDisk(shell: GuestShell): Promise<{ mmioExits: number; interrupts: number }> {
  const interrupts = async (): Promise<number> => {
    const { output } = await shell.run("grep nvme0q[1-9] /proc/interrupts");
    return [...output.matchAll(/^ *\d+:((?: +\d+)+)/gm)]
      .flatMap((line) => (line[1] ?? "").trim().split(/ +/).map(Number))
      .reduce((sum, count) => sum + count, 0);
  };
  const before = { exits: mmioExits(await shell.machine.statistics()), interrupts: await interrupts() };
  await shell.run(`dd if=/dev/nvme0n1 of=/dev/null bs=1M count=${READ_MIB} iflag=direct`);
  const after = { exits: mmioExits(await shell.machine.statistics()), interrupts: await interrupts() };
  return { mmioExits: after.exits - before.exits, interrupts: after.interrupts - before.interrupts };
}

/** Where a bare-metal guest finds its function. */
const BARE_METAL_SLOT = 5;

/** Runs a guest that drives one function and leaves with the number of the step that failed, 0 for none. */
async function bareMetal(image: Uint8Array, path: string): Promise<Observations> {
  const kernel = join(folder, "bare-metal.elf");
  writeFileSync(kernel, image);
  const devices = [{ path, pciSlot: BARE_METAL_SLOT }];
  const machine = await Machine.start({ kernel, memory: { sizeBytes: 16 * MIB }, devices, debugExitPort: 0xf4 });
  const { status } = await machine.exited;
  return { failedStep: status >> 1, functions: (await machine.statistics()).functions };
}

const SCENARIOS: Scenarios = {
  /** The teaching device under a bare-metal guest: registers, DMA, MSI. */
  edu: () => bareMetal(eduGuest(BARE_METAL_SLOT), inputs.edu),

  /** The network card under another: two MSI-X vectors, masked one by one and together. */
  maskedVectors: () => bareMetal(maskedVectorsGuest(BARE_METAL_SLOT), inputs.e1000e),

  /** Two devices at once, four CPUs, from the disk. */
  async twoDevices() {
    const devices = [{ path: inputs.nvme }, { path: inputs.e1000e }];
    const shell = await GuestShell.boot(linux({ cpus: { count: 4 }, devices }));
    const bootExits = await shell.machine.statistics();
    const cpus = (await shell.run("nproc")).output.trim();
    const nvmeSha256 = (await shell.run(SHA256)).output.split(" ")[0];
    const wrote = (
      await shell.run("echo written by the guest | dd of=/dev/nvme0n1 bs=512 seek=16384 conv=fsync,notrunc")
    ).status;
    const dataPath = await readDisk(shell);
    await shell.run("ip link set eth0 up");
    const lease = (
      await shell.run(
        "udhcpc -i eth0 -n -q -t 20 -T 1 -s /usr/share/udhcpc/default.script && ip addr show eth0 && ping -c 2 " +
          "10.0.2.2",
      )
    ).output;
    const interrupts = (await shell.run("cat /proc/interrupts")).output;
    const functions = (await shell.run("pci")).output;
    const counters = (await shell.machine.statistics()).functions; // a driver gives its vectors back at power off
    const { status } = await shell.end("poweroff");
    return { bootExits, cpus, nvmeSha256, wrote, dataPath, lease, interrupts, functions, counters, status };
  },

  /** The same two through a reboot of the guest; then the host takes one of them back while the guest runs. */
  async rebootAndUnbind() {
    const devices = [{ path: inputs.nvme }, { path: inputs.e1000e }];
    const shell = await GuestShell.boot(linux({ devices }));
    const before = (await shell.run(SHA256)).output.split(" ")[0];
    shell.machine.serial.write("reboot -f\n");
    await shell.waitForPrompt();
    const after = (await shell.run(SHA256)).output.split(" ")[0];
    const unbound = await tsvmm("unbind", "--force", inputs.e1000e);
    const left = (await shell.run("pci; ip link show eth0")).output;
    const { status, statistics } = await shell.end("poweroff");
    return { before, after, unbound, left, status, resets: statistics.resets };
  },

  /**
   * The same disk controller once more, every access trapped, in a guest booted from a bzImage; the guest panics and
   * comes back.
   */
  async trapped() {
    const shell = await GuestShell.boot(
      linux({
        kernel: inputs.vmlinuz,
        initramfs: inputs.initramfs,
        cmdline: "console=ttyS0 root=/dev/vda1 rw quiet panic=1",
        devices: [{ path: inputs.nvme, bars: "trap" }],
      }),
    );
    const cpus = (await shell.run("nproc")).output.trim();
    const nvmeSha256 = (await shell.run(SHA256)).output.split(" ")[0];
    const dataPath = await readDisk(shell);
    shell.mayCrash = true;
    shell.machine.serial.write("echo c > /proc/sysrq-trigger\n");
    await shell.waitForPrompt();
    const { status, statistics } = await shell.end("poweroff");
    return { cpus, nvmeSha256, dataPath, status, resets: statistics.resets, functions: statistics.functions };
  },

  /** Devices that are processes: an NVMe disk for Linux' own driver, and edu's registers. */
  async userDevices() {
    const image = join(folder, "user-nvme.img");
    const content = Buffer.alloc(
      16 * MIB,
      Uint8Array.from({ length: 4099 }, (_, index) => index * 7),
    );
    writeFileSync(image, content);
    const nvme = await startDeviceProcess("nvme", join(folder, "nvme.sock"), "--image", image);
    const edu = await startDeviceProcess("edu", join(folder, "edu.sock"));
    const shell = await GuestShell.boot(
      // Emulation makes servers slow.
      linux({
        cpus: { count: 2 },
        userDevices: [
          { socket: nvme.socket, timeoutSeconds: 60 },
          { socket: edu.socket, timeoutSeconds: 60 },
        ],
      }),
    );
    const functions = (await shell.run("pci")).output;
    const nvmeSha256 = (await shell.run(SHA256)).output.split(" ")[0];
    const wrote = (
      await shell.run("echo written by the guest | dd of=/dev/nvme0n1 bs=512 seek=16384 conv=fsync,notrunc")
    ).status;
    // Each CPU has a queue of its own, and a vector: it reads something by it.
    for (const mask of [1, 2])
      await shell.run(`taskset ${mask} dd if=/dev/nvme0n1 of=/dev/null bs=4k count=8 iflag=direct`);
    const interrupts = (await shell.run("grep nvme0q /proc/interrupts")).output;
    const eduDirectory = "/sys/bus/pci/devices/0000:00:04.0";
    await shell.run(`echo 1 > ${eduDirectory}/enable; read bar rest < ${eduDirectory}/resource`);
    await shell.run("devmem $((bar + 4)) 32 0x12345678; devmem $((bar + 8)) 32 5");
    const registers = (await shell.run("for at in 0 4 8; do devmem $((bar + at)) 32; done")).output;
    const counters = (await shell.machine.statistics()).functions;
    const { status } = await shell.end("poweroff");
    const written = readFileSync(image)
      .subarray(16_384 * 512, 16_384 * 512 + 21)
      .toString();
    const expected = createHash("sha256")
      .update(content.subarray(0, 4 * MIB))
      .digest("hex");
    const ends = [await nvme.end(), await edu.end()];
    return { functions, nvmeSha256, expected, wrote, written, interrupts, registers, counters, status, ends };
  },

  /** The card reader, which has a legacy interrupt only, in a guest from Debian's kernel as it is. */
  async legacyInterrupt() {
    const shell = await GuestShell.boot(
      linux({ kernel: inputs.plainVmlinux, initramfs: inputs.initramfs, devices: [{ path: inputs.sdhci }] }),
    );
    await shell.run("await /dev/mmcblk0p1 && mount -t vfat /dev/mmcblk0p1 /mnt");
    const sha256 = (await shell.run("sha256sum /mnt/random.bin")).output.split(" ")[0];
    const wrote = (await shell.run("echo from the guest > /mnt/guest.txt && umount /mnt")).status;
    const interrupts = (await shell.run("grep mmc0 /proc/interrupts")).output;
    const { status } = await shell.end("poweroff");
    return { sha256, wrote, interrupts, status, protocol: shell.machine.plan?.bootProtocol };
  },
};

const [json = "{}", results = "", ...names] = process.argv.slice(2);
// Cast: the test wrote it from a value of that type.
inputs = JSON.parse(json) as LabInputs;
folder = mkdtempSync(join(tmpdir(), "tsvmm-scenarios-"));
await runScenarioProgram(SCENARIOS, results, names);
