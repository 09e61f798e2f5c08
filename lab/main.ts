/**
 * `npm run lab -- [options] [--] command…`: runs a command on a nested host that has an IOMMU and real PCI functions.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HostError, SpecError } from "../src/base/errors.ts";
import { type LabArguments, parseLabArguments } from "./arguments.ts";
import { DEVICE_MODELS, labFunctions } from "./devices.ts";
import { ensureLabPrerequisites } from "./prerequisites.ts";
import { runLab, shellQuote } from "./run.ts";

const USAGE = `Runs a command on a nested host that has /dev/kvm, an IOMMU and real PCI functions.

usage: npm run lab -- [options] [--] command [argument…]

  --device MODEL[,image=FILE][,PROPERTY=VALUE…]   a PCI function, given to vfio-pci; the first is 0000:01:00.0, the next
                                                  0000:02:00.0, and so on; MODEL+MODEL puts two functions in one slot
  --keep-drivers      leave the functions without vfio-pci
  --out DIRECTORY     bring back what the command writes to /lab/out
  --timeout SECONDS   for everything; 600 when absent
  --cpus N, --memory MIB   of the nested host; 2 and 4096 when absent
  --tcg, --kvm        how its CPUs are run; by what this machine can do when absent

The command sees this machine's files and works in the same directory. What it writes stays in the nested host's memory,
except in /lab/out. Its output comes here, and its exit status is this command's.

models:
${Object.entries(DEVICE_MODELS)
  .map(([name, model]) => `  ${name.padEnd(16)} ${model.purpose}`)
  .join("\n")}
  any other PCI device of QEMU by its name there
`;

/** What a shell reports for a program that SIGINT has ended. */
const INTERRUPTED = 130;

const progress = (text: string): void => {
  process.stderr.write(`lab: ${text}\n`);
};

async function lab(options: LabArguments): Promise<number> {
  await ensureLabPrerequisites(progress);
  const interruption = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => interruption.abort());
  const shareDirectory = mkdtempSync(join(tmpdir(), "tsvmm-lab-share-"));
  mkdirSync(join(shareDirectory, "out"));
  let isFailed = false;
  for (const { bdf, model } of labFunctions(options.devices)) progress(`${bdf} is ${model}`);
  try {
    const result = await runLab({
      devices: options.devices,
      // The whole run has a deadline; the command has no other.
      scenarios: [{ name: "command", script: options.command.map(shellQuote).join(" "), timeoutMs: options.timeoutMs }],
      shareDirectory,
      timeoutMs: options.timeoutMs,
      drivers: options.drivers,
      signal: interruption.signal,
      onProgress: progress,
      onOutput: (bytes) => process.stdout.write(bytes),
      cpus: options.cpus,
      memoryMib: options.memoryMib,
      ...(options.accelerator !== undefined && { accelerator: options.accelerator }),
    });
    const command = result.scenarios[0];
    progress(`the command took ${command?.seconds.toFixed(1)} s, all together ${result.totalSeconds.toFixed(1)} s`);
    return command?.status ?? 1;
  } catch (error) {
    isFailed = !interruption.signal.aborted;
    if (isFailed) throw error;
    progress("interrupted: the nested host is switched off");
    return INTERRUPTED;
  } finally {
    const written = join(shareDirectory, "out");
    if (options.out !== undefined && existsSync(written)) cpSync(written, options.out, { recursive: true });
    // A failure's message names the console log in it.
    if (!isFailed) rmSync(shareDirectory, { recursive: true, force: true });
  }
}

try {
  const options = parseLabArguments(process.argv.slice(2));
  if (options === undefined) console.log(USAGE);
  else process.exitCode = await lab(options);
} catch (error) {
  if (!(error instanceof HostError) && !(error instanceof SpecError)) throw error;
  console.error(`lab: ${error.message}`);
  process.exitCode = error instanceof SpecError ? 2 : 1;
}
