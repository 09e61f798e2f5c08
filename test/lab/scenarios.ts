import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { Machine, type MachineInput, type MachineStatistics } from "../../src/index.ts";
import { multibootImage } from "../support/multiboot-image.ts";
import { eduGuest } from "./edu-guest.ts";
import { GuestShell } from "./guest-shell.ts";

/*
 * Runs inside the nested host, as a program: `node scenarios.js '{"vmlinux": …}' RESULTS NAME…`. Each scenario is a guest or two; what
 * it saw is written to RESULTS, one JSON line each, where the test on the other side judges it. One process for all of them, since
 * starting node is what takes longest there.
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

/** A scenario's observations: plain data, whatever the scenario found worth telling. */
export type Observations = Record<string, unknown>;

const MIB = 1024 ** 2;
/** How much the data-path scenarios read, in MiB. */
const READ_MIB = 64;

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

/** The address of some function that a driver has. */
function functionOf(driver: string): string {
  const [link] = readdirSync(`/sys/bus/pci/drivers/${driver}`).filter((name) => name.startsWith("0000:"));
  if (link === undefined) throw new Error(`The nested host has no function with the driver ${driver}`);
  return link;
}

/** Waits until a stream says `text`; it is read on afterwards, so that its writer never blocks. */
async function untilItSays(stream: Readable, text: string): Promise<void> {
  let said = "";
  await new Promise<void>((resolve, reject) => {
    stream.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes(text)) resolve();
    });
    stream.on("end", () => reject(new Error(`It ended without saying "${text}": ${said}`)));
  });
}

const SCENARIOS: Readonly<Record<string, () => Promise<Observations>>> = {
  /** The teaching device under a bare-metal guest: registers, DMA, MSI. */
  async edu() {
    const kernel = join(folder, "edu.elf");
    writeFileSync(kernel, eduGuest(5));
    const devices = [{ path: inputs.edu, pciSlot: 5 }];
    const machine = await Machine.start({ kernel, memory: { sizeBytes: 16 * MIB }, devices, debugExitPort: 0xf4 });
    const { status } = await machine.exited;
    return { failedStep: status >> 1, functions: (await machine.statistics()).functions };
  },

  /** Refusals, each by the command itself; and a machine that is killed, after which the next one takes the device. */
  async refusals() {
    const main = fileURLToPath(new URL("../../bundle/main.js", import.meta.url));
    const kernel = join(folder, "halt.elf");
    writeFileSync(kernel, multibootImage((a) => void a.cli().label("end").hlt().jmp("end")).bytes);
    const command = (device: string): readonly string[] => [
      main,
      "--kernel",
      kernel,
      "--serial",
      "null",
      "--device",
      device,
    ];
    const refused = (device: string): { readonly status: number | null; readonly text: string } => {
      const { status, stderr } = spawnSync(process.execPath, command(device), { encoding: "utf8" });
      return { status, text: stderr };
    };
    const missing = refused("0000:42:00.0");
    const ownDriver = refused(functionOf("virtio-pci")); // one that the nested host itself uses
    const holder = spawn(process.execPath, [...command(inputs.edu), "-v", "--log-format", "json"], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    await untilItSays(holder.stderr, "the guest runs");
    const inUse = refused(inputs.edu);
    holder.kill("SIGKILL");
    await once(holder, "exit");
    const next = spawn(process.execPath, [...command(inputs.edu), "-v", "--log-format", "json"], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    await untilItSays(next.stderr, "the guest runs");
    next.kill("SIGTERM");
    const [afterTerm] = await once(next, "exit");
    return { missing, ownDriver, inUse, holderPid: holder.pid, afterTerm };
  },

  /** Two devices at once, four CPUs, from the disk; then a reboot with both. */
  async twoDevices() {
    const devices = [{ path: inputs.nvme }, { path: inputs.e1000e }];
    const shell = await GuestShell.boot(linux({ cpus: { count: 4 }, devices }));
    const bootExits = await shell.machine.statistics();
    const cpus = (await shell.run("nproc")).output.trim();
    const nvmeSha256 = (await shell.run("head -c 4194304 /dev/nvme0n1 | sha256sum")).output.split(" ")[0];
    const wrote = (
      await shell.run("echo written by the guest | dd of=/dev/nvme0n1 bs=512 seek=16384 conv=fsync,notrunc")
    ).status;
    const dataPath = await readDisk(shell);
    await shell.run("ip link set eth0 up");
    const lease = (
      await shell.run(
        "udhcpc -i eth0 -n -q -t 20 -T 1 -s /usr/share/udhcpc/default.script && ip addr show eth0 && ping -c 2 10.0.2.2",
      )
    ).output;
    const interrupts = (await shell.run("cat /proc/interrupts")).output;
    const functions = (await shell.run("pci")).output;
    shell.machine.serial.write("reboot -f\n");
    await shell.waitForPrompt();
    const again = (await shell.run("head -c 4194304 /dev/nvme0n1 | sha256sum")).output.split(" ")[0];
    const { status, statistics } = await shell.end("poweroff");
    return {
      ...{ bootExits, cpus, nvmeSha256, wrote, dataPath, lease, interrupts, functions, again, status },
      ...{ resets: statistics.resets, plan: shell.machine.plan },
    };
  },

  /** The same disk controller once more, every access trapped, in a guest booted from a bzImage; the guest panics and comes back. */
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
    const nvmeSha256 = (await shell.run("head -c 4194304 /dev/nvme0n1 | sha256sum")).output.split(" ")[0];
    const dataPath = await readDisk(shell);
    shell.machine.serial.write("echo c > /proc/sysrq-trigger\n");
    await shell.waitForPrompt();
    const { status, statistics } = await shell.end("poweroff");
    return { cpus, nvmeSha256, dataPath, status, resets: statistics.resets, functions: statistics.functions };
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
// Should the nested host itself have gone down, this program runs again: what was seen before stays.
const seen = existsSync(results) ? readFileSync(results, "utf8") : "";
for (const name of names.filter((name) => !seen.includes(`"name":"${name}"`))) {
  const started = performance.now();
  let line: Observations;
  try {
    const scenario = SCENARIOS[name];
    if (scenario === undefined) throw new Error(`There is no scenario ${name}`);
    line = { name, ...(await scenario()) };
  } catch (error) {
    line = { name, error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
  appendFileSync(
    results,
    `${JSON.stringify({ ...line, seconds: Math.round((performance.now() - started) / 1000) })}\n`,
  );
}
