import { availableParallelism } from "node:os";
import type { Report } from "../../base/backends.ts";
import { fd, MIB } from "../../base/units.ts";
import { RawTerminal } from "../../host/char/terminal.ts";
import { EventFd } from "../../host/eventfd.ts";
import { createMailboxes } from "../shared/mailbox.ts";
import type { MachinePlan } from "../shared/plan.ts";
import type { DeviceStatistics } from "../shared/statistics.ts";
import { allKinds } from "../spec/kinds/list.ts";
import type { CharSpec, MachineSpec } from "../spec/spec.ts";
import { type AssembledMachine, Assembly } from "./assembly.ts";
import { addCounts } from "./counts.ts";
import { CpuThreads, type CpuThreadsParts } from "./cpu-threads.ts";
import { DeviceThread, type DeviceThreadParts } from "./device-thread.ts";
import { ProcessExit } from "./process-exit.ts";
import { type DeviceEvent, RemovalWatch } from "./removal-watch.ts";
import { closeBehind } from "./thread-ends.ts";

/** How long the vCPUs may take to stop, in milliseconds. */
const VCPU_DEADLINE = 10_000;
/** What threads have to end in, where the devices took all of the time. */
const LAST_CHANCE = 1000;

/** What a machine's power needs, and whom it tells what happens. */
export interface PowerParts
  extends Pick<DeviceThreadParts, "onLog" | "onGuestEvent" | "onOutput" | "onPty" | "onSlowEnd" | "onFailure"> {
  readonly spec: MachineSpec;
  /** Limited: the same is not said again and again. */
  readonly report: Report;
  readonly onCpuLog: CpuThreadsParts["onLog"];
  readonly onStop: CpuThreadsParts["onStop"];
}

/** How an end went. */
export interface PowerEnd {
  /** Why the devices could not be taken apart in time. */
  readonly failed: Error | undefined;
  /** A thread would not end: what stays in use with it. */
  readonly kept: Error | undefined;
}

/**
 * Threads, KVM and guest RAM of one machine: made, switched on and off, ended. What is done when, and why, is the
 * caller's to decide, who calls one after another. Control thread.
 */
export class Power {
  readonly devices: DeviceThread;
  readonly cpus: CpuThreads;
  readonly #spec: MachineSpec;
  readonly #report: Report;
  readonly #assembly: Assembly;
  readonly #doorbell: EventFd;
  readonly #removals: RemovalWatch;
  readonly #processExit: ProcessExit;
  #terminal: RawTerminal | undefined;
  #plan: MachinePlan | undefined;
  /** A thread would not end. */
  #hasLeftThread = false;
  /** Of power cycles that are over. */
  #accesses: Record<string, number> = {};
  #lastFunctions: DeviceStatistics["functions"] = [];

  /** Starts nothing yet. @throws SyscallError */
  constructor(parts: PowerParts) {
    const { spec, report } = parts;
    this.#spec = spec;
    this.#report = report;
    this.#assembly = new Assembly(spec, report);
    const mailboxes = createMailboxes(spec.cpus.count);
    this.#doorbell = EventFd.create();
    const doorbell = this.#doorbell.fd;
    const pollMicroseconds = spec.pollMicroseconds ?? (availableParallelism() > 1 ? "auto" : "never");
    this.devices = new DeviceThread({
      ...parts,
      data: { mailboxes, doorbell, pollMicroseconds, addedKinds: allKinds().flatMap(({ factory }) => factory ?? []) },
      disks: spec.disks,
      doorbell: this.#doorbell,
    });
    const { onCpuLog: onLog, onStop } = parts;
    this.cpus = new CpuThreads({ count: spec.cpus.count, mailboxes, doorbell, onLog, onStop });
    this.#removals = new RemovalWatch({
      report,
      onFailure: parts.onFailure,
      lookAgain: (device) => this.devices.send({ kind: "examine", device }),
      policyOf: (id) => spec.devices.find((device) => device.id === id)?.onUnbind ?? "wait",
    });
    // process.exit() would wait without end for a thread inside KVM_RUN or epoll_wait.
    this.#processExit = new ProcessExit(() => this.#releaseThreads());
  }

  /** What the machine is made of, since it was first assembled. */
  get plan(): MachinePlan | undefined {
    return this.#plan;
  }

  /**
   * Makes everything up to the first instruction. @throws SpecError, HostError; {@link off} takes apart what is left
   */
  async assemble(): Promise<AssembledMachine> {
    // Threads first: they need some 40 ms until their code runs, and the VM is made meanwhile.
    this.devices.launch();
    this.cpus.launch();
    const assembled = await this.#assembly.assemble(this.devices);
    this.#plan = assembled.plan;
    return assembled;
  }

  /**
   * Starts a power cycle.
   *
   * @param isEnding Asked after each wait: the guest does not start then.
   * @throws as {@link assemble}
   */
  async on(isEnding: () => boolean): Promise<void> {
    const { vcpus, start, mmapSize, plan } = await this.assemble();
    const { serial, console } = this.#spec;
    const uses = (kind: CharSpec["kind"]): boolean => serial.kind === kind || console.kind === kind;
    if (uses("file") && !isEnding()) await this.devices.begin();
    if (isEnding()) return;
    if (uses("tty")) this.#terminal ??= RawTerminal.enter(fd(0));
    this.cpus.run(vcpus, mmapSize, start);
    this.#report("info", "the guest runs", { cpus: vcpus.length, protocol: plan.bootProtocol });
  }

  /**
   * Ends a power cycle: vCPUs first, then the devices, then the VM.
   *
   * @param timeoutMs Of devices without progress.
   * @throws HostError when something does not stop; it is still in use then.
   */
  async off(timeoutMs: number): Promise<void> {
    await this.#stop(timeoutMs);
    this.#assembly.closeVm();
  }

  async #stop(timeoutMs: number): Promise<void> {
    this.#removals.stopAll();
    await this.cpus.stop(VCPU_DEADLINE);
    const last = await this.devices.dismantle(timeoutMs);
    this.#accesses = addCounts(this.#accesses, last.accesses);
    this.#lastFunctions = last.functions;
  }

  /**
   * Ends everything, threads too; never rejects.
   *
   * @param timeoutMs Of devices without progress, then of the threads.
   * @param onLate Called when what stayed in use was given back after all.
   */
  async end(timeoutMs: number, report: Report, onLate: () => void): Promise<PowerEnd> {
    let failed: Error | undefined;
    await this.#stop(timeoutMs).catch((error: unknown) => {
      failed = error as Error; // cast: we throw only Errors
    });
    const threads = [...this.cpus.end(), this.devices.end()];
    // While they end: it keeps this thread in the kernel for 13 ms.
    if (failed === undefined) this.#assembly.closeVm();
    const name = `guest RAM (${this.#assembly.ramBytes / MIB} MiB) and the machine's open files`;
    const left = failed === undefined ? timeoutMs : LAST_CHANCE;
    const kept = await closeBehind(threads, left, { name, close: () => this.#giveBack(), onLate }, report);
    this.#hasLeftThread = kept !== undefined;
    void Promise.all([this.devices.gone(), ...threads.map(({ ended }) => ended)]).then(() => this.#processExit.close());
    this.#terminal?.restore();
    return { failed, kept };
  }

  /** A device goes, or may have to. */
  deviceEvent(event: DeviceEvent): void {
    if (event.kind === "deviceWanted") this.#assembly.forget(event.device);
    this.#removals.take(event);
  }

  /** Counters of the devices over all power cycles. */
  async deviceStatistics(): Promise<DeviceStatistics> {
    const last = { accesses: {}, functions: this.#lastFunctions };
    const devices = this.#assembly.hasVm ? await this.devices.statistics().catch(() => last) : last;
    return { ...devices, accesses: addCounts(this.#accesses, devices.accesses) };
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
    this.cpus.release();
    return this.devices.release() && !this.#hasLeftThread;
  }
}
