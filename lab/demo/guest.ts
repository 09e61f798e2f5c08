/**
 * The part of the demo that runs where KVM and the device are. It starts the VMM with the user's own command line,
 * types at the guest's shell prompt, and records what the guest answered.
 *
 * usage: node guest.js BDF VMLINUX DISK RESULT.json [qemu]
 */

import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { HostError } from "../../src/base/errors.ts";
import { ToolError } from "../../tools/tool-error.ts";
import { GuestSession } from "../guest-session.ts";
import { type CardResult, type DemoResult, GUEST_TEXT, type MachineSummary, tsvmmCommandLine } from "./result.ts";

/** The same machine under QEMU, to compare with. */
const qemuCommandLine = (bdf: string): string =>
  "qemu-system-x86_64 -accel kvm -cpu host -M q35 -smp 4 -m 512M -nodefaults -no-reboot -display none -serial " +
  "stdio -kernel ~/vmlinux " +
  '-append "console=ttyS0 root=/dev/vda1 rw" -drive ' +
  "file=$HOME/focal-server-cloudimg-amd64.raw,format=raw,if=none,id=disk " +
  `-device virtio-blk-pci,drive=disk -device vfio-pci,host=${bdf}`;

async function demo(bdf: string, vmlinux: string, disk: string, isQemu: boolean): Promise<DemoResult> {
  const home = mkdtempSync(join(tmpdir(), "tsvmm-demo-"));
  try {
    symlinkSync(vmlinux, join(home, "vmlinux"));
    copyFileSync(disk, join(home, "focal-server-cloudimg-amd64.raw"));
    mkdirSync(join(home, "bin"));
    const main = fileURLToPath(new URL("../../bundle/main.js", import.meta.url));
    writeFileSync(join(home, "bin/tsvmm"), `#!/bin/sh\nexec node '${main}' "$@"\n`, { mode: 0o755 });
    const commandLine = isQemu ? qemuCommandLine(bdf) : tsvmmCommandLine(bdf);
    const summary = join(home, "summary.json");
    const env = {
      ...process.env,
      HOME: home,
      PATH: `${join(home, "bin")}:${process.env["PATH"]}`,
      // What the demo tells at its end comes from here; the command line stays the documented one.
      TSVMM_OPTIONS: `--summary ${summary}`,
    };
    console.log(`$ ${commandLine}`);
    const result = await drive(commandLine, bdf, env);
    // Cast: tsvmm wrote it, from a value of that type.
    return { ...result, summary: isQemu ? undefined : (JSON.parse(readFileSync(summary, "utf8")) as MachineSummary) };
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

async function drive(commandLine: string, bdf: string, env: NodeJS.ProcessEnv): Promise<Omit<DemoResult, "summary">> {
  const started = Date.now();
  const seconds = (): number => (Date.now() - started) / 1000;
  const session = new GuestSession(commandLine, (text) => process.stdout.write(text), env);
  try {
    await session.booted();
    const bootSeconds = seconds();
    const cpus = Number((await succeed(session, "grep -c ^processor /proc/cpuinfo")).trim());
    const functions = lines(await succeed(session, "pci"));
    const ids = `${identity(bdf, "vendor")} ${identity(bdf, "device")}`;
    const ours = functions.find((line) => line.includes(ids));
    if (ours === undefined)
      throw new ToolError(`The guest has no PCI function ${ids}: it sees ${functions.join("; ")}`);
    const [address = "", , , driver = ""] = ours.split(" ");
    const card = driver === "sdhci-pci" ? await useCard(session) : undefined;
    const interrupts = lines((await session.run(`interrupts ${address}`)).output);
    const status = await session.powerOff();
    return {
      ...{ commandLine, cpus, driver, functions, interrupts, card, status },
      ...{ bootSeconds, totalSeconds: seconds(), vmmLog: session.complaints },
    };
  } finally {
    session.kill();
  }
}

async function useCard(session: GuestSession): Promise<CardResult> {
  await succeed(session, "await /dev/mmcblk0p1");
  await succeed(session, "mount -t vfat /dev/mmcblk0p1 /mnt");
  const helloText = await succeed(session, "cat /mnt/hello.txt");
  const randomSha256 = (await succeed(session, "sha256sum /mnt/random.bin")).split(" ")[0] ?? "";
  await succeed(session, `echo "${GUEST_TEXT}" > /mnt/guest.txt`);
  await succeed(session, "umount /mnt");
  return { helloText, randomSha256 };
}

async function succeed(session: GuestSession, command: string): Promise<string> {
  const { status, output } = await session.run(command);
  if (status !== 0)
    throw new ToolError(`The guest's command failed with status ${status}: ${command}: ${output.trim()}`);
  return output;
}

const lines = (text: string): readonly string[] => text.split("\n").filter(Boolean);

const identity = (bdf: string, what: string): string =>
  readFileSync(`/sys/bus/pci/devices/${bdf}/${what}`, "utf8").trim();

const [bdf, vmlinux, disk, result, vmm] = process.argv.slice(2);
if (bdf === undefined || vmlinux === undefined || disk === undefined || result === undefined) {
  console.error("usage: node guest.js BDF VMLINUX DISK RESULT.json [qemu]");
  process.exitCode = 2;
} else {
  try {
    writeFileSync(result, JSON.stringify(await demo(bdf, vmlinux, disk, vmm === "qemu"), undefined, 2));
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    console.error(`\ndemo: ${error.message}`);
    process.exitCode = 1;
  }
}
