import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chooseAccelerator } from "./accelerator.ts";
import { labFunctions } from "./devices.ts";
import { LabRun, NestedHostLost } from "./lab-run.ts";
import { nestedHostImage, qemuArguments, readLabScript } from "./nested-host.ts";
import { type LabOptions, type LabResult, LOST_STATUSES, type ScenarioResult } from "./scenario.ts";

/** How often an emulated host whose kernel gave up is started. */
const ATTEMPTS = 5;

/**
 * Boots a nested host with an IOMMU and the given PCI functions, runs scenarios in it one after another, and switches
 * it off.
 *
 * The nested host sees this machine's files (writes stay in its memory, except in `/lab`), so node and the compiled
 * project are there.
 *
 * @returns When every scenario has ended, however it ended: look at each status. One of {@link LOST_STATUSES} ends the
 *   run: the nested host may be the reason, and scenarios behind it are not in the result.
 * @throws HostError when the nested host cannot start, ends early, or the time is up; the text says where its console
 *   log is.
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
      ? `booting the nested host without hardware help (${reason}): about 15 s; all in it is 4 to 40 times slower ` +
          "than here"
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
