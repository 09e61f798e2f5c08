import type { Report } from "../base/backends.ts";
import type { Bus } from "../base/bus.ts";
import type { SlotMapper } from "../base/mappings.ts";
import type { FdWatcher, MsiRouter, ResampledLines } from "../base/signals.ts";
import { iova } from "../base/units.ts";
import type { GuestRam } from "../host/guest-ram.ts";
import { libc } from "../host/libc.ts";
import { KvmVfioDevice } from "../kvm/vfio-device.ts";
import type { Vm } from "../kvm/vm.ts";
import type { PciFunction } from "../pci/function.ts";
import { type OpenedPassthrough, openPassthrough } from "../vfio/open.ts";
import type { PassthroughFunction } from "../vfio/passthrough.ts";
import type { BarSummary } from "../vfio/summary.ts";
import type { PassthroughDescription } from "./board-plan.ts";
import type { FunctionStatistics } from "./messages.ts";
import type { PlanBarPart } from "./plan.ts";
import type { DeviceSpec } from "./spec.ts";

/** What passed-through functions are wired to. */
export interface PassthroughParts {
  readonly devices: readonly DeviceSpec[];
  readonly memory: GuestRam;
  readonly vm: Vm;
  readonly slots: SlotMapper;
  readonly mmio: Bus;
  readonly router: MsiRouter;
  readonly lines: ResampledLines;
  readonly watcher: FdWatcher;
  readonly report: Report;
  /** A function can no longer be used: the host wants it back, or it failed. */
  readonly onGone: (device: string, reason: string) => void;
}

/** The passed-through functions of a board, with all that they share: container, DMA mappings of RAM, KVM's VFIO device. */
export class Passthrough {
  readonly functions: readonly { readonly spec: DeviceSpec; readonly function: PassthroughFunction }[];
  readonly #files: KvmVfioDevice;
  readonly #opened: OpenedPassthrough;

  /** @throws HostError with a remedy; everything is given back then. */
  constructor(parts: PassthroughParts) {
    const { devices, memory, report } = parts;
    this.#files = new KvmVfioDevice(parts.vm);
    try {
      this.#opened = openPassthrough({
        libc,
        devices,
        files: this.#files,
        host: {
          slots: parts.slots,
          mmio: parts.mmio,
          router: parts.router,
          lines: parts.lines,
          watcher: parts.watcher,
          report,
        },
        onError: (device) => parts.onGone(device.id, "the host reports an unrecoverable error of the device"),
        onRequest: (device) => parts.onGone(device.id, "the host wants the device back"),
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
    try {
      const started = performance.now();
      for (const region of memory.regions) {
        const host = memory.hostAddress(region.gpa, region.sizeBytes);
        // Identity: a device's DMA address is the guest's physical address.
        if (host !== undefined) container.mapDma("guest RAM", iova(region.gpa), host, region.sizeBytes);
      }
      const ms = Math.round(performance.now() - started);
      report("info", "guest RAM is pinned and mapped for DMA", { bytes: memory.sizeBytes, ms });
    } catch (error) {
      for (const opened of functions) opened.close();
      this.close();
      throw error;
    }
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

  /** Counters of each function, flat, for summaries. */
  statistics(): readonly FunctionStatistics[] {
    return this.functions.map(({ spec, function: fn }) => {
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
      return { name: spec.id, counters };
    });
  }

  /** After the functions were closed: no device does DMA any more. The container unmaps RAM itself, once KVM has let go of its groups. */
  close(): void {
    this.#opened.container.close();
    this.#files.close();
  }
}

/** Mapped pieces are what is left between the trapped ones. */
function barParts(bar: BarSummary): PlanBarPart[] {
  if (bar.kind === "io") return [{ offset: 0, sizeBytes: bar.sizeBytes, way: "trapped", reason: "I/O ports" }];
  if (bar.kind === "rom") return [{ offset: 0, sizeBytes: bar.sizeBytes, way: "trapped", reason: "expansion ROM" }];
  const parts: PlanBarPart[] = [];
  let offset = 0;
  for (const area of bar.trapped) {
    if (area.offset > offset) parts.push({ offset, sizeBytes: area.offset - offset, way: "mapped" });
    parts.push({ offset: area.offset, sizeBytes: area.sizeBytes, way: "trapped", reason: area.reason });
    offset = area.offset + area.sizeBytes;
  }
  if (offset < bar.sizeBytes) parts.push({ offset, sizeBytes: bar.sizeBytes - offset, way: "mapped" });
  return parts;
}
