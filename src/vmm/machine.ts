import { EventEmitter } from "node:events";
import { HostError } from "../base/errors.ts";
import { ReportLimit } from "../base/report-limit.ts";
import type { MachineTrace, TraceOptions } from "./control/traces.ts";
import { createLogger, type Logger, logFiles } from "./log.ts";
import type { MachineEvents, MachineOptions, MachineStatistics } from "./machine-api.ts";
import type { MachineExit } from "./machine-exit.ts";
import { MachineLife } from "./machine-life.ts";
import type { Channel, LogLevel, ToDeviceThread } from "./shared/messages.ts";
import type { MachinePlan } from "./shared/plan.ts";
import type { MachineSnapshot } from "./shared/snapshot.ts";
import { formatTrace, type TraceEvent } from "./shared/trace-event.ts";
import type { MachineInput, MachineSpec } from "./spec/spec.ts";
import { completeSpec } from "./spec/spec-check.ts";
import { type TextChannel, textChannel } from "./text-channel.ts";

/** How long devices may take to end without progress, then all threads, in milliseconds. */
const END_TIMEOUT = 30_000;
/**
 * Starts a machine of a specification that was completed already: the command line's, which has to tell what is wrong
 * before it loads this module. For other modules of this program; {@link Machine.start} completes what it is given.
 */
export let startCompleted: (spec: MachineSpec, options?: MachineOptions) => Promise<Machine>;
/** As {@link Machine.describe}, of a specification that was completed already. */
export let describeCompleted: (spec: MachineSpec, options?: MachineOptions) => Promise<MachinePlan>;

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
  readonly #life: MachineLife;
  #exitCode: number | undefined;

  private constructor(spec: MachineSpec, options: MachineOptions) {
    super();
    this.spec = spec;
    this.#logger = createLogger(options.log ?? { level: "silent", format: "auto" });
    const channel = (name: Channel): TextChannel =>
      textChannel(name, spec[name], (bytes) => this.#send({ kind: "input", channel: name, bytes }), options);
    this.serial = channel("serial");
    this.console = channel("console");
    try {
      this.#life = this.#makeLife(options.endTimeoutMs ?? END_TIMEOUT);
    } catch (error) {
      this.#logger.close();
      throw error;
    }
    this.exited = this.#life.exited;
    if (options.log?.level === "trace") this.#logTrace();
  }

  static {
    startCompleted = (spec, options) => Machine.#start(spec, options);
    describeCompleted = (spec, options) => Machine.#describe(spec, options);
  }

  /**
   * Starts a machine; resolves when its first vCPU runs.
   *
   * @throws SpecError when the spec is wrong, HostError when the host refuses or lacks something, the reason of
   *   `options.signal` when that was aborted. Nothing is left behind then.
   */
  static async start(input: MachineInput, options: MachineOptions = {}): Promise<Machine> {
    return Machine.#start(completeSpec(input, logFiles(options.log)), options);
  }

  static async #start(spec: MachineSpec, options: MachineOptions = {}): Promise<Machine> {
    const machine = new Machine(spec, options);
    await machine.#life.start(options.signal);
    return machine;
  }

  /**
   * Makes a machine up to its first instruction, describes it and takes it apart again.
   *
   * @throws SpecError, HostError as {@link Machine.start} does.
   */
  static async describe(input: MachineInput, options: MachineOptions = {}): Promise<MachinePlan> {
    return Machine.#describe(completeSpec(input, logFiles(options.log)), options);
  }

  static async #describe(spec: MachineSpec, options: MachineOptions = {}): Promise<MachinePlan> {
    const machine = new Machine(spec, options);
    await machine.#life.assemble(options.signal);
    await machine.stop("described");
    const { plan } = machine;
    if (plan !== undefined) return plan;
    throw new HostError("TSVMM_MACHINE_OFF", "Cannot describe the machine: it ended before it was made");
  }

  /** What the machine is made of, since its first start. */
  get plan(): MachinePlan | undefined {
    return this.#life.power.plan;
  }

  /** `undefined` while it runs. */
  get exitCode(): number | undefined {
    return this.#exitCode;
  }

  /** Stops the vCPUs, gives the devices back, ends the threads. Calling it again waits for the same end. */
  async stop(text = "stopped by the host"): Promise<MachineExit> {
    this.#life.end({ status: 0, reason: "stopped", text });
    return await this.exited;
  }

  /** Presses the power button: a guest with ACPI shuts down in order. */
  pressPowerButton(): void {
    this.#send({ kind: "powerButton" });
  }

  /** Tells the console that the terminal has another size. */
  resizeConsole(columns: number, rows: number): void {
    this.#send({ kind: "resize", columns, rows });
  }

  async statistics(): Promise<MachineStatistics> {
    const { power, resets } = this.#life;
    return { ...(await power.deviceStatistics()), exits: power.cpus.counts(), resets };
  }

  /**
   * Answers what the machine is like now: functions with their BARs, configuration spaces, vectors and queues, memory
   * slots, interrupt routes, doorbells, buses. The guest goes on meanwhile, nothing changes by it, and no device is
   * asked.
   *
   * @throws HostError while the machine is off: after its end, and during a reset of the guest.
   */
  async snapshot(): Promise<MachineSnapshot> {
    const { power, resets } = this.#life;
    const devices = await power.devices.snapshot();
    return { ...devices, vcpus: power.cpus.countsByVcpu().map((exits) => ({ exits })), resets };
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
    return this.#life.power.devices.trace(listener, options);
  }

  /** The same as {@link stop}, for `await using machine = await Machine.start(…)`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #makeLife(endTimeoutMs: number): MachineLife {
    return new MachineLife({
      spec: this.spec,
      endTimeoutMs,
      report: this.#log,
      tell: (...line) => this.#tell(...line),
      onLog: (message) => this.#tell(message.level, message.text, message.details), // limited by the thread itself
      onCpuLog: (message) => this.#log(message.level, message.text, message.details),
      onPty: (channel, path) => {
        this.#log("info", `the ${channel} is at ${path}`);
        this.emit("pty", channel, path);
      },
      onOutput: (channel, bytes, dropped) =>
        (channel === "serial" ? this.serial : this.console).receive(bytes, dropped),
      onSlowEnd: (seconds, step) => this.#log("warn", `the devices take ${seconds} s: ${step ?? "not told why"}`),
      onReset: () => {
        this.serial.reset();
        this.console.reset();
        this.emit("reset");
      },
      onEnd: (exit, isReleased) => this.#ended(exit, isReleased),
      onLate: () => this.#logger.close(),
    });
  }

  #ended(exit: MachineExit, isReleased: boolean): void {
    this.serial.end(exit.text);
    this.console.end(exit.text);
    this.#exitCode = exit.status;
    this.#limit.settle();
    this.#log("info", exit.text); // a failure is the caller's to show: it has the error
    if (isReleased) this.#logger.close();
    this.emit("exit", exit);
  }

  #send(message: ToDeviceThread): void {
    this.#life.power.devices.send(message);
  }

  /** Level `trace` of the log: every step is a line, and none is lost. */
  #logTrace(): void {
    const tell = (event: TraceEvent): void => this.#tell("trace", formatTrace(event), { trace: event });
    // Never refused: the thread is not there yet.
    void this.#life.power.devices.trace(tell, { whenBehind: "wait" });
  }

  #tell(level: LogLevel, text: string, details?: Readonly<Record<string, unknown>>): void {
    this.#logger.log(level, text, details);
    this.emit("log", level, text, details);
  }
}
