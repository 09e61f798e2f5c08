import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";

/*
 * Recordings of terminals in asciicast v2 form: a line with the size, then a line of `[seconds, "o", text]` for each
 * piece of output.
 */

/** What a terminal showed, and when. */
export interface TerminalRecording {
  readonly columns: number;
  readonly rows: number;
  readonly title: string;
  readonly output: readonly { readonly seconds: number; readonly text: string }[];
}

/**
 * Runs a shell command in a terminal of its own, showing its output here too. @returns The recording and the exit
 * status.
 */
export async function recordTerminal(
  command: string,
  size: { readonly columns: number; readonly rows: number },
): Promise<{ readonly recording: TerminalRecording; readonly status: number }> {
  const output: { seconds: number; text: string }[] = [];
  const started = performance.now();
  // script(1) of util-linux makes the terminal; it passes the command's status on.
  const inTerminal = `stty cols ${size.columns} rows ${size.rows}; exec ${command}`;
  const child = spawn("script", ["--quiet", "--return", "--command", inTerminal, "/dev/null"], {
    stdio: ["inherit", "pipe", "inherit"],
  });
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    process.stdout.write(text);
    output.push({ seconds: (performance.now() - started) / 1000, text });
  });
  const status = await new Promise<number>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve(code ?? 1));
  });
  return { recording: { ...size, title: command, output }, status };
}

/** Writes a recording; asciinema plays it. */
export function writeRecording(path: string, { columns, rows, title, output }: TerminalRecording): void {
  const lines = output.map(({ seconds, text }) => [Math.round(seconds * 1000) / 1000, "o", text]);
  const all = [{ version: 2, width: columns, height: rows, title }, ...lines];
  writeFileSync(path, `${all.map((line) => JSON.stringify(line)).join("\n")}\n`);
}

/** @throws Error when the file is no asciicast v2. */
export function readRecording(path: string): TerminalRecording {
  const [head = "", ...lines] = readFileSync(path, "utf8").trimEnd().split("\n");
  // Cast: what the form says; version and the fields used are looked at.
  const { version, width, height, title } = JSON.parse(head) as Readonly<Record<string, unknown>>;
  if (version !== 2 || typeof width !== "number" || typeof height !== "number") {
    throw new Error(`Cannot read ${path}: it is no asciicast v2 recording`);
  }
  const output = lines.flatMap((line) => {
    // Cast: a line of the form's second part.
    const [seconds, kind, text] = JSON.parse(line) as readonly [number, string, string];
    return kind === "o" ? [{ seconds, text }] : [];
  });
  return { columns: width, rows: height, title: typeof title === "string" ? title : "", output };
}
