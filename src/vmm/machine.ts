import { EventEmitter } from "node:events";
import { availableParallelism } from "node:os";
import { HostError } from "../base/errors.ts";
import { ReportLimit } from "../base/report-limit.ts";
import { fd, MIB } from "../base/units.ts";
import { RawTerminal } from "../host/char/terminal.ts";
import { EventFd } from "../host/eventfd.ts";
import { type AssembledMachine, Assembly } from "./control/assembly.ts";
import { addCounts } from "./control/counts.ts";
import { CpuThreads, vcpuError } from "./control/cpu-threads.ts";
import { DeviceThread } from "./control/device-thread.ts";
import { ProcessExit } from "./control/process-exit.ts";
import { RemovalWatch } from "./control/removal-watch.ts";
import { closeBehind } from "./control/thread-ends.ts";
import type { MachineTrace, TraceOptions } from "./control/traces.ts";
import { defer } from "./control/worker-link.ts";
import { createLogger, type Logger, logFiles } from "./log.ts";
import type { MachineEvents, MachineOptions, MachineStatistics } from "./machine-api.ts";
import { exitOf, failure, type MachineExit, silentTripleFault, withMore } from "./machine-exit.ts";
import { createMailboxes } from "./shared/mailbox.ts";
import type { Channel, GuestEvent, LogLevel, VcpuStop } from "./shared/messages.ts";
import type { MachinePlan } from "./shared/plan.ts";
import type { MachineSnapshot } from "./shared/snapshot.ts";
import type { DeviceStatistics } from "./shared/statistics.ts";
import { formatTrace, type TraceEvent } from "./shared/trace-event.ts";
import type { CharSpec, MachineInput, MachineSpec } from "./spec/spec.ts";
import { completeSpec } from "./spec/spec-check.ts";
import { TextChannel } from "./text-channel.ts";

/** How long a stop may take, in milliseconds: first the vCPUs, then the devices without progress, then all threads. */
const VCPU_DEADLINE = 10_000;
const DEVICE_DEADLINE = 30_000;
/** What threads have to end in, where the devices took all of that. */
const LAST_CHANCE = 1000;
/** A guest that dies without having touched any device is not restarted. */

/** @throws SyscallError; the log is closed then. */
function makeDoorbell(logger: Logger): EventFd {
  try {
    return EventFd.create();
  } catch (error) {
    logger.close();
    throw error;
  }
}

/**
 * A virtual machine: vCPU threads, a device thread, and this handle on the control thread.
 *
 * ```ts
 * const spec = { kernel: "vmlinux", initramfs: "initramfs.cpio", cmdline: "console=ttyS0" };
 * await using machine = await Machine.start(spec);
 * await machine.serial.waitFor(/login:/, { timeoutMs: 60_000 });
 * ```
 */
export class Machine extends EventEmitter<MachineEvents> implements AsyncDisposable {
  readonly spec: MachineSpec;
  /** COM1, when `spec.serial` is `{ kind: "api" }`, its default. */
  readonly serial: TextChannel;
  /** The virtio console, when `spec.console` is `{ kind: "api" }`. */
  readonly console: TextChannel;
  /** Resolves when everything is stopped and released; never rejects. */
  readonly exited: Promise<MachineExit>;

  readonly #logger: Logger;
  readonly #limit = new ReportLimit((...line) => this.#tell(...line));
  readonly #log = this.#limit.report;
  readonly #doorbell: EventFd;
  readonly #devices: DeviceThread;
  readonly #cpus: CpuThreads;
  readonly #assembly: Assembly;
  readonly #exit = defer<MachineExit>();
  readonly #removals = new RemovalWatch({
    report: this.#log,
    onFailure: (error) => this.#fail(error),
    lookAgain: (device) => this.#devices.send({ kind: "examine", device }),
    policyOf: (id) => this.spec.devices.find((device) => device.id === id)?.onUnbind ?? "wait",
  });
  readonly #processExit: ProcessExit;
  readonly #endTimeout: number;
  #terminal: RawTerminal | undefined;
  #plan: MachinePlan | undefined;
  /** Set once the machine is on its way out: the first reason wins. */
  #ending: MachineExit | undefined;
  /** Starts, resets and the end happen one after another. */
  #work: Promise<void> = Promise.resolve();
  #resets = 0;
  #isResetting = false;
  #exitCode: number | undefined;
  /** It has ended, and a thread would not. */
  #hasLeftThread = false;
  /** Of power cycles that are over. */
  #accesses: Record<string, number> = {};
  #lastFunctions: DeviceStatistics["functions"] = [];

  private constructor(spec: MachineSpec, options: MachineOptions) {
    super();
    this.spec = spec;
    this.#endTimeout = options.endTimeoutMs ?? DEVICE_DEADLINE;
    this.#logger = createLogger(options.log ?? { level: "silent", format: "auto" });
    this.exited = this.#exit.promise;
    this.serial = new TextChannel((bytes) => this.#devices.send({ kind: "input", channel: "serial", bytes }));
    this.console = new TextChannel((bytes) => this.#devices.send({ kind: "input", channel: "console", bytes }));

    this.#assembly = new Assembly(spec, this.#log);
    const mailboxes = createMailboxes(spec.cpus.count);
    this.#doorbell = makeDoorbell(this.#logger);
    const pollMicroseconds = spec.pollMicroseconds ?? (availableParallelism() > 1 ? "auto" : "never");
    this.#devices = new DeviceThread({
      data: { mailboxes, doorbell: this.#doorbell.fd, pollMicroseconds },
      disks: spec.disks,
      doorbell: this.#doorbell,
      onLog: (message) => this.#tell(message.level, message.text, message.details), // limited by the thread itself
      onGuestEvent: (event) => this.#guestEvent(event),
      onPty: (channel, path) => {
        this.#log("info", `the ${channel} is at ${path}`);
        this.emit("pty", channel, path);
      },
      onOutput: (channel, bytes, dropped) => this.#channel(channel).receive(bytes, dropped),
      onSlowEnd: (seconds, step) => this.#log("warn", `the devices take ${seconds} s: ${step ?? "not told why"}`),
      onFailure: (error) => this.#fail(error),
    });
    if (options.log?.level === "trace") this.#logTrace();
    this.#cpus = new CpuThreads({
      count: spec.cpus.count,
      mailboxes,
      doorbell: this.#doorbell.fd,
      onLog: (message) => this.#log(message.level, message.text, message.details),
      onStop: (vcpu, stop) => this.#vcpuStopped(vcpu, stop),
    });
    // process.exit() would wait without end for a thread inside KVM_RUN or epoll_wait.
    this.#processExit = new ProcessExit(() => this.#releaseThreads());
  }

  /**
   * Starts a machine; resolves when its first vCPU runs.
   *
   * @throws SpecError when the spec is wrong, HostError when the host refuses or lacks something, the reason of
   *   `options.signal` when that was aborted. Nothing is left behind then.
   */
  static async start(input: MachineInput, options: MachineOptions = {}): Promise<Machine> {
    const machine = new Machine(completeSpec(input, logFiles(options.log)), options);
    await machine.#begin(() => machine.#powerOn(), options.signal);
    return machine;
  }

  /** A start, or what is done of one. Takes apart what a failed one has left, then passes its error on. */
  async #begin(step: () => Promise<void>, signal: AbortSignal | undefined): Promise<void> {
    const abort = (): void => this.#end({ status: 0, reason: "stopped", text: "stopped while it started" });
    signal?.addEventListener("abort", abort);
    try {
      signal?.throwIfAborted();
      await this.#serialized(step);
      signal?.throwIfAborted(); // it was aborted too late to fail
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error(String(thrown));
      this.#end(failure(error));
      await this.exited;
      signal?.throwIfAborted(); // whatever came of that on the way
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * Makes a machine up to its first instruction, describes it and takes it apart again.
   *
   * @throws SpecError, HostError as {@link Machine.start} does.
   */
  static async describe(input: MachineInput, options: MachineOptions = {}): Promise<MachinePlan> {
    const machine = new Machine(completeSpec(input, logFiles(options.log)), options);
    await machine.#begin(async () => void (await machine.#assemble()), options.signal);
    await machine.stop("described");
    if (machine.#plan !== undefined) return machine.#plan;
    throw new HostError("TSVMM_MACHINE_OFF", "Cannot describe the machine: it ended before it was made");
  }

  /** What the machine is made of, since its first start. */
  get plan(): MachinePlan | undefined {
    return this.#plan;
  }

  /** `undefined` while it runs. */
  get exitCode(): number | undefined {
    return this.#exitCode;
  }

  /** Stops the vCPUs, gives the devices back, ends the threads. Calling it again waits for the same end. */
  async stop(text = "stopped by the host"): Promise<MachineExit> {
    this.#end({ status: 0, reason: "stopped", text });
    return await this.exited;
  }

  /** Presses the power button: a guest with ACPI shuts down in order. */
  pressPowerButton(): void {
    this.#devices.send({ kind: "powerButton" });
  }

  /** Tells the console that the terminal has another size. */
  resizeConsole(columns: number, rows: number): void {
    this.#devices.send({ kind: "resize", columns, rows });
  }

  async statistics(): Promise<MachineStatistics> {
    const last = { accesses: {}, functions: this.#lastFunctions };
    const devices = this.#assembly.hasVm ? await this.#devices.statistics().catch(() => last) : last;
    return {
      ...devices,
      accesses: addCounts(this.#accesses, devices.accesses),
      exits: this.#cpus.counts(),
      resets: this.#resets,
    };
  }

  /**
   * Answers what the machine is like now: functions with their BARs, configuration spaces, vectors and queues, memory
   * slots, interrupt routes, doorbells, buses. The guest goes on meanwhile, nothing changes by it, and no device is
   * asked.
   *
   * @throws HostError while the machine is off: after its end, and during a reset of the guest.
   */
  async snapshot(): Promise<MachineSnapshot> {
    const devices = await this.#devices.snapshot();
    return { ...devices, vcpus: this.#cpus.countsByVcpu().map((exits) => ({ exits })), resets: this.#resets };
  }

  /**
   * Tells `listener` of every step of guest and devices from now on, over resets of the guest: trapped accesses,
   * doorbells, interrupts' routes, memory slots, pins. The listener is called on this thread, soon after the step.
   *
   * ```ts
   * await using trace = await machine.trace((event) => console.log(formatTrace(event)));
   * ```
   *
   * @throws HostError when the machine has ended.
   */
  trace(listener: (event: TraceEvent) => void, options?: TraceOptions): Promise<MachineTrace> {
    return this.#devices.trace(listener, options);
  }

  /** The same as {@link stop}, for `await using machine = await Machine.start(…)`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Starts a power cycle. */
  async #powerOn(): Promise<void> {
    const { vcpus, start, mmapSize, plan } = await this.#assemble();
    const uses = (kind: CharSpec["kind"]): boolean => this.spec.serial.kind === kind || this.spec.console.kind === kind;
    if (uses("file") && this.#ending === undefined) await this.#devices.begin();
    if (this.#ending !== undefined) return;
    if (uses("tty")) this.#terminal ??= RawTerminal.enter(fd(0));
    this.#cpus.run(vcpus, mmapSize, start);
    this.#log("info", "the guest runs", { cpus: vcpus.length, protocol: plan.bootProtocol });
  }

  /** Makes everything up to the first instruction. */
  async #assemble(): Promise<AssembledMachine> {
    // Threads first: they need some 40 ms until their code runs, and the VM is made meanwhile.
    this.#devices.launch();
    this.#cpus.launch();
    const assembled = await this.#assembly.assemble(this.#devices);
    this.#plan = assembled.plan;
    return assembled;
  }

  /** vCPUs first, then the devices; then {@link Assembly.closeVm}. */
  async #powerOff(): Promise<void> {
    this.#removals.stopAll();
    await this.#cpus.stop(VCPU_DEADLINE);
    const last = await this.#devices.dismantle(this.#endTimeout);
    this.#accesses = addCounts(this.#accesses, last.accesses);
    this.#lastFunctions = last.functions;
  }

  #guestEvent(event: GuestEvent): void {
    if (event.kind === "deviceWanted") this.#assembly.forget(event.device);
    if ("device" in event) return this.#removals.take(event);
    switch (event.kind) {
      case "powerOff":
      case "debugExit":
      case "quit":
      case "outputClosed":
        return this.#end(exitOf(event));
      case "reset":
        return this.#reset();
      default:
        return event satisfies never;
    }
  }

  #reset(): void {
    if (!this.spec.allowReboot) return this.#end({ status: 0, reason: "reset", text: "the guest reset itself" });
    // A guest tries several ways one after another until it is gone: what comes while a reset is under way belongs to
    // it.
    if (this.#isResetting) return;
    this.#isResetting = true;
    this.#serialized(async () => {
      if (this.#ending !== undefined) return;
      await this.#powerOff();
      this.#assembly.closeVm();
      this.#resets++;
      this.#log("info", "the guest resets");
      this.emit("reset");
      await this.#powerOn();
      this.#isResetting = false;
    }).catch((error: unknown) => this.#fail(error instanceof Error ? error : new Error(String(error))));
  }

  #vcpuStopped(vcpu: number, stop: VcpuStop): void {
    const error = vcpuError(stop);
    if (error !== undefined) return this.#fail(error);
    const counts = this.#cpus.counts();
    const hasTouchedDevices = counts.portRead + counts.portWrite + counts.mmioRead + counts.mmioWrite > 0;
    if (!hasTouchedDevices) return this.#fail(silentTripleFault(this.spec.kernel));
    this.#log("warn", "triple fault: the guest resets", { vcpu });
    this.#reset();
  }

  #fail(error: Error): void {
    this.#end(failure(error));
  }

  /** The way out, taken once; what the reason is, is decided by who comes first. */
  #end(exit: MachineExit): void {
    if (this.#ending !== undefined) return;
    this.#ending = exit;
    this.#devices.hurry();
    this.#serialized(async () => {
      let final = exit;
      await this.#powerOff().catch((error: unknown) => {
        final = failure(error as Error); // cast: we throw only Errors
      });
      const threads = [...this.#cpus.end(), this.#devices.end()];
      // While they end: it keeps this thread in the kernel for 13 ms.
      if (final === exit) this.#assembly.closeVm();
      const name = `guest RAM (${this.#assembly.ramBytes / MIB} MiB) and the machine's open files`;
      const things = { name, close: () => this.#giveBack(), onLate: () => this.#logger.close() };
      const left = final === exit ? this.#endTimeout : LAST_CHANCE;
      const kept = await closeBehind(threads, left, things, (level, text) => this.#tell(level, text));
      this.#hasLeftThread = kept !== undefined;
      // What it ended by comes first; a deadline that passed on the way says less than what stays.
      if (kept !== undefined) final = exit.error === undefined ? failure(kept) : withMore(exit, kept.message);
      void Promise.all([this.#devices.gone(), ...threads.map(({ ended }) => ended)]).then(() =>
        this.#processExit.close(),
      );
      this.#terminal?.restore();
      this.serial.end(final.text);
      this.console.end(final.text);
      this.#exitCode = final.status;
      this.#limit.settle();
      this.#log("info", final.text); // a failure is the caller's to show: it has the error
      if (kept === undefined) this.#logger.close();
      this.#exit.resolve(final);
      this.emit("exit", final);
    });
  }

  /** No thread may use RAM, the VM or the doorbell any more. */
  #giveBack(): void {
    this.#assembly.closeVm();
    this.#assembly.close();
    this.#doorbell.close();
  }

  /**
   * At process exit nothing can be awaited: threads are brought to where Node can end them. False when one did not
   * come.
   */
  #releaseThreads(): boolean {
    this.#terminal?.restore();
    this.#cpus.release();
    return this.#devices.release() && !this.#hasLeftThread;
  }

  #serialized(step: () => Promise<void>): Promise<void> {
    const result = this.#work.then(step);
    this.#work = result.catch(() => undefined);
    return result;
  }

  /** Level `trace` of the log: every step is a line, and none is lost. */
  #logTrace(): void {
    const tell = (event: TraceEvent): void => this.#tell("trace", formatTrace(event), { trace: event });
    // Never refused: the thread is not there yet.
    void this.#devices.trace(tell, { whenBehind: "wait" });
  }

  #channel(channel: Channel): TextChannel {
    return channel === "serial" ? this.serial : this.console;
  }

  #tell(level: LogLevel, text: string, details?: Readonly<Record<string, unknown>>): void {
    this.#logger.log(level, text, details);
    this.emit("log", level, text, details);
  }
}
