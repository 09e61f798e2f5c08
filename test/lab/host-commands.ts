import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { multibootImage } from "../../guests/multiboot-image.ts";

/*
 * Programs in the nested host, started as a user starts them.
 */

const compiled = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
/** The program as it is shipped. */
const TSVMM = compiled("bundle/main.js");
const DEVICE_PROCESS = compiled("src/vfio-user/main.js");

/** What a command printed, standard output and standard error in order, and its exit status. */
export interface CommandOutcome {
  readonly status: number | null;
  readonly text: string;
}

/** Runs a command of tsvmm to its end. */
export async function tsvmm(...words: readonly string[]): Promise<CommandOutcome> {
  return await tsvmmUnder([], ...words);
}

/** The same as what `setpriv`, `prlimit` or another such program, with its arguments, makes of this user. */
export async function tsvmmUnder(prefix: readonly string[], ...words: readonly string[]): Promise<CommandOutcome> {
  process.stdout.write(`$ ${[...prefix, "tsvmm", ...words].join(" ")}\n`);
  const [program = "", ...args] = [...prefix, process.execPath, TSVMM, ...words];
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      process.stdout.write(chunk);
    });
  }
  const [status] = (await once(child, "close")) as [number | null]; // cast: the event's documented arguments
  return { status, text };
}

/**
 * Resolves when a stream says `text`, with all that came until then; it is read on afterwards, so that its writer never
 * blocks.
 */
async function untilItSays(stream: Readable, text: string): Promise<string> {
  let said = "";
  return await new Promise((resolve, reject) => {
    stream.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes(text)) resolve(said);
    });
    stream.on("end", () => reject(new Error(`It ended without saying "${text}": ${said}`)));
  });
}

/** A machine whose guest halts without end, as a process of its own. */
export interface HaltedMachine {
  readonly process: ChildProcess;
  /** Resolves when it says `text` on standard error, which it may have done already. */
  says(text: string): Promise<void>;
  /** How it ended, with everything that it said on standard error. */
  readonly ended: Promise<{ readonly status: number | null; readonly signal: string | null; readonly text: string }>;
}

let kernel: string | undefined;

/** Path of a kernel that halts. */
export function haltKernel(): string {
  if (kernel === undefined) {
    kernel = join(mkdtempSync(join(tmpdir(), "tsvmm-halt-")), "halt.elf");
    writeFileSync(kernel, multibootImage((a) => void a.cli().label("end").hlt().jmp("end")).bytes);
  }
  return kernel;
}

/** The command line of such a machine. */
export const haltedCommand = (...devices: readonly string[]): readonly string[] => [
  ...["--kernel", haltKernel(), "--serial", "null", "--memory", "16M"],
  ...devices.flatMap((device) => ["--device", device]),
];

/** Starts a machine with devices; resolves when its guest runs. */
export async function startHalted(...devices: readonly string[]): Promise<HaltedMachine> {
  const words = [TSVMM, ...haltedCommand(...devices), "-v", "--log-format", "json"];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "pipe"] });
  let text = "";
  let look: () => void = () => undefined;
  child.stderr.on("data", (chunk: Buffer) => {
    text += chunk.toString();
    look();
  });
  const ended = once(child, "close").then(([status, signal]) => ({ status, signal, text }));
  const says = (wanted: string): Promise<void> =>
    new Promise((resolve, reject) => {
      look = () => {
        if (text.includes(wanted)) resolve();
      };
      look();
      void ended.then(() => reject(new Error(`It ended without saying "${wanted}": ${text}`)));
    });
  await says("the guest runs");
  return { process: child, says, ended };
}

/** A device that is a process; it serves one machine after another. */
export interface DeviceProcess {
  readonly socket: string;
  /** Ends it in order; answers its exit status. */
  end(): Promise<number | null>;
}

/** Starts one of the package's devices; resolves when machines can connect. */
export async function startDeviceProcess(
  kind: "edu" | "nvme",
  socket: string,
  ...words: readonly string[]
): Promise<DeviceProcess> {
  const child = spawn(process.execPath, [DEVICE_PROCESS, kind, "--socket", socket, ...words], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await untilItSays(child.stdout, "listening at");
  return {
    socket,
    end: async () => {
      child.kill("SIGTERM");
      const [status] = (await once(child, "exit")) as [number | null]; // cast: the event's documented arguments
      return status;
    },
  };
}
