import type { Bus } from "../../base/bus.ts";
import type { Mapping, SlotMapper } from "../../base/mappings.ts";
import type { Doorbells, InterruptLine, MsiMessage, MsiRoute, MsiRouter, ResampledLines } from "../../base/signals.ts";
import type { Gpa, Width } from "../../base/units.ts";
import { ACCESS, type Access, type AccessHandler } from "../shared/mailbox.ts";
import type { TraceAccess } from "../shared/trace-event.ts";
import type { Tracer } from "./tracer.ts";

/*
 * What the guest and its devices do to each other, an event for each step, in the order it happens. Everything here
 * wraps an interface that devices are wired to, so that neither they nor KVM's side know of it. While the trace is off
 * a step costs one look at the tracer.
 */

/** What events are told to, while there is anybody. */
export type TraceSink = Pick<Tracer, "emit">;

/** The buses, for the names of what answers. */
export interface Buses {
  readonly ports: Bus;
  readonly mmio: Bus;
}

const KINDS: Readonly<Record<Access, TraceAccess>> = {
  [ACCESS.portRead]: "port read",
  [ACCESS.portWrite]: "port write",
  [ACCESS.mmioRead]: "MMIO read",
  [ACCESS.mmioWrite]: "MMIO write",
  [ACCESS.memoryFault]: "memory fault",
  [ACCESS.mmioReadWide]: "MMIO read",
  [ACCESS.mmioWriteWide]: "MMIO write",
};

/**
 * A write is told before what it causes, a read when its value is known. To be used while the trace is on: it names
 * what answers first.
 */
export function traceAccesses(
  handle: AccessHandler,
  buses: () => Buses | undefined,
  tracer: TraceSink,
  highHalf: () => number = () => 0,
): AccessHandler {
  return (vcpu, kind, address, width, value) => {
    // First: a write may move what lies there.
    const what = kind === ACCESS.memoryFault ? "device memory" : describe(buses(), kind, address);
    const access = KINDS[kind];
    const isWide = kind === ACCESS.mmioReadWide || kind === ACCESS.mmioWriteWide;
    const above = isWide ? describe(buses(), kind, address + 4) : "";
    const tell = (seen: number): void => {
      tracer.emit?.({ kind: "access", vcpu, access, address, width, value: seen, what });
      // One access, told as its halves.
      if (!isWide) return;
      tracer.emit?.({ kind: "access", vcpu, access, address: address + 4, width, value: highHalf(), what: above });
    };
    const isWrite = kind === ACCESS.portWrite || kind === ACCESS.mmioWrite || kind === ACCESS.mmioWriteWide;
    if (isWrite) tell(value);
    const result = handle(vcpu, kind, address, width, value);
    if (!isWrite) tell(result);
    return result;
  };
}

function describe(buses: Buses | undefined, kind: Access, address: number): string {
  if (buses === undefined) return "no device";
  const isPort = kind === ACCESS.portRead || kind === ACCESS.portWrite;
  return (isPort ? buses.ports : buses.mmio).describe(address);
}

/** A port write, as a bus takes it. */
export type PortWrite = (port: number, width: Width, value: number) => void;

/** Traces a coalesced write before it is done. Some vCPU made it without an exit, before the access that waits now. */
export function traceCoalescedWrite(write: PortWrite, ports: Bus, tracer: TraceSink): PortWrite {
  return (port, width, value) => {
    tracer.emit?.({ kind: "coalescedWrite", address: port, width, value, what: ports.describe(port) });
    write(port, width, value);
  };
}

export function traceLine(line: InterruptLine, tracer: TraceSink): InterruptLine {
  let isUp = false;
  return {
    name: line.name,
    gsi: line.gsi,
    setLevel: (isHigh) => {
      if (isHigh !== isUp) tracer.emit?.({ kind: "line", name: line.name, gsi: line.gsi, isUp: isHigh });
      isUp = isHigh;
      line.setLevel(isHigh);
    },
  };
}

/** From `isDriven` on device and interrupt controller go without this program. */
export function traceResampledLines(lines: ResampledLines, tracer: TraceSink): ResampledLines {
  return {
    connect: (line, trigger, resample) => {
      const connected = lines.connect(line, trigger, resample);
      tracer.emit?.({ kind: "pin", gsi: line, isDriven: true });
      return {
        disconnect: () => {
          tracer.emit?.({ kind: "pin", gsi: line, isDriven: false });
          connected.disconnect();
        },
      };
    },
  };
}

export function traceDoorbells(doorbells: Doorbells, mmio: Bus, tracer: TraceSink): Doorbells {
  return {
    register: (address: Gpa, width: Width | 0, onRing) =>
      doorbells.register(address, width, () => {
        tracer.emit?.({ kind: "doorbell", address, what: mmio.describe(address) });
        onRing();
      }),
  };
}

/** The guest reaches what is mapped without an exit. */
export function traceSlots(slots: SlotMapper, tracer: TraceSink): SlotMapper {
  return {
    mapSlot: (name, address, host, sizeBytes, isReadOnly): Mapping => {
      const mapping = slots.mapSlot(name, address, host, sizeBytes, isReadOnly);
      const tell = (step: "mapped" | "unmapped"): void =>
        tracer.emit?.({ kind: "slot", name, step, address, sizeBytes, isReadOnly });
      tell("mapped");
      let isMapped = true;
      return {
        unmap: () => {
          if (isMapped) tell("unmapped");
          isMapped = false;
          mapping.unmap();
        },
      };
    },
  };
}

/** A message, then `unmasked`, `masked`, `signalled` (by a device of this program), `released`. */
export function traceRouter(router: MsiRouter, tracer: TraceSink): MsiRouter {
  return {
    allocate: (name) => new TracedRoute(router.allocate(name), tracer),
    batch: (work) => router.batch(work),
  };
}

class TracedRoute implements MsiRoute {
  readonly #route: MsiRoute;
  readonly #tracer: TraceSink;

  constructor(route: MsiRoute, tracer: TraceSink) {
    this.#route = route;
    this.#tracer = tracer;
  }

  get name(): string {
    return this.#route.name;
  }

  get isMasked(): boolean {
    return this.#route.isMasked;
  }

  get isPending(): boolean {
    return this.#route.isPending;
  }

  get eventFd(): MsiRoute["eventFd"] {
    return this.#route.eventFd;
  }

  setMessage(message: MsiMessage): void {
    this.#tracer.emit?.({ kind: "route", name: this.name, step: "message", message });
    this.#route.setMessage(message);
  }

  mask(): void {
    if (!this.isMasked) this.#tell("masked");
    this.#route.mask();
  }

  unmask(): void {
    if (this.isMasked) this.#tell("unmasked");
    this.#route.unmask();
  }

  signal(): void {
    this.#tell("signalled");
    this.#route.signal();
  }

  inject(): void {
    this.#tell("signalled");
    this.#route.inject();
  }

  release(): void {
    this.#tell("released");
    this.#route.release();
  }

  #tell(step: "masked" | "unmasked" | "signalled" | "released"): void {
    this.#tracer.emit?.({ kind: "route", name: this.name, step });
  }
}
