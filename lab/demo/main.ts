/**
 * `npm run demo`: a PCI device passed to a guest, from nothing to a summary.
 *
 * usage: npm run demo [-- [--device BDF] [--vmm tsvmm|qemu] [--tcg|--kvm]]
 *
 * Without --device it makes a nested host that has an SD card reader. With --device it uses this machine's own
 * function, which must be bound to vfio-pci.
 */

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type GuestImages, guestImages } from "../../guest-images/images.ts";
import { HostError } from "../../src/base/errors.ts";
import { MIB } from "../../src/base/units.ts";
import { ensurePrerequisites, IMAGE_PREREQUISITES } from "../../tools/prerequisites.ts";
import { ToolError } from "../../tools/tool-error.ts";
import type { Accelerator } from "../accelerator.ts";
import { labDeviceBdf } from "../devices.ts";
import { readSdCardFile, sha256, writeSdCard } from "../media.ts";
import { ensureLabPrerequisites } from "../prerequisites.ts";
import { runLab, shellQuote } from "../run.ts";
import type { LabResult } from "../scenario.ts";
import { type Check, demoReport } from "./report.ts";
import { type DemoResult, GUEST_TEXT } from "./result.ts";

const HELLO = "Hello from an SD card that belongs to the guest alone\n";
const CARD_BYTES: number = 64 * MIB;
const RANDOM_BYTES: number = MIB;
/**
 * Boot of the nested host, boot of the guest, and the guest's work: a minute and a half, on a busy machine several
 * times that.
 */
const LAB_TIMEOUT_MS = 600_000;
/** How often the demo is tried where emulation may lose its guest. */
const ATTEMPTS = 3;

const progress = (text: string): void => {
  process.stderr.write(`demo: ${text}\n`);
};

/** The driving half, and its arguments, as words. */
function driver(bdf: string, images: GuestImages, result: string, vmm: string): readonly string[] {
  const program = fileURLToPath(new URL("guest.js", import.meta.url));
  return ["node", program, bdf, images.vmlinux, images.disk, result, vmm];
}

/** The demo on a nested host with an SD card reader; afterwards the card is looked at from outside. */
async function inLab(images: GuestImages, vmm: string, accelerator: Accelerator | undefined): Promise<void> {
  await ensureLabPrerequisites(progress);
  const directory = mkdtempSync(join(tmpdir(), "tsvmm-demo-"));
  const interruption = interruptible();
  let isFailed = false;
  try {
    const card = join(directory, "card.img");
    const random = randomBytes(RANDOM_BYTES);
    progress("making an SD card: a FAT file system with hello.txt and a megabyte of random bytes");
    await writeSdCard(card, CARD_BYTES, { "hello.txt": Buffer.from(HELLO), "random.bin": random });
    const share = join(directory, "share");
    mkdirSync(share);
    progress(
      "two machines boot now, one in the other: two to four minutes where the outer one is emulated, because each " +
        "of the 60,000 " +
        "accesses to the guest's serial port goes through both",
    );
    const bdf = labDeviceBdf(0);
    const run = (): Promise<LabResult> =>
      runLab({
        devices: [{ model: "sdhci-pci", image: card }],
        scenarios: [
          {
            name: "demo",
            script: driver(bdf, images, "/lab/result.json", vmm).map(shellQuote).join(" "),
            timeoutMs: LAB_TIMEOUT_MS,
          },
        ],
        shareDirectory: share,
        timeoutMs: LAB_TIMEOUT_MS,
        signal: interruption,
        onProgress: progress,
        onOutput: (bytes) => process.stdout.write(bytes),
        ...(accelerator !== undefined && { accelerator }),
      });
    let lab = await run();
    for (let attempt = 1; attempt < ATTEMPTS; attempt++) {
      if (lab.scenarios[0]?.status === 0 || lab.accelerator !== "tcg") break;
      // See the README of lab: emulation loses guests under every VMM.
      progress("the guest was lost, which happens now and then where a whole machine is emulated around it; once more");
      lab = await run();
    }
    if (lab.scenarios[0]?.status !== 0)
      throw new ToolError("The demo did not come to its end: see the last lines above");
    const result = readResult(join(share, "result.json"));
    const guestFile = (await readSdCardFile(card, "guest.txt"))?.toString().trim();
    const checks: readonly Check[] = [
      { text: "the guest read hello.txt from the card", isTrue: result.card?.helloText === HELLO },
      {
        text: `the guest's SHA-256 of the card's megabyte is the one computed here (${sha256(random).slice(0, 16)}…)`,
        isTrue: result.card?.randomSha256 === sha256(random),
      },
      { text: "the file the guest wrote is in the card's image, read from outside", isTrue: guestFile === GUEST_TEXT },
      { text: "the guest had four CPUs", isTrue: result.cpus === 4 },
      { text: "the VMM ended with status 0 after the guest's power off", isTrue: result.status === 0 },
    ];
    finish(
      result,
      checks,
      `a nested host (${lab.accelerator === "tcg" ? "emulated" : "under KVM"}), up in ${lab.bootSeconds.toFixed(0)} s`,
    );
  } catch (error) {
    isFailed = !interruption.aborted;
    throw error;
  } finally {
    // A failure's message names the console log in it.
    if (!isFailed) rmSync(directory, { recursive: true, force: true });
  }
}

/** The demo with this machine's own KVM and a function of it. */
async function onThisMachine(images: GuestImages, bdf: string, vmm: string): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "tsvmm-demo-"));
  try {
    const file = join(directory, "result.json");
    const [program = "", ...args] = driver(bdf, images, file, vmm);
    const status = await new Promise<number | null>((resolve, reject) => {
      const child = spawn(program, args, { stdio: "inherit" });
      // The child is sent the terminal's signals too, and ends by itself.
      for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
      child.on("error", reject);
      child.on("close", resolve);
    });
    if (status !== 0) throw new ToolError("The demo did not come to its end: see the last lines above");
    const result = readResult(file);
    const checks: readonly Check[] = [
      { text: "the guest sees the function on its PCI bus", isTrue: true },
      { text: "the guest had four CPUs", isTrue: result.cpus === 4 },
      { text: "the VMM ended with status 0 after the guest's power off", isTrue: result.status === 0 },
    ];
    finish(result, checks, "this machine itself");
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

// Cast: the driving half wrote it, from a value of that type.
const readResult = (file: string): DemoResult => JSON.parse(readFileSync(file, "utf8")) as DemoResult;

function finish(result: DemoResult, checks: readonly Check[], host: string): void {
  console.log(demoReport(result, checks, host));
  if (checks.some((check) => !check.isTrue)) process.exitCode = 1;
}

function interruptible(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => controller.abort());
  return controller.signal;
}

try {
  const { values } = parseArgs({
    options: {
      device: { type: "string" },
      vmm: { type: "string", default: "tsvmm" },
      tcg: { type: "boolean" },
      kvm: { type: "boolean" },
    },
  });
  await ensurePrerequisites(IMAGE_PREREQUISITES, progress);
  const images = await guestImages(progress);
  if (values.device === undefined) await inLab(images, values.vmm, values.tcg ? "tcg" : values.kvm ? "kvm" : undefined);
  else await onThisMachine(images, values.device, values.vmm);
} catch (error) {
  if (!(error instanceof HostError)) throw error;
  console.error(`demo: ${error.message}`);
  process.exitCode = 1;
}
