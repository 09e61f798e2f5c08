import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Progress } from "../guest-images/apt.ts";
import { type Accelerator, chooseAccelerator } from "./accelerator.ts";
import { type LabDevice, labFunctions } from "./devices.ts";
import { LabRun, NestedHostLost } from "./lab-run.ts";
import { nestedHostImage, qemuArguments, readLabScript } from "./nested-host.ts";

/** How often an emulated host whose kernel gave up is started. */
const ATTEMPTS = 5;

/** Statuses of a scenario behind which no other is run in the same nested host: EX_TEMPFAIL, and timeout(1)'s. */
export const LOST_STATUSES: readonly number[] = [75, 124, 137];

/** One thing to do in the nested host. */
export interface Scenario {
  /** Letters, digits, dots and hyphens. */
  readonly name: string;
  /** A bash script; `/lab` is the shared directory. Whatever it leaves running is killed at its end. */
  readonly script: string;
  readonly timeoutMs: number;
}

export interface LabOptions {
  readonly scenarios: readonly Scenario[];
  readonly devices: readonly LabDevice[];
  /** Directory both sides can write to, made when absent; `/lab` in the nested host. It is kept. */
  readonly shareDirectory: string;
  /** For everything: boot, scenarios, power off. */
  readonly timeoutMs: number;
  /** Chosen by what this machine can do when absent. */
  readonly accelerator?: Accelerator;
  /** 2 when absent. */
  readonly cpus?: number;
  /** 4096 when absent. */
  readonly memoryMib?: number;
  /** `vfio` (the default) gives each device to vfio-pci before the first scenario. */
  readonly drivers?: "vfio" | "none";
  /** Takes what a scenario prints, as it comes. */
  readonly onOutput?: (bytes: Buffer, scenario: string) => void;
  readonly onProgress?: Progress;
  /** Ends the run: the nested host is switched off at once. */
  readonly signal?: AbortSignal;
}

export interface ScenarioResult {
  readonly name: string;
  /** Exit status; 124 and 137 when its time was up. */
  readonly status: number;
  /** What it printed, standard output and standard error in order. */
  readonly output: string;
  readonly seconds: number;
}

export interface LabResult {
  readonly accelerator: Accelerator;
  /** From QEMU's start until the first scenario. */
  readonly bootSeconds: number;
  readonly totalSeconds: number;
  readonly scenarios: readonly ScenarioResult[];
  /** The nested host's kernel messages. */
  readonly consoleLog: string;
}

/**
 * Boots a nested host with an IOMMU and the given PCI functions, runs scenarios in it one after another, and switches it off.
 *
 * The nested host sees this machine's files (writes stay in its memory, except in `/lab`), so node and the compiled project are there.
 *
 * @returns When every scenario has ended, however it ended: look at each status. One of {@link LOST_STATUSES} ends the run: the nested host
 *   may be the reason, and scenarios behind it are not in the result.
 * @throws HostError when the nested host cannot start, ends early, or the time is up; the text says where its console log is.
 */
export async function runLab(options: LabOptions): Promise<LabResult> {
  const progress = options.onProgress ?? (() => undefined);
  const image = await nestedHostImage(progress);
  const choice = chooseAccelerator();
  const accelerator = options.accelerator ?? choice.accelerator;
  const reason = options.accelerator === undefined ? choice.reason : "as asked for";
  const token = randomBytes(8).toString("hex");
  writeShare(options, image.kernel.modules, token);

  progress(
    accelerator === "tcg"
      ? `booting the nested host without hardware help (${reason}): about 15 s; all in it is 4 to 40 times slower than here`
      : `booting the nested host under KVM (${reason})`,
  );
  const start = (remaining: LabOptions): Promise<Omit<LabResult, "accelerator">> =>
    new LabRun(remaining, token).start((sockets) =>
      qemuArguments({
        accelerator,
        cpus: options.cpus ?? 2,
        memoryMib: options.memoryMib ?? 4096,
        devices: options.devices,
        vmlinux: image.vmlinux,
        shareDirectory: options.shareDirectory,
        ...sockets,
      }),
    );
  const done: ScenarioResult[] = [];
  for (let attempt = 1; ; attempt++) {
    const remaining = { ...options, scenarios: options.scenarios.slice(done.length) };
    if (attempt > 1) writeShare(remaining, image.kernel.modules, token);
    try {
      const outcome = await start(remaining);
      return { accelerator, ...outcome, scenarios: [...done, ...outcome.scenarios] };
    } catch (error) {
      if (!(error instanceof NestedHostLost) || accelerator !== "tcg" || attempt === ATTEMPTS) throw error;
      done.push(...error.results);
      progress(
        "the nested host was lost, which the emulation brings about now and then; starting it again for the rest",
      );
    }
  }
}

/** Puts what the agent reads into the shared directory. */
function writeShare(options: LabOptions, modules: string, token: string): void {
  const share = options.shareDirectory;
  rmSync(join(share, "scenarios"), { recursive: true, force: true });
  mkdirSync(join(share, "scenarios"), { recursive: true });
  options.scenarios.forEach(({ name, script, timeoutMs }, index) => {
    // The number keeps them in order; the agent goes by the directory's names.
    const directory = join(share, "scenarios", `${String(index).padStart(3, "0")}-${name}`);
    mkdirSync(directory);
    writeFileSync(join(directory, "script"), script);
    writeFileSync(join(directory, "seconds"), `${Math.ceil(timeoutMs / 1000)}`);
  });
  const environment = {
    PATH: process.env["PATH"] ?? "",
    HOME: process.env["HOME"] ?? "/root",
    LAB_DIRECTORY: process.cwd(),
    LAB_MODULES: modules,
    LAB_DEVICES: labFunctions(options.devices)
      .map(({ bdf }) => bdf)
      .join(" "),
    LAB_DRIVERS: options.drivers ?? "vfio",
    LAB_LOST_STATUSES: LOST_STATUSES.join(" "),
  };
  const lines = Object.entries(environment).map(([name, value]) => `export ${name}=${shellQuote(value)}\n`);
  writeFileSync(join(share, "environment"), lines.join(""));
  writeFileSync(join(share, "token"), token);
  for (const name of ["agent.sh", "vfio-bind.sh"]) writeFileSync(join(share, name), readLabScript(name));
}

/** Quotes a word for a shell. */
export const shellQuote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;
