import type { Report } from "../../base/backends.ts";
import type { SlotMapper } from "../../base/mappings.ts";
import type { Doorbells, InterruptLine, MsiRouter, ResampledLines, RingWatcher } from "../../base/signals.ts";
import type { Fd, Gsi } from "../../base/units.ts";
import { type CoalescedRing, CoalescedWrites } from "../../kvm/coalesced-writes.ts";
import { IoEventFds } from "../../kvm/ioeventfd.ts";
import { IrqLines, ResampledIrqLines } from "../../kvm/irq-lines.ts";
import { IrqRouting } from "../../kvm/irq-routing.ts";
import { MemorySlots } from "../../kvm/memory-slots.ts";
import type { Vm } from "../../kvm/vm.ts";
import type { WiresSnapshot } from "../shared/snapshot.ts";
import { type Buses, traceDoorbells, traceLine, traceResampledLines, traceRouter, traceSlots } from "./trace.ts";
import type { Tracer } from "./tracer.ts";

/** What devices are wired to, all of it KVM's: memory, interrupts and doorbells of one power cycle. */
export interface Wires {
  readonly slots: SlotMapper;
  readonly router: MsiRouter;
  readonly doorbells: Doorbells;
  readonly resampled: ResampledLines;
  /** A device's own end of a pin of the interrupt controller. */
  readonly line: (gsi: Gsi, name: string) => InterruptLine;
  /** Port writes that wait for the guest's next access; absent where KVM cannot keep any. */
  readonly coalesced: CoalescedRing | undefined;
  /** What KVM has been told; plain data. */
  inspect(): WiresSnapshot;
}

export interface WireParts {
  readonly vm: Vm;
  /** Any vCPU of it. */
  readonly vcpu: Fd;
  readonly watcher: RingWatcher;
  readonly report: Report;
  /** Told of everything that goes over the wires, while it is on. */
  readonly tracer: Tracer;
  readonly buses: Buses;
}

/** @throws SyscallError */
export function makeWires({ vm, vcpu, watcher, report, tracer, buses }: WireParts): Wires {
  const lines = new IrqLines(vm);
  const slots = new MemorySlots(vm, vm.checkExtension("NR_MEMSLOTS"));
  const routing = new IrqRouting(vm, vm.checkExtension("IRQ_ROUTING"), report);
  const doorbells = new IoEventFds(vm, watcher);
  const resampled = new ResampledIrqLines(vm);
  return {
    slots: traceSlots(slots, tracer),
    router: traceRouter(routing, tracer),
    doorbells: traceDoorbells(doorbells, buses.mmio, tracer),
    resampled: traceResampledLines(resampled, tracer),
    line: (gsi, name) => traceLine(lines.line(gsi, name), tracer),
    coalesced: vm.checkExtension("COALESCED_PIO") > 0 ? new CoalescedWrites(vm, vcpu) : undefined,
    inspect: () => ({
      slots: slots.slots,
      routes: routing.routes,
      routing: routing.entries,
      ioeventfds: doorbells.registered.map(({ address, width }) => ({
        address,
        width,
        what: buses.mmio.describe(address),
      })),
      lines: lines.levels,
      drivenPins: resampled.driven,
    }),
  };
}
