import type { EntropyBackend, Report } from "../../base/backends.ts";
import { Bus } from "../../base/bus.ts";
import type { FdWatcher, RingWatcher, TurnCounter } from "../../base/signals.ts";
import { UndoStack } from "../../base/undo-stack.ts";
import { hex } from "../../base/units.ts";
import type { GuestRam } from "../../host/memory/guest-ram.ts";
import { Vm } from "../../kvm/vm.ts";
import { HostBridge } from "../../pci/host-bridge.ts";
import { PciRoot } from "../../pci/root.ts";
import type { AcpiPm } from "../../platform/acpi-pm.ts";
import { rootWindows } from "../shared/bar-places.ts";
import { intxGsi, type MemoryLayout } from "../shared/memory-map.ts";
import type { GuestEvent } from "../shared/messages.ts";
import type { MachinePlan, PlanDma } from "../shared/plan.ts";
import type { MachineFiles } from "../shared/requests.ts";
import type { ResolvedMachine } from "../shared/resolved-machine.ts";
import type { DeviceSnapshot } from "../shared/snapshot.ts";
import type { DeviceStatistics } from "../shared/statistics.ts";
import { writeAcpi } from "./acpi.ts";
import { describeBoard } from "./board-plan.ts";
import type { CharDevices } from "./char-devices.ts";
import { Deferral } from "./deferral.ts";
import type { Disks } from "./disks.ts";
import type { AnyDeviceKind, BoardAccess, Flushable } from "./kinds/device-kind.ts";
import type { OnStep } from "./passed/host-functions.ts";
import { PassedFunctions } from "./passed/passed-functions.ts";
import { Removals } from "./passed/removals.ts";
import { assignBars, plugAll } from "./placement.ts";
import { attachPlatform, attachTestPorts, type PlatformParts } from "./platform.ts";
import { takeSnapshot } from "./snapshot.ts";
import { type PortWrite, traceCoalescedWrite } from "./trace.ts";
import type { Tracer } from "./tracer.ts";
import { makeWires, type Wires } from "./wires.ts";

export interface BoardParts extends MachineFiles {
  readonly machine: ResolvedMachine;
  readonly memory: GuestRam;
  readonly layout: MemoryLayout;
  readonly watcher: FdWatcher & RingWatcher & TurnCounter;
  /** Runs work in the device thread's next turn. */
  readonly defer: (work: () => void) => void;
  readonly characters: CharDevices;
  readonly disks: Disks;
  readonly entropy: EntropyBackend;
  /** In the order in which they take free slots. */
  readonly kinds: readonly AnyDeviceKind[];
  readonly report: Report;
  readonly tracer: Tracer;
  readonly onGuestEvent: (event: GuestEvent) => void;
  /** The guest was reset: it is owed a machine, with what can still be had of it. */
  readonly isRestart: boolean;
  /** A time of `performance.now()` after which other processes are not waited for; it comes when the machine stops. */
  readonly cutOff: () => number;
  /** Told before each step of closing that may take long. */
  readonly onStep: OnStep;
}

/** How many unclaimed accesses are logged; a guest can make any number of them. */
const UNCLAIMED_REPORTS = 20;

/**
 * Every device of one power cycle and what connects them: buses, PCI root, interrupt table, memory slots. The device
 * thread makes one when the machine is switched on and closes it when all vCPUs have stopped. The order of the
 * constructor is that of the wiring: a part is made after what it hangs on, and closing goes backwards.
 */
export class Board implements Disposable {
  readonly ports: Bus;
  readonly mmio: Bus;
  readonly plan: MachinePlan;

  readonly #parts: BoardParts;
  readonly #vm: Vm;
  readonly #wires: Wires;
  readonly #deferral: Deferral;
  readonly #root: PciRoot;
  readonly #pm: AcpiPm;
  readonly #passed: PassedFunctions;
  readonly #removals: Removals;
  #dma: PlanDma | undefined;
  /** Those that have collected output since the last {@link flush}. */
  readonly #dirty = new Set<Flushable>();
  #print: (byte: number) => void = () => undefined;
  #resize: (columns: number, rows: number) => void = () => undefined;
  readonly #unclaimed = { count: 0 };
  readonly #write: PortWrite;
  readonly #undo = new UndoStack();

  /**
   * @throws SpecError, HostError when a device cannot be had; everything made until then is given back.
   */
  constructor(parts: BoardParts) {
    this.#parts = parts;
    this.#vm = new Vm(parts.vm);
    const unclaimed = (bus: string, address: number, width: number): void => this.#reportUnclaimed(bus, address, width);
    this.ports = new Bus("port", unclaimed);
    this.mmio = new Bus("MMIO", unclaimed);
    const { watcher, report, tracer } = parts;
    const wires = makeWires({ vm: this.#vm, vcpu: parts.vcpu, watcher, report, tracer, buses: this });
    this.#write = traceCoalescedWrite((port, width, value) => this.ports.write(port, width, value), this.ports, tracer);
    this.#wires = wires;
    this.#undo.add(() => wires.coalesced?.close());
    this.#deferral = this.#undo.own(new Deferral(parts.defer));
    const { layout, machine, memory, onGuestEvent } = parts;
    const { ports, mmio } = this;
    const windows = rootWindows(layout, machine.hasTestDevice);
    this.#root = new PciRoot({ ports, mmio, windows, gsiOf: intxGsi, report });
    this.#passed = new PassedFunctions(report);
    const platform: PlatformParts = {
      ...{ ports, mmio, root: this.#root, wires, memory, report, onGuestEvent },
      ejectSlot: (slot) => this.#removals.guestEjects(slot),
    };
    try {
      this.#mapRam();
      this.#pm = attachPlatform(platform);
      this.#removals = new Removals({
        root: this.#root,
        acpi: this.#pm,
        passed: this.#passed,
        defer: (work) => this.#deferral.defer(work),
        report,
        onEvent: onGuestEvent,
      });
      this.#addKinds();
      attachTestPorts(machine, platform, (byte) => this.#print(byte));
      assignBars(this.#root, windows);
      writeAcpi({ machine, memory, layout, ejectableSlots: this.#ejectableSlots() });
      this.plan = describeBoard({
        ...{ spec: machine, layout, ports, mmio, root: this.#root, dma: this.#dma },
        passthrough: ({ function: fn }) => this.#passed.describe(fn),
      });
    } catch (error) {
      this.flush();
      throw this.#undo.after(error);
    }
  }

  /** Does the writes that KVM has coalesced since the last access of a guest; to be called before each. */
  catchUp(): void {
    this.#wires.coalesced?.drain(this.#write);
  }

  /** Hands collected output on; the device thread calls it before it sleeps. */
  flush(): void {
    for (const port of this.#dirty) port.flush();
    this.#dirty.clear();
  }

  pressPowerButton(): void {
    this.#pm.pressPowerButton();
  }

  /** A vCPU met memory that does not answer: how often device memory was withdrawn so far, this time included. */
  memoryFault(): number {
    return this.#passed.memoryFault();
  }

  /** Looks at a passed-through function again whose error the host reported. */
  examine(id: string): void {
    this.#removals.lookAgain(id);
  }

  /** The terminal has another size, in characters. */
  resize(columns: number, rows: number): void {
    this.#resize(columns, rows);
  }

  statistics(): DeviceStatistics {
    const accesses: Record<string, number> = {};
    for (const bus of [this.ports, this.mmio]) {
      for (const [name, count] of bus.accesses()) accesses[name] = (accesses[name] ?? 0) + count;
    }
    if (this.#unclaimed.count > 0) accesses["(unclaimed)"] = this.#unclaimed.count;
    return { accesses, functions: this.#passed.statistics() };
  }

  /** What everything is like now; plain data. Changes nothing, and asks no device. */
  snapshot(): DeviceSnapshot {
    const { machine, characters, disks } = this.#parts;
    const { ports, mmio } = this;
    return takeSnapshot({
      ...{ machine, root: this.#root, ports, mmio, wires: this.#wires, passed: this.#passed, characters, disks },
    });
  }

  /** Gives everything back, in reverse order. The vCPUs must have stopped. */
  close(): void {
    this.flush();
    this.#undo.undo();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #mapRam(): void {
    const { memory } = this.#parts;
    for (const region of memory.regions) {
      const host = memory.hostAddress(region.gpa, region.sizeBytes);
      if (host === undefined) continue; // a region is contiguous by construction
      const slot = this.#wires.slots.mapSlot("RAM", region.gpa, host, region.sizeBytes, false);
      this.#undo.add(() => slot.unmap());
    }
  }

  /** Makes the devices of all kinds and gives each its slot. */
  #addKinds(): void {
    const bridge = this.#undo.own(new HostBridge(), (made) => made.close());
    this.#root.plug(bridge, 0);
    // Cast: a machine is an object of parts by name.
    const machine = this.#parts.machine as unknown as Readonly<Record<string, unknown>>;
    const access = this.#access();
    const { kinds } = this.#parts;
    plugAll(kinds.flatMap(({ part, make }) => make(machine[part], access).map((fn) => ({ ...fn, part }))));
  }

  #access(): BoardAccess {
    const { memory, watcher, characters, disks, entropy, report, isRestart, cutOff, onStep } = this.#parts;
    const { ports, mmio } = this;
    return {
      ...{ vm: this.#vm, memory, ports, mmio, root: this.#root, wires: this.#wires, watcher, report },
      ...{ ends: { characters, disks, entropy }, undo: this.#undo, isRestart, cutOff, onStep },
      ...{ passed: this.#passed, removals: this.#removals },
      defer: (work) => this.#deferral.defer(work),
      flushLater: (device) => void this.#dirty.add(device),
      setPrinter: (print) => {
        this.#print = print;
      },
      onResize: (resize) => {
        this.#resize = resize;
      },
      setDma: (dma) => {
        this.#dma = dma;
      },
    };
  }

  /** The host may want passed-through functions back; the machine's own devices stay. */
  #ejectableSlots(): readonly number[] {
    const passed = this.#root.functions.filter((plugged) => this.#passed.of(plugged.function) !== undefined);
    return [...new Set(passed.map(({ bdf }) => bdf.device))];
  }

  #reportUnclaimed(bus: string, address: number, width: number): void {
    this.#unclaimed.count++;
    if (this.#unclaimed.count <= UNCLAIMED_REPORTS)
      this.#parts.report("debug", `no device answers on the ${bus} bus`, { address: hex(address), width });
  }
}
