import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { HostError } from "../src/base/errors.ts";
import { findProgram } from "../tools/program.ts";
import { ToolError } from "../tools/tool-error.ts";
import { type LabEvent, ReportStream } from "./report-stream.ts";
import type { LabOptions, LabResult, ScenarioResult } from "./scenario.ts";

/** Booting takes 12–20 s under emulation; a machine that is busy otherwise needs several times that. */
const BOOT_TIMEOUT_MS = 240_000;
/** From the last report until QEMU ends: file systems are synchronised by then. */
const POWER_OFF_TIMEOUT_MS = 30_000;
/** How often a run that says nothing says that it is alive. */
const HEARTBEAT_MS = 15_000;

/** From a scenario's own deadline, which the nested host keeps, until the nested host counts as dead. */
const OVERDUE_MS = 45_000;

/** What Linux prints when it gives up, and when it has lost its way and may not come to that. */
const PANIC =
  /Kernel panic - not syncing|BUG: (kernel NULL pointer|scheduling while atomic|unable to handle page fault)/;

/**
 * The nested host's own kernel gave up, stands still or started anew. Under emulation that happens now and then,
 * through no fault of what runs in it: QEMU's translator was seen to let a guest run on with its host's GS base, and
 * the host's kernel then finds itself damaged.
 */
export class NestedHostLost extends ToolError {
  /** Scenarios that had come to their end. */
  readonly results: readonly ScenarioResult[];

  constructor(text: string, results: readonly ScenarioResult[]) {
    super(text);
    this.results = results;
  }
}

/** Unix sockets that QEMU connects to. */
export interface LabSockets {
  readonly consoleSocket: string;
  readonly reportSocket: string;
}

/** One QEMU and what is connected to it, from start to end. */
export class LabRun {
  readonly #options: LabOptions;
  readonly #reports: ReportStream;
  readonly #socketDirectory: string = mkdtempSync(join(tmpdir(), "tsvmm-lab-"));
  readonly #servers: Server[] = [];
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #results: ScenarioResult[] = [];
  readonly #console: Buffer[] = [];
  readonly #killQemu = (): void => void this.#qemu?.kill("SIGKILL");
  #qemu: ChildProcess | undefined;
  #startedMs = 0;
  #bootSeconds: number | undefined;
  #scenario: { readonly name: string; readonly startedMs: number; readonly output: Buffer[] } | undefined;
  #isDone = false;
  #isOverdue = false;
  #deadline: NodeJS.Timeout | undefined;
  /** QEMU came to its end by itself and complained of nothing: with `-no-reboot`, the nested host was reset. */
  #wasReset = false;
  #lastOutputMs = 0;
  /** Why we ended it ourselves. */
  #verdict: HostError | undefined;

  constructor(options: LabOptions, token: string) {
    this.#options = options;
    this.#reports = new ReportStream(token, (event) => this.#handle(event));
  }

  /**
   * Starts QEMU with the arguments that `argumentsFor` answers, and waits until it has ended.
   *
   * @throws HostError when it did not come to its regular end.
   */
  async start(argumentsFor: (sockets: LabSockets) => readonly string[]): Promise<Omit<LabResult, "accelerator">> {
    try {
      const consoleSocket = await this.#listen("console", (chunk) => this.#console.push(chunk));
      const reportSocket = await this.#listen("report", (chunk) => this.#reports.push(chunk));
      const failure = await this.#runQemu(argumentsFor({ consoleSocket, reportSocket }));
      const consoleLog = Buffer.concat(this.#console).toString();
      const logFile = join(this.#options.shareDirectory, "console.log");
      writeFileSync(logFile, consoleLog);
      if (this.#verdict !== undefined || !this.#isDone) {
        const what = this.#verdict?.message ?? `The nested host ended before its time: ${failure}`;
        const last = consoleLog.trimEnd().split("\n").slice(-5).join("\n  ");
        if (this.#isOverdue || this.#wasReset || PANIC.test(consoleLog)) {
          throw new NestedHostLost(`${what}\n  ${last}`, this.#results);
        }
        throw new ToolError(`${what}\nLast lines of its console (all of it is in ${logFile}):\n  ${last}`);
      }
      return {
        bootSeconds: this.#bootSeconds ?? 0,
        totalSeconds: secondsSince(this.#startedMs),
        scenarios: this.#results,
        consoleLog,
      };
    } finally {
      this.#close();
    }
  }

  #listen(name: string, onData: (chunk: Buffer) => void): Promise<string> {
    const path = join(this.#socketDirectory, name);
    const server = createServer((socket: Socket) => {
      socket.on("data", onData);
      // QEMU is killed at times; what it had sent has been read.
      socket.on("error", () => undefined);
    });
    this.#servers.push(server);
    return new Promise((resolve, reject) => {
      server.on("error", reject);
      server.listen(path, () => resolve(path));
    });
  }

  /** Runs QEMU to its end and says how that was. */
  #runQemu(args: readonly string[]): Promise<string> {
    const qemu = findProgram("qemu-system-x86_64");
    if (qemu === undefined) throw new ToolError("Cannot run qemu-system-x86_64: it is not installed");
    // Even if this process is killed, QEMU is not left behind.
    const guard = findProgram("setpriv");
    const guarded = ["--pdeathsig", "KILL", "--", qemu, ...args];
    this.#startedMs = Date.now();
    const child = spawn(guard ?? qemu, guard === undefined ? args : guarded, { stdio: ["ignore", "ignore", "pipe"] });
    this.#qemu = child;
    process.on("exit", this.#killQemu);
    this.#after(this.#options.timeoutMs, () => this.#end(`the time is up (${this.#options.timeoutMs / 1000} s)`));
    this.#after(BOOT_TIMEOUT_MS, () => {
      if (this.#bootSeconds === undefined) this.#end(`it was not up after ${BOOT_TIMEOUT_MS / 1000} s`);
    });
    this.#timers.push(setInterval(() => this.#heartbeat(), HEARTBEAT_MS));
    const abort = (): void => this.#end("it was interrupted");
    if (this.#options.signal?.aborted) abort();
    this.#options.signal?.addEventListener("abort", abort, { once: true });
    let complaints = "";
    child.stderr.on("data", (chunk: Buffer) => {
      complaints += chunk.toString();
    });
    return new Promise((resolve) => {
      child.on("error", (error) => resolve(error.message));
      child.on("close", (status, signal) => {
        this.#options.signal?.removeEventListener("abort", abort);
        const complaint = complaints.trim();
        this.#wasReset = status === 0 && complaint === "";
        if (this.#wasReset) resolve("it was reset");
        else resolve(complaint || `QEMU ended with ${signal ?? `status ${status}`}`);
      });
    });
  }

  #after(milliseconds: number, act: () => void): void {
    this.#timers.push(setTimeout(act, milliseconds));
  }

  /** Switches the nested host off, the hard way. */
  #end(reason: string): void {
    const where = this.#scenario === undefined ? "" : ` during ${this.#scenario.name}`;
    this.#verdict ??= new ToolError(`The nested host was switched off${where}: ${reason}`);
    this.#killQemu();
  }

  /** Shows that a run which says nothing is alive. */
  #heartbeat(): void {
    if (Date.now() - this.#lastOutputMs < HEARTBEAT_MS) return;
    const doing = this.#scenario?.name ?? (this.#bootSeconds === undefined ? "booting" : "between scenarios");
    this.#options.onProgress?.(`${Math.round(secondsSince(this.#startedMs))} s: ${doing}`);
  }

  /** Ends the run when the nested host does not keep a scenario's deadline itself. */
  #watch(name: string): void {
    const allowedMs = this.#options.scenarios.find((one) => one.name === name)?.timeoutMs ?? this.#options.timeoutMs;
    this.#deadline = setTimeout(() => {
      this.#isOverdue = true;
      this.#end("it does not keep its own deadlines any more");
    }, allowedMs + OVERDUE_MS);
  }

  #handle(event: LabEvent): void {
    switch (event.kind) {
      case "ready":
        this.#bootSeconds = secondsSince(this.#startedMs);
        this.#options.onProgress?.(
          `the nested host (Linux ${event.text}) is up after ${this.#bootSeconds.toFixed(1)} s`,
        );
        return;
      case "problem":
        this.#end(event.text);
        return;
      case "begin":
        this.#scenario = { name: event.scenario.replace(/^\d+-/, ""), startedMs: Date.now(), output: [] };
        this.#watch(this.#scenario.name);
        return;
      case "output":
        this.#lastOutputMs = Date.now();
        this.#scenario?.output.push(event.bytes);
        if (this.#scenario !== undefined) this.#options.onOutput?.(event.bytes, this.#scenario.name);
        return;
      case "end":
        if (this.#scenario === undefined) return;
        this.#results.push({
          name: this.#scenario.name,
          status: event.status,
          output: Buffer.concat(this.#scenario.output).toString(),
          seconds: secondsSince(this.#scenario.startedMs),
        });
        this.#scenario = undefined;
        clearTimeout(this.#deadline);
        return;
      case "done":
        this.#isDone = true;
        // The machine's files are complete: if switching off takes longer than this, it is done for us.
        this.#after(POWER_OFF_TIMEOUT_MS, this.#killQemu);
        return;
      default:
        event satisfies never;
    }
  }

  #close(): void {
    this.#killQemu();
    process.off("exit", this.#killQemu);
    for (const timer of this.#timers) clearTimeout(timer);
    clearTimeout(this.#deadline);
    for (const server of this.#servers) server.close();
    rmSync(this.#socketDirectory, { recursive: true, force: true });
  }
}

const secondsSince = (startedMs: number): number => (Date.now() - startedMs) / 1000;
