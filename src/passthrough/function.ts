import type { Report } from "../base/backends.ts";
import { HostError } from "../base/errors.ts";
import type { MsiRouter } from "../base/signals.ts";
import { UndoStack } from "../base/undo-stack.ts";
import { ALL_ONES_WIDE, allOnes, type Gpa, type Gsi, type Halves, type Width } from "../base/units.ts";
import type { ConfigSpace } from "../pci/config-space.ts";
import { type BarIndex, type BarRequest, type PciFunction, ROM_BAR } from "../pci/function.ts";
import { PCI_COMMAND, PCI_COMMAND_IO, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from "../pci/ids.ts";
import type { FunctionVectors } from "../pci/vectors.ts";
import { type DeviceBackend, VFIO_PCI_CONFIG_REGION_INDEX } from "./backend.ts";
import { type BarChoice, type BarHole, type BarPlan, planBar } from "./bar-areas.ts";
import { barRequests } from "./bar-requests.ts";
import { buildConfig, type FunctionConfig } from "./config.ts";
import { type EventHost, type HostEventHandlers, HostEvents } from "./host-events.ts";
import { FunctionInterrupts } from "./interrupts.ts";
import type { IntxHost } from "./intx.ts";
import { type BarMappers, MappedBar } from "./mapped-bar.ts";
import type { SlottedFunction } from "./memory-faults.ts";
import { MsixStructures } from "./msix-structures.ts";
import { RomCopy, type RomHost } from "./rom.ts";
import type { BarSummary, PassthroughSummary } from "./summary.ts";
import { examine, isAnswering, isDecodingMemory, mustAnswer, type VitalSigns } from "./vital-signs.ts";

/** What a passed-through function is handed of the machine. */
export interface PassthroughHost extends BarMappers, IntxHost, EventHost, RomHost {
  readonly router: MsiRouter;
  readonly report: Report;
}

/** How the user wants a function passed through. */
export interface PassthroughChoice {
  /** `trap` makes every BAR access exit and be passed on, for teaching and debugging. */
  readonly bars: "map" | "trap";
  /** BARs left trapped although they could be mapped. */
  readonly excludedMmapBars: readonly number[];
  /** How a PCI Express endpoint looks: as on the host when absent. */
  readonly express?: "host" | "integrated";
}

/**
 * A real PCI function in the guest's PCI. Its configuration space is of `config.ts`, its BARs are memory slots where
 * possible, its interrupts go from device to guest inside the kernel. The function owns its backend. Device thread
 * only.
 */
export class PassthroughFunction implements PciFunction, SlottedFunction, Disposable {
  readonly name: string;
  readonly config: ConfigSpace;
  readonly barRequests: readonly BarRequest[];
  readonly #backend: DeviceBackend;
  readonly #host: PassthroughHost;
  readonly #built: FunctionConfig;
  readonly #interrupts: FunctionInterrupts;
  readonly #structures: MsixStructures | undefined;
  readonly #plans: ReadonlyMap<BarIndex, BarPlan>;
  readonly #mapped: ReadonlyMap<BarIndex, MappedBar>;
  readonly #placed: Map<BarIndex, Gpa> = new Map();
  readonly #rom: RomCopy | undefined;
  readonly #events: HostEvents;
  readonly #reads: number[] = new Array(7).fill(0);
  readonly #writes: number[] = new Array(7).fill(0);
  #errors = 0;
  #requests = 0;
  #isAsleep = false;
  #isRetired = false;

  /**
   * @throws HostError when the host refuses something necessary, or the device's description is impossible. The backend
   *   is closed then.
   */
  constructor(backend: DeviceBackend, choice: PassthroughChoice, host: PassthroughHost, handlers: HostEventHandlers) {
    this.name = backend.name;
    this.#backend = backend;
    this.#host = host;
    const undo = new UndoStack();
    undo.add(() => backend.close());
    try {
      mustAnswer(backend);
      this.#interrupts = new FunctionInterrupts(backend, host, host.report);
      this.#built = buildConfig({
        name: this.name,
        backend,
        isIntegrated: choice.express === "integrated",
        router: host.router,
        host: this.#interrupts,
        state: {
          beforeSleep: () => this.#beforeSleep(),
          afterWake: () => this.#afterWake(),
          beforeReset: () => this.#beforeGuestReset(),
          afterReset: () => this.#afterGuestReset(),
        },
        report: host.report,
      });
      this.config = this.#built.config;
      this.barRequests = barRequests(this.#built.image, backend);
      const { msix } = this.#built;
      this.#structures = msix === undefined ? undefined : new MsixStructures(msix);
      this.#plans = this.#planBars(choice);
      const rom = this.barRequests.find(({ kind }) => kind === "rom");
      this.#rom = rom && new RomCopy(backend, rom.sizeBytes, choice.bars === "trap", host);
      // The root takes BARs off the bus before this and puts them back after it: the device decodes whenever the guest
      // can reach it.
      this.config.onWrite(PCI_COMMAND, 2, () => this.#forwardCommand());
      this.#forwardCommand();
      const events = new HostEvents(backend, host, {
        onError: () => {
          this.#errors++;
          handlers.onError();
        },
        onRequest: () => {
          this.#requests++;
          handlers.onRequest();
        },
      });
      this.#events = undo.own(events);
      this.#mapped = this.#mapBars();
    } catch (error) {
      undo.after(error);
      if (!(error instanceof RangeError)) throw error;
      throw new HostError(
        "TSVMM_DEVICE_UNUSABLE",
        `Cannot use ${this.name}: its configuration space makes no sense: ${error.message}`,
      );
    }
  }

  /** Says which pin of the interrupt controller the function's INTx drives, once its slot is known. */
  wireIntx(line: Gsi): void {
    this.#interrupts.wireIntx(line);
  }

  readBar(index: BarIndex, offset: number, width: Width): number {
    this.#reads[index] = (this.#reads[index] ?? 0) + 1;
    if (this.#isAsleep) return allOnes(width); // nothing of it answers, the emulated parts neither
    if (index === ROM_BAR) return this.#rom?.read(offset, width) ?? allOnes(width);
    const emulated = this.#structures?.read(index, offset, width, (at, count) => this.#readDevice(index, at, count));
    return emulated ?? this.#readDevice(index, offset, width);
  }

  describeBar(index: BarIndex, offset: number): string | undefined {
    return this.#structures?.describe(index, offset);
  }

  writeBar(index: BarIndex, offset: number, width: Width, value: number): void {
    this.#writes[index] = (this.#writes[index] ?? 0) + 1;
    if (index === ROM_BAR || this.#isAsleep) return;
    const toDevice = (at: number, count: Width, part: number): void => {
      this.#backend.writeRegion(index, at, count, part);
    };
    if (this.#structures?.write(index, offset, width, value, toDevice) !== true) toDevice(offset, width, value);
  }

  /** Some devices have registers that are eight bytes or nothing: halves of a doorbell would be two rings. */
  readBarWide(index: BarIndex, offset: number): Halves {
    if (index === ROM_BAR || this.#structures?.touches(index, offset, 8) === true) {
      const low = this.readBar(index, offset, 4);
      return { low, high: this.readBar(index, offset + 4, 4) };
    }
    this.#reads[index] = (this.#reads[index] ?? 0) + 1;
    return (this.#isAsleep ? undefined : this.#backend.readWide(index, offset)) ?? ALL_ONES_WIDE;
  }

  writeBarWide(index: BarIndex, offset: number, value: Halves): void {
    if (this.#structures?.touches(index, offset, 8) === true) {
      this.writeBar(index, offset, 4, value.low);
      this.writeBar(index, offset + 4, 4, value.high);
      return;
    }
    this.#writes[index] = (this.#writes[index] ?? 0) + 1;
    if (index !== ROM_BAR && !this.#isAsleep) this.#backend.writeWide(index, offset, value);
  }

  barPlaced(index: BarIndex, address: Gpa | undefined): void {
    if (address === undefined) {
      this.#placed.delete(index);
      this.#memoryOf(index)?.hide();
      return;
    }
    this.#placed.set(index, address);
    if (!this.#isAsleep) this.#memoryOf(index)?.show(address);
  }

  get hasSlots(): boolean {
    return [...this.#mapped.values()].some((bar) => bar.slotBytes > 0);
  }

  /** Whether the device itself still answers: false once it was pulled, or its link is down. */
  isPresent(): boolean {
    return isAnswering(this.#backend);
  }

  isReachable(): boolean {
    return this.isPresent() && isDecodingMemory(this.#backend);
  }

  /**
   * Looks at what the device answers, by registers that the host does not keep for it. One that was reset without the
   * guest is given its command register again, upon which the host restores its BARs.
   */
  examine(): VitalSigns {
    const command = this.config.get16(PCI_COMMAND) & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    const hasMemory = (command & PCI_COMMAND_MEMORY) !== 0 && !this.#isAsleep;
    const memoryBar = hasMemory ? this.barRequests.find(({ kind }) => kind !== "io" && kind !== "rom") : undefined;
    const express = this.#built.policy.standard.find(({ treatment }) => treatment === "express")?.offset;
    const signs = examine(this.#backend, { command, express, memoryBar: memoryBar?.index });
    if (signs.isAnswering && signs.wasReset) this.#forwardCommand();
    return signs;
  }

  /** How often the host told of an error, and asked for it back. */
  get hostEvents(): { readonly errors: number; readonly requests: number } {
    return { errors: this.#errors, requests: this.#requests };
  }

  withdrawSlots(): void {
    for (const bar of this.#mapped.values()) bar.hide();
  }

  /** As after power-on, as far as the device can be reset. What the host refuses is reported. */
  reset(): void {
    this.#attempt("switch off the interrupts", () => this.#interrupts.hold());
    this.#built.msi?.reset();
    this.#built.msix?.reset();
    for (const bar of this.#mapped.values()) bar.hide();
    this.#placed.clear();
    this.#built.wake();
    this.#isAsleep = false;
    this.#forwardCommand(); // the root restored it: no decode, no DMA
    this.#attempt("reset", () => {
      if (this.#backend.reset() === false) {
        this.#host.report("warn", `${this.name} cannot be reset alone: the guest finds it as it was left`);
      }
    });
    this.#built.restoreDevice();
    this.#interrupts.resume();
  }

  /** {@link retire}, then gives the device back. Never throws: what fails is reported. Calling it twice is harmless. */
  close(): void {
    this.retire();
    this.#backend.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Takes everything off the device, in the order the kernel wants: interrupts off at the host, then in KVM; memory
   * slots; mappings of device memory. Only the device itself is still open: its bus may be reset now.
   */
  retire(): void {
    if (this.#isRetired) return;
    this.#isRetired = true;
    this.#attempt("switch off the interrupts", () => this.#interrupts.hold());
    this.#attempt("stop watching its events", () => this.#events.close());
    this.#attempt("release the interrupt routes", () => {
      this.#built.msi?.reset();
      this.#built.msix?.reset();
    });
    for (const bar of this.#mapped.values()) this.#attempt("unmap a BAR", () => bar.close());
    this.#attempt("unmap its ROM", () => this.#rom?.close());
  }

  /** What it has done and how it is set up, as plain data. */
  summary(): PassthroughSummary {
    return {
      name: this.name,
      bars: this.barRequests.map((request): BarSummary => {
        const { index, kind, sizeBytes } = request;
        const plan = this.#plans.get(index);
        return {
          index,
          kind,
          sizeBytes,
          address: this.#placed.get(index),
          slotBytes: this.#memoryOf(index)?.slotBytes ?? 0,
          slots: [...(this.#mapped.get(index)?.shownAreas ?? [])],
          trapped: [...(plan?.trapped ?? []), ...(this.#mapped.get(index)?.unmappedAreas ?? [])].sort(
            (a, b) => a.offset - b.offset,
          ),
          reads: this.#reads[index] ?? 0,
          writes: this.#writes[index] ?? 0,
        };
      }),
      interrupts: {
        kind: this.#interrupts.active,
        armed: this.#interrupts.armedCount,
        repeated: this.#interrupts.repeatedCount,
      },
      armedVectors: this.#interrupts.armedVectors,
      hiddenCapabilities: this.#built.policy.hidden,
      forwardedConfigAccesses: this.#built.forwarded(),
      ...this.hostEvents,
    };
  }

  /** How its vectors are set up; plain data. */
  inspectVectors(): FunctionVectors {
    const { msi, msix } = this.#built;
    return {
      ...(msi === undefined ? {} : { msi: msi.inspect() }),
      ...(msix === undefined ? {} : { msix: msix.inspect() }),
    };
  }

  #planBars(choice: PassthroughChoice): ReadonlyMap<BarIndex, BarPlan> {
    const plans = new Map<BarIndex, BarPlan>();
    for (const { kind, index } of this.barRequests) {
      const region = this.#backend.region(index);
      if (region === undefined || kind === "io" || kind === "rom") continue;
      const holes: readonly BarHole[] = this.#structures?.holes(index) ?? [];
      const barChoice: BarChoice = { bars: choice.bars, isExcluded: choice.excludedMmapBars.includes(index) };
      plans.set(index, planBar(region, holes, barChoice));
    }
    return plans;
  }

  #memoryOf(index: BarIndex): MappedBar | RomCopy | undefined {
    return index === ROM_BAR ? this.#rom : this.#mapped.get(index);
  }

  #mapBars(): ReadonlyMap<BarIndex, MappedBar> {
    const mapped = new Map<BarIndex, MappedBar>();
    for (const [index, plan] of this.#plans) {
      const sizeBytes = this.#backend.region(index)?.sizeBytes ?? 0;
      const canRead = (offset: number): boolean => this.#answers(index, offset);
      const parts = { backend: this.#backend, index, plan, sizeBytes, canRead };
      mapped.set(index, new MappedBar(parts, this.#host, this.#host.report));
    }
    return mapped;
  }

  /** Whether a BAR can be read while the device decodes; before the guest has switched that on. */
  #answers(index: BarIndex, offset: number): boolean {
    const command = this.config.get16(PCI_COMMAND);
    const tell = (value: number): boolean =>
      this.#backend.writeRegion(VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2, value);
    tell(command | PCI_COMMAND_MEMORY);
    const answer = this.#backend.readRegion(index, offset, 4);
    tell(command);
    return answer !== undefined;
  }

  #readDevice(index: BarIndex, offset: number, width: Width): number {
    // No answer while it sleeps, after an error, or beyond the region's end: a bus gives all ones then.
    return this.#backend.readRegion(index, offset, width) ?? allOnes(width);
  }

  /**
   * Tells the device what the guest's command register says, also when that is as before. A device whose driver resets
   * the chip loses decode and BARs, and the host kernel restores them when it sees the register written again.
   */
  #forwardCommand(): void {
    this.#backend.writeRegion(VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2, this.config.get16(PCI_COMMAND));
  }

  /**
   * A slot over memory that does not answer would stop the machine at the guest's next access: KVM could not fault it
   * in.
   */
  #beforeSleep(): void {
    this.#isAsleep = true;
    for (const bar of this.#mapped.values()) bar.hide();
    this.#rom?.hide();
  }

  #afterWake(): void {
    if (!this.#isAsleep) return;
    this.#isAsleep = false;
    this.#forwardCommand(); // waking may have cleared it
    for (const [index, address] of this.#placed) this.#memoryOf(index)?.show(address);
  }

  /** The root takes the BARs off the bus, and so the slots go, when it sees the command register change. */
  #beforeGuestReset(): void {
    this.#attempt("switch off the interrupts", () => this.#interrupts.hold());
    this.config.write(PCI_COMMAND, 2, 0);
  }

  /** What the guest sees is as after power-on; BARs have no address until it gives them one. */
  #afterGuestReset(): void {
    this.#isAsleep = false;
    this.#built.msi?.reset();
    this.#built.msix?.reset();
    this.config.restore();
    this.#forwardCommand(); // the host kernel restored what it had
    this.#built.restoreDevice();
    this.#interrupts.resume();
  }

  #attempt(what: string, work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#host.report("warn", `${this.name}: cannot ${what}: ${error.message}`);
    }
  }
}
