import { basename } from "node:path";
import type { Report } from "../../base/backends.ts";
import type { Bus } from "../../base/bus.ts";
import { invariant } from "../../base/invariant.ts";
import type { SlotMapper } from "../../base/mappings.ts";
import type { FdWatcher, MsiRouter, ResampledLines, RingWatcher } from "../../base/signals.ts";
import { EventFd } from "../../host/eventfd.ts";
import { libc } from "../../host/libc.ts";
import type { GuestRam } from "../../host/memory/guest-ram.ts";
import { HOST_ROOT, textFile } from "../../host-pci/files.ts";
import { readFunction } from "../../host-pci/functions.ts";
import { hostInterrupts } from "../../host-pci/interrupt-counts.ts";
import { KvmVfioDevice } from "../../kvm/vfio-device.ts";
import type { Vm } from "../../kvm/vm.ts";
import type { PassthroughFunction } from "../../passthrough/function.ts";
import { MemoryFaults } from "../../passthrough/memory-faults.ts";
import { type Bdf, parseBdf } from "../../pci/bdf.ts";
import type { PciFunction } from "../../pci/function.ts";
import { type OpenedPassthrough, openPassthrough } from "../../vfio/open.ts";
import type { FunctionStatistics } from "../shared/messages.ts";
import type { PlanDma } from "../shared/plan.ts";
import type { DeviceSpec } from "../spec/spec.ts";
import type { PassthroughDescription } from "./board-plan.ts";
import { barParts, reportFunction } from "./function-facts.ts";
import { groupBySlot } from "./passthrough-slots.ts";
import { mapRamForDma } from "./ram-dma.ts";
import { readRom } from "./rom-file.ts";

/** What passed-through functions are wired to. */
export interface PassthroughParts {
  readonly devices: readonly DeviceSpec[];
  readonly memory: GuestRam;
  readonly vm: Vm;
  readonly slots: SlotMapper;
  readonly mmio: Bus;
  readonly router: MsiRouter;
  readonly lines: ResampledLines;
  readonly watcher: FdWatcher & RingWatcher;
  readonly report: Report;
  /** The host reports an error that a function does not recover from; by its id. */
  readonly onError: (id: string) => void;
  /** The host wants a function back, and waits; by its id, again and again. */
  readonly onRequest: (id: string) => void;
}

/** Functions that go into one slot; any free one where the user named none. */
export interface PassthroughGroup {
  readonly slot: number | undefined;
  readonly members: readonly { readonly function: PassthroughFunction; readonly functionNumber: number }[];
}

/** The passed-through functions of a board, with all that they share: container, DMA mappings of RAM, KVM's VFIO device. */
export class Passthrough {
  readonly functions: readonly { readonly spec: DeviceSpec; readonly function: PassthroughFunction }[];
  /** How long it took to map guest RAM. */
  readonly dma: PlanDma;
  readonly #files: KvmVfioDevice;
  readonly #faults: MemoryFaults;
  readonly #opened: OpenedPassthrough;

  /** @throws HostError with a remedy; everything is given back then. */
  constructor(parts: PassthroughParts) {
    const { devices, memory, report } = parts;
    this.#files = new KvmVfioDevice(parts.vm);
    try {
      this.#opened = openPassthrough({
        libc,
        devices: devices.map((device) => ({ ...device, rom: readRom(basename(device.path), device.rom) })),
        files: this.#files,
        host: {
          slots: parts.slots,
          mmio: parts.mmio,
          router: parts.router,
          lines: parts.lines,
          watcher: parts.watcher,
          createEvent: EventFd.create,
          report,
        },
        onError: ({ id }) => parts.onError(id),
        onRequest: ({ id }) => parts.onRequest(id),
      });
    } catch (error) {
      this.#files.close();
      throw error;
    }
    const { functions, container } = this.#opened;
    this.functions = devices.flatMap((spec, index) => {
      const opened = functions[index];
      return opened === undefined ? [] : [{ spec, function: opened }];
    });
    this.#faults = new MemoryFaults(functions, report);
    try {
      this.dma = mapRamForDma(memory, container, report);
      for (const fn of functions) reportFunction(fn, report);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Which functions belong into one slot of the guest. */
  groups(): readonly PassthroughGroup[] {
    const wishes = this.functions.map(({ spec, function: fn }) => ({
      host: hostAddress(fn.name),
      isVirtual: readFunction(spec.path)?.physicalFunction !== undefined,
      slot: spec.pciSlot,
    }));
    return groupBySlot(wishes).map(({ slot, members }) => ({
      slot,
      members: members.flatMap(({ index, functionNumber }) => {
        const found = this.functions[index];
        return found === undefined ? [] : [{ function: found.function, functionNumber }];
      }),
    }));
  }

  /** KVM met memory that does not answer; see {@link MemoryFaults.handle}. */
  memoryFault(): number {
    return this.#faults.handle();
  }

  find(id: string): PassthroughFunction | undefined {
    return this.functions.find(({ spec }) => spec.id === id)?.function;
  }

  /** `undefined` for functions that are not passed through. */
  idOf(fn: PciFunction): string | undefined {
    return this.functions.find((passed) => passed.function === fn)?.spec.id;
  }

  /** Gives one function back to the host, after it was taken off the PCI root. */
  release(fn: PassthroughFunction): void {
    this.#opened.release(fn);
  }

  /** What a plan says of a function besides its configuration space; `undefined` for functions that are not passed through. */
  describe(fn: PciFunction): PassthroughDescription | undefined {
    const found = this.functions.find((passed) => passed.function === fn);
    if (found === undefined) return undefined;
    const { bars } = found.function.summary();
    return {
      hostAddress: found.function.name,
      parts: (index) => bars.filter((bar) => bar.index === index).flatMap(barParts),
    };
  }

  statistics(): readonly FunctionStatistics[] {
    const table = this.functions.length === 0 ? "" : (textFile(HOST_ROOT.proc, "interrupts") ?? "");
    return this.functions.map(({ spec, function: fn }) => {
      const { name, counters } = functionStatistics(spec.id, fn);
      const vectors = [...hostInterrupts(table, fn.name)].map(([vector, count]) => [`interrupts.${vector}`, count]);
      return { name, counters: { ...counters, ...Object.fromEntries(vectors) } };
    });
  }

  /** Gives all functions back, the container with RAM's mappings after them, and KVM's VFIO device at last. */
  close(): void {
    this.#opened.close();
    this.#files.close();
  }
}

/** A function's name is its address on the host. */
function hostAddress(name: string): Bdf {
  const bdf = parseBdf(name);
  invariant(bdf !== undefined, `${name} is no address of a PCI function`);
  return bdf;
}

/** A passed-through function's counters, flat, for summaries. */
export function functionStatistics(id: string, fn: PassthroughFunction): FunctionStatistics {
  const { bars, interrupts, forwardedConfigAccesses } = fn.summary();
  const counters: Record<string, number | string> = {
    host: fn.name,
    interruptKind: interrupts.kind,
    interruptsArmed: interrupts.armed,
    forwardedConfigAccesses,
  };
  for (const bar of bars) {
    const name = bar.index === 6 ? "rom" : `bar${bar.index}`;
    counters[`${name}.sizeBytes`] = bar.sizeBytes;
    counters[`${name}.mappedBytes`] = bar.slotBytes;
    counters[`${name}.trappedReads`] = bar.reads;
    counters[`${name}.trappedWrites`] = bar.writes;
  }
  return { name: id, counters };
}
