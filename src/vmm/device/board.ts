import type { Clock, EntropyBackend, Report } from "../../base/backends.ts";
import { Bus, type BusDevice } from "../../base/bus.ts";
import { SpecError } from "../../base/errors.ts";
import type { FdWatcher, RingWatcher, TurnCounter } from "../../base/signals.ts";
import { hex } from "../../base/units.ts";
import { EventFd } from "../../host/eventfd.ts";
import { libc } from "../../host/libc.ts";
import type { GuestRam } from "../../host/memory/guest-ram.ts";
import { KvmVfioDevice } from "../../kvm/vfio-device.ts";
import { Vm } from "../../kvm/vm.ts";
import type { PassthroughHost } from "../../passthrough/function.ts";
import type { PciFunction } from "../../pci/function.ts";
import { CONFIG_PORTS_SIZE, ConfigPorts, Ecam, HostBridge } from "../../pci/host-bridge.ts";
import { PciRoot, type UnplacedBar } from "../../pci/root.ts";
import { ACPI_PM_SIZE, AcpiPm } from "../../platform/acpi-pm.ts";
import { PostCodePort } from "../../platform/debug-port.ts";
import { I8042, I8042_SIZE } from "../../platform/i8042.ts";
import { CMOS_SIZE, RtcCmos } from "../../platform/rtc-cmos.ts";
import { SerialPort } from "../../platform/serial-port.ts";
import { UART_SIZE } from "../../platform/uart16550.ts";
import { GroupSource } from "../../vfio/group-source.ts";
import { VirtioBlock } from "../../virtio/block.ts";
import { VirtioConsole } from "../../virtio/console.ts";
import type { VirtioDevice } from "../../virtio/device.ts";
import { VirtioPciFunction } from "../../virtio/pci-transport.ts";
import { VirtioRng } from "../../virtio/rng.ts";
import { type OwnedBar, rootWindows, unplacedBarError } from "../shared/bar-places.ts";
import { ECAM, GSIS, HIGH_RAM_BASE, intxGsi, type MemoryLayout, PORTS } from "../shared/memory-map.ts";
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
import { HostFunctions, type PassthroughGroup } from "./passed/host-functions.ts";
import { PassedFunctions } from "./passed/passed-functions.ts";
import { plugPassthrough } from "./passed/passthrough-slots.ts";
import { Removals } from "./passed/removals.ts";
import { openUserDevice, reopenUserDevice, type UserDeviceParts } from "./passed/user-devices.ts";
import { takeSnapshot } from "./snapshot.ts";
import { attachDebugExit, attachTestDevice } from "./test-ports.ts";
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
  readonly report: Report;
  readonly tracer: Tracer;
  readonly onGuestEvent: (event: GuestEvent) => void;
  /** The guest was reset: it is owed a machine, with what can still be had of it. */
  readonly isRestart: boolean;
  /** A time of `performance.now()` after which other processes are not waited for; it comes when the machine stops. */
  readonly cutOff: () => number;
}

/** How many unclaimed accesses are logged; a guest can make any number of them. */
const UNCLAIMED_REPORTS = 20;

const clock: Clock = { monotonicNs: () => process.hrtime.bigint(), wallMs: () => Date.now() };

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
  #console: VirtioConsole | undefined;
  readonly #dirty = new Set<SerialPort>();
  readonly #unclaimed = { count: 0 };
  readonly #write: PortWrite;
  /** What to undo, in the order it was done. */
  readonly #undo: (() => void)[] = [];

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
    this.#wires = this.#own(wires, ({ coalesced }) => coalesced?.close());
    this.#deferral = this.#own(new Deferral(parts.defer), (deferral) => deferral.close());
    const { layout } = parts;
    this.#root = new PciRoot({
      ports: this.ports,
      mmio: this.mmio,
      windows: rootWindows(layout, parts.machine.hasTestDevice),
      gsiOf: intxGsi,
      report: parts.report,
    });
    this.#passed = new PassedFunctions(report);
    try {
      this.#mapRam();
      this.#pm = this.#addPlatform();
      this.#removals = new Removals({
        root: this.#root,
        acpi: this.#pm,
        passed: this.#passed,
        defer: (work) => this.#deferral.defer(work),
        report,
        onEvent: parts.onGuestEvent,
      });
      this.#addFunctions();
      this.#assignBars();
      writeAcpi({ machine: parts.machine, memory: parts.memory, layout, ejectableSlots: this.#ejectableSlots() });
      this.plan = describeBoard({
        spec: parts.machine,
        layout,
        ports: this.ports,
        mmio: this.mmio,
        root: this.#root,
        passthrough: ({ function: fn }) => this.#passed.describe(fn),
        dma: this.#dma,
      });
    } catch (error) {
      this.close();
      throw error;
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

  resizeConsole(columns: number, rows: number): void {
    this.#console?.resize(columns, rows);
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
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) undo();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #own<T>(thing: T, giveBack: (thing: T) => void): T {
    this.#undo.push(() => giveBack(thing));
    return thing;
  }

  #mapRam(): void {
    const { memory } = this.#parts;
    for (const region of memory.regions) {
      const host = memory.hostAddress(region.gpa, region.sizeBytes);
      if (host === undefined) continue; // a region is contiguous by construction
      this.#own(this.#wires.slots.mapSlot("RAM", region.gpa, host, region.sizeBytes, false), (slot) => slot.unmap());
    }
  }

  #addPlatform(): AcpiPm {
    const { machine, memory, characters, onGuestEvent, report } = this.#parts;
    const reset = (): void => onGuestEvent({ kind: "reset" });
    const attach = (base: number, size: number, device: BusDevice): void => void this.ports.attach(base, size, device);
    const [low] = memory.regions;
    const highBytes = memory.regions
      .filter(({ gpa }) => gpa >= HIGH_RAM_BASE)
      .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    attach(PORTS.keyboard, I8042_SIZE, new I8042(reset));
    attach(PORTS.rtc, CMOS_SIZE, new RtcCmos(clock, { lowBytes: low?.sizeBytes ?? 0, highBytes }));
    attach(PORTS.postCode, 1, new PostCodePort());
    const pm = new AcpiPm(
      clock,
      this.#wires.line(GSIS.acpiEvents, "ACPI events"),
      {
        powerOff: () => onGuestEvent({ kind: "powerOff" }),
        reset,
        ejectSlot: (slot) => this.#removals.guestEjects(slot),
      },
      report,
    );
    attach(PORTS.acpi, ACPI_PM_SIZE, pm);
    const serial = characters.serial;
    let com1: SerialPort | undefined;
    if (serial !== undefined) {
      const port: SerialPort = new SerialPort("COM1", this.#wires.line(GSIS.com1, "COM1"), serial, () =>
        this.#dirty.add(port),
      );
      attach(PORTS.com1, UART_SIZE, port.uart);
      com1 = port;
    }
    attach(PORTS.pciConfig, CONFIG_PORTS_SIZE, new ConfigPorts(this.#root));
    // Both only choose what the next access is about.
    this.#wires.coalesced?.coalesce(PORTS.pciConfig, 4);
    this.#wires.coalesced?.coalesce(PORTS.rtc, 1);
    this.mmio.attach(ECAM.base, ECAM.sizeBytes, new Ecam(this.#root));
    const { ports, mmio } = this;
    if (machine.hasTestDevice)
      attachTestDevice({ ports, mmio, memory, line: this.#wires.line, print: (byte) => com1?.print(byte), report });
    if (machine.debugExitPort !== undefined)
      attachDebugExit(this.ports, machine.debugExitPort, (value) => onGuestEvent({ kind: "debugExit", value }));
    return pm;
  }

  #addFunctions(): void {
    const { machine, characters, disks } = this.#parts;
    this.#plug(new HostBridge(), 0);
    // Functions with a slot of their own wish come first, so that none of the others is in their way.
    const passed = this.#openPassthrough();
    for (const { slot, members } of passed) if (slot !== undefined) this.#plugGroup(members, slot);
    for (const { id, serial } of machine.disks) {
      this.#plugVirtio(id, new VirtioBlock(id, disks.backend(id), serial ?? id));
    }
    if (characters.console !== undefined) {
      this.#console = new VirtioConsole("console", characters.console, characters.consoleSize);
      this.#plugVirtio("console", this.#console);
    }
    this.#plugVirtio("rng", new VirtioRng("rng", this.#parts.entropy));
    for (const { slot, members } of passed) if (slot === undefined) this.#plugGroup(members, this.#freeSlot());
    this.#addUserDevices();
  }

  /** @throws HostError when a BAR finds no room, of another process's device or unlike what sysfs told of the host's. */
  #assignBars(): void {
    const { layout, machine } = this.#parts;
    const owned = ({ function: { name }, request }: UnplacedBar): OwnedBar => ({ owner: name, request });
    const unplaced = this.#root.assignBars().map(owned);
    const all = this.#root.functions.flatMap(({ function: fn, bars }) =>
      bars.requests.map((request) => owned({ function: fn, request })),
    );
    const error = unplacedBarError(unplaced, all, rootWindows(layout, machine.hasTestDevice));
    if (error !== undefined) throw error;
  }

  /** What functions of the host and of other processes are wired to. */
  #passthroughHost(): PassthroughHost {
    const { watcher, report } = this.#parts;
    const { slots, router, resampled: lines } = this.#wires;
    return { slots, mmio: this.mmio, router, lines, watcher, createEvent: EventFd.create, report };
  }

  #addUserDevices(): void {
    const { machine, memory, watcher, isRestart, cutOff } = this.#parts;
    const parts: UserDeviceParts = {
      host: this.#passthroughHost(),
      memory,
      watcher,
      cutOff,
      // Later: it may be noticed during the guest's access to the device.
      onLost: (id, reason) => this.#deferral.defer(() => this.#removals.serverLost(id, reason)),
    };
    const empty: number[] = [];
    for (const device of machine.userDevices) {
      const slot = this.#freeSlot(empty);
      const passed = isRestart ? reopenUserDevice(parts, device) : openUserDevice(parts, device);
      if (passed === undefined) {
        empty.push(slot); // the devices behind it stay where the guest knows them
        continue;
      }
      this.#own(passed.function, (fn) => fn.close());
      this.#passed.add(passed);
      plugPassthrough(this.#root, passed.function, slot, 0);
    }
  }

  #openPassthrough(): readonly PassthroughGroup[] {
    const { memory, report } = this.#parts;
    const { devices } = this.#parts.machine;
    if (devices.length === 0) return [];
    const files = this.#own(new KvmVfioDevice(this.#vm), (device) => device.close());
    const facts = devices.map(({ host }) => host);
    const functions = new HostFunctions({
      devices,
      source: GroupSource.open(libc, facts, report, files),
      memory,
      host: this.#passthroughHost(),
      onError: (id) => this.#removals.hostReportsError(id),
      onRequest: (id) => this.#removals.hostWants(id),
    });
    this.#own(functions, () => functions.close());
    this.#dma = functions.dma;
    for (const passed of functions.passed) this.#passed.add(passed);
    return functions.groups();
  }

  #plugGroup(members: PassthroughGroup["members"], slot: number): void {
    for (const { function: fn, functionNumber } of members) plugPassthrough(this.#root, fn, slot, functionNumber);
  }

  #plugVirtio(name: string, device: VirtioDevice): void {
    const { memory, report } = this.#parts;
    const slot = this.#freeSlot();
    const { router, doorbells } = this.#wires;
    const line = this.#wires.line(intxGsi(slot, 1), name);
    const defer = (work: () => void): void => this.#deferral.defer(work);
    this.#plug(new VirtioPciFunction({ name, device, memory, router, doorbells, line, report, defer }), slot);
  }

  #plug(fn: PciFunction, slot: number): void {
    this.#own(fn, () => fn.close());
    this.#root.plug(fn, slot);
  }

  /** @param empty Slots to be left empty. */
  #freeSlot(empty: readonly number[] = []): number {
    const taken = new Set([...empty, ...this.#root.functions.map(({ bdf }) => bdf.device)]);
    for (let slot = 1; slot < 32; slot++) if (!taken.has(slot)) return slot;
    throw new SpecError("--device", "bus 0 has 31 slots for devices, and all are taken");
  }

  /** The host may want passed-through functions back; the machine's own devices stay. */
  #ejectableSlots(): readonly number[] {
    const passed = this.#root.functions.filter((plugged) => this.#passed.of(plugged.function) !== undefined);
    return [...new Set(passed.map(({ bdf }) => bdf.device))];
  }

  #reportUnclaimed(bus: string, address: number, width: number): void {
    this.#unclaimed.count++;
    if (this.#unclaimed.count <= UNCLAIMED_REPORTS)
      this.#parts.report("debug", `nobody answers on the ${bus} bus`, { address: hex(address), width });
  }
}
