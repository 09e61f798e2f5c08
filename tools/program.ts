import { spawn } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { join } from "node:path";
import { ToolError } from "./tool-error.ts";

/** Where programs are looked for: an ordinary user's PATH lacks the system directories. */
const SYSTEM_DIRECTORIES = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/**
 * Answers a full path for a program (a path as it is), looking in PATH and in the system directories; `undefined` when
 * it is not installed.
 */
export function findProgram(name: string): string | undefined {
  if (name.includes("/")) return existsSync(name) ? name : undefined;
  for (const directory of [...(process.env["PATH"] ?? "").split(":"), ...SYSTEM_DIRECTORIES]) {
    const path = join(directory, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here: the next directory.
    }
  }
  return undefined;
}

export interface ProgramOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** What the program reads on its standard input; nothing when absent. */
  readonly input?: Uint8Array;
}

/**
 * Runs a program to its end and answers what it wrote to standard output.
 *
 * @throws ToolError when it cannot start or ends with another status than 0; the text carries the last lines of its
 *   standard error.
 */
export function runProgram(name: string, args: readonly string[], options: ProgramOptions = {}): Promise<Buffer> {
  const path = findProgram(name);
  if (path === undefined) return Promise.reject(new ToolError(`Cannot run ${name}: it is not installed`));
  return new Promise((resolve, reject) => {
    const child = spawn(path, args, {
      cwd: options.cwd,
      env: { ...process.env, LC_ALL: "C", ...options.env },
      stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    const output: Buffer[] = [];
    const complaints: Buffer[] = [];
    child.stdout?.on("data", (chunk: Buffer) => output.push(chunk));
    child.stderr?.on("data", (chunk: Buffer) => complaints.push(chunk));
    // A program that ends without reading all its input breaks the pipe; its exit status says what went wrong.
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(options.input);
    child.on("error", (error) => reject(new ToolError(`Cannot run ${name}: ${error.message}`)));
    child.on("close", (status, signal) => {
      if (status === 0) return resolve(Buffer.concat(output));
      const said = Buffer.concat(complaints).toString().trim().split("\n").slice(-5).join("; ");
      reject(
        new ToolError(
          `Cannot run ${[name, ...args].join(" ")}: it ended with ${signal ?? `status ${status}`}`,
          said || undefined,
        ),
      );
    });
  });
}
