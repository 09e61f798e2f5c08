import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/*
 * Runs compiled test files, a batch of them in each process. tap's library counts and judges inside. Its command line
 * is not used: its loaders and its reading of every assertion cost more than most files do. The twelve files of `pci`
 * and `base` on two busy cores: `tap run` 22 s, `node` for one after the other 6 s, one process for all 2 s.
 */

/** Files that share a process: a failure tells its file, but the end of the process is everybody's. */
export interface Batch {
  readonly name: string;
  readonly files: readonly string[];
}

/** What became of a batch. */
export interface BatchRun {
  readonly name: string;
  readonly pass: number;
  readonly fail: number;
  readonly skip: number;
  /** What to show when it failed: assertions with their diagnosis, or its last lines when it did not come that far. */
  readonly trouble: string;
}

export interface BatchRules {
  /** Processes at a time. */
  readonly jobs: number;
  /** Longest a batch may take: against hangs. */
  readonly timeoutSeconds: number;
  /** Calls `act` after so many milliseconds unless what it returns is called; default: by the clock. */
  readonly after?: (milliseconds: number, act: () => void) => () => void;
  readonly env: NodeJS.ProcessEnv;
  /** Called as soon as a batch is done. */
  readonly onDone: (run: BatchRun) => void;
}

/** How much longer a batch has until it is killed, so that tap can tell which test hangs. */
const GRACE_SECONDS = 5;
const SHOWN_LINES = 40;
/** How tap ends a process in which an assertion failed. */
const FAILED = "ended with status 1";
const BATCH_PROGRAM = fileURLToPath(new URL("batch.js", import.meta.url));
/** Remembers what src opens, in each thread: workers inherit it. */
const TRACKER = new URL("track-opened.js", import.meta.url).href;

/** Runs all batches, several at a time; started in their order. */
export async function runBatches(batches: readonly Batch[], rules: BatchRules): Promise<void> {
  const waiting = batches.values();
  const work = async (): Promise<void> => {
    // All take from the same iterator.
    for (const batch of waiting) rules.onDone(await runBatch(batch, rules));
  };
  await Promise.all(Array.from({ length: rules.jobs }, work));
}

function afterTime(milliseconds: number, act: () => void): () => void {
  const timer = setTimeout(act, milliseconds);
  return () => clearTimeout(timer);
}

async function runBatch(batch: Batch, rules: BatchRules): Promise<BatchRun> {
  const { timeoutSeconds, after = afterTime, env } = rules;
  const output: string[] = [];
  const errors: string[] = [];
  let hasTimedOut = false;
  const folder = mkdtempSync(join(tmpdir(), "tsvmm-opened-"));
  const report = join(folder, "report");
  const ending = await new Promise<string>((resolve) => {
    // The name is for tap, which calls a test's scratch folder after the command line: batches at the same time need
    // their own.
    const child = spawn(process.execPath, ["--enable-source-maps", "--import", TRACKER, BATCH_PROGRAM, batch.name], {
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...env,
        TAP_TIMEOUT: String(timeoutSeconds),
        TSVMM_TEST_FILES: JSON.stringify(batch.files),
        TSVMM_OPENED_REPORT: report,
        TSVMM_OPENED_PARENT: String(process.pid),
      },
    });
    const kill = (): void => {
      hasTimedOut = true;
      child.kill("SIGKILL"); // a thread in a native call lets a process do nothing else
    };
    const forgetLimit = after((timeoutSeconds + GRACE_SECONDS) * 1000, kill);
    child.stdout.setEncoding("utf8").on("data", (text: string) => output.push(text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => errors.push(text));
    child.on("error", (error) => resolve(error.message));
    child.on("close", (code, signal) => {
      forgetLimit();
      resolve(code === 0 ? "" : `ended with ${signal ?? `status ${code}`}`);
    });
  });
  const run = judge(
    batch.name,
    output.join(""),
    errors.join(""),
    hasTimedOut ? `took over ${timeoutSeconds} s` : ending,
  );
  const left = existsSync(report) ? readFileSync(report, "utf8").trimEnd() : "";
  rmSync(folder, { recursive: true, force: true });
  if (left === "") return run;
  return { ...run, fail: run.fail + 1, trouble: [run.trouble, left].filter((text) => text !== "").join("\n") };
}

/**
 * Reads what a batch wrote.
 *
 * @param tap Its standard output. The closing comment has the figures: `# { total: 3, pass: 2, fail: 1 }`.
 * @param ending What was wrong with the process's end; "" for nothing.
 */
export function judge(name: string, tap: string, errors: string, ending: string): BatchRun {
  const closing = [...tap.matchAll(/^# \{ total: \d+.*\}$/gm)].pop()?.[0];
  const figure = (kind: string): number => Number(new RegExp(`\\b${kind}: (\\d+)`).exec(closing ?? "")?.[1] ?? 0);
  const skip = figure("skip") + figure("todo");
  const failures = failuresOf(tap);
  // One that ended early, or in which nothing ran, failed whatever it counted until then.
  const isExpected = ending === "" || (ending === FAILED && failures.length > 0);
  const isWhole = isExpected && closing !== undefined && figure("pass") + figure("fail") + skip > 0;
  const fail = isWhole && ending === "" ? figure("fail") : Math.max(1, figure("fail"));
  const why = ending === "" ? "ran no test to its end" : ending;
  const last = `${errors}${failures.length > 0 ? "" : tap}`.trimEnd().split("\n").slice(-SHOWN_LINES).join("\n");
  const trouble = [...failures, ...(isWhole ? [] : [`${why}\n${last}`])].join("\n");
  return { name, pass: figure("pass"), fail, skip, trouble: fail === 0 ? "" : trouble };
}

/** Every failed assertion of a TAP stream with its diagnosis. */
function failuresOf(tap: string): readonly string[] {
  const lines = tap.split("\n");
  return lines.flatMap((line, index) => {
    if (!/^\s+not ok /.test(line)) return [];
    const end = lines.findIndex((other, at) => at > index && /^\s+\.\.\.$/.test(other));
    return [lines.slice(index, end < 0 ? index + 1 : Math.min(end, index + SHOWN_LINES)).join("\n")];
  });
}
