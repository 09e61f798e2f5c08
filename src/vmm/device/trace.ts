import type { Bus } from "../../base/bus.ts";
import type { Mapping, SlotMapper } from "../../base/mappings.ts";
import type { Doorbells, InterruptLine, MsiMessage, MsiRoute, MsiRouter, ResampledLines } from "../../base/signals.ts";
import { type Gpa, hex, type Width } from "../../base/units.ts";
import type { PostponedWrites } from "../../kvm/kept-writes.ts";
import { ACCESS, type Access, type AccessHandler } from "../shared/mailbox.ts";

/*
 * What the guest and its devices do to each other, a line for each step, in the order it happens: the log's level `trace`. Everything here
 * wraps an interface that devices are wired to, so that neither they nor KVM's side know of it, and it costs nothing where it is off.
 */

/** Takes a line. `details` are the same for programs. */
export type Trace = (text: string, details?: Readonly<Record<string, unknown>>) => void;

/** The buses, for the names of what answers. */
export interface Buses {
  readonly ports: Bus;
  readonly mmio: Bus;
}

const KINDS: Readonly<Record<Access, string>> = {
  [ACCESS.portRead]: "port read",
  [ACCESS.portWrite]: "port write",
  [ACCESS.mmioRead]: "MMIO read",
  [ACCESS.mmioWrite]: "MMIO write",
  [ACCESS.memoryFault]: "memory fault",
};

/** `cpu0 port read 0x3fd/1 = 0x60: COM1 LSR`. A write is told before what it causes, a read when its value is known. */
export function traceAccesses(handle: AccessHandler, buses: () => Buses | undefined, trace: Trace): AccessHandler {
  return (vcpu, kind, address, width, value) => {
    // First: a write may move what lies there.
    const what = kind === ACCESS.memoryFault ? "device memory" : describe(buses(), kind, address);
    const access = KINDS[kind];
    const tell = (seen: number): void =>
      trace(`cpu${vcpu} ${access} ${hex(address)}/${width} = ${hex(seen)}: ${what}`, {
        ...{ vcpu, access, address, width, value: seen, what },
      });
    const isWrite = kind === ACCESS.portWrite || kind === ACCESS.mmioWrite;
    if (isWrite) tell(value);
    const result = handle(vcpu, kind, address, width, value);
    if (!isWrite) tell(result);
    return result;
  };
}

function describe(buses: Buses | undefined, kind: Access, address: number): string {
  if (buses === undefined) return "nobody";
  const isPort = kind === ACCESS.portRead || kind === ACCESS.portWrite;
  return (isPort ? buses.ports : buses.mmio).describe(address);
}

/** `kept port write 0xcf8/4 = 0x80000800: PCI configuration ports address`: made before, without an exit, by some vCPU. */
export function traceKeptWrites(kept: PostponedWrites, ports: Bus, trace: Trace): PostponedWrites {
  return {
    keep: (port, sizeBytes) => kept.keep(port, sizeBytes),
    drain: (write) =>
      kept.drain((port, width, value) => {
        trace(`kept port write ${hex(port)}/${width} = ${hex(value)}: ${ports.describe(port)}`, {
          ...{ access: "port write", address: port, width, value, what: ports.describe(port) },
        });
        write(port, width, value);
      }),
    close: () => kept.close(),
  };
}

/** `line COM1 (GSI 4) up`. */
export function traceLine(line: InterruptLine, trace: Trace): InterruptLine {
  let isUp = false;
  return {
    name: line.name,
    gsi: line.gsi,
    setLevel: (isHigh) => {
      if (isHigh !== isUp) trace(`line ${line.name} (GSI ${line.gsi}) ${isHigh ? "up" : "down"}`);
      isUp = isHigh;
      line.setLevel(isHigh);
    },
  };
}

/** `line GSI 21 driven by its device`: from here on device and interrupt controller go without this program. */
export function traceResampledLines(lines: ResampledLines, trace: Trace): ResampledLines {
  return {
    connect: (line, trigger, resample) => {
      const connected = lines.connect(line, trigger, resample);
      trace(`line GSI ${line} driven by its device`);
      return {
        disconnect: () => {
          trace(`line GSI ${line} let go of`);
          connected.disconnect();
        },
      };
    },
  };
}

/** `doorbell 0xfe003000: disk0 BAR 0 notification of queue 0`. */
export function traceDoorbells(doorbells: Doorbells, mmio: Bus, trace: Trace): Doorbells {
  return {
    register: (address: Gpa, width: Width | 0, onRing) =>
      doorbells.register(address, width, () => {
        trace(`doorbell ${hex(address)}: ${mmio.describe(address)}`);
        onRing();
      }),
  };
}

/** `slot nvme0 BAR 0 at 0xc0000000+0x2000: mapped`: the guest reaches it without an exit. */
export function traceSlots(slots: SlotMapper, trace: Trace): SlotMapper {
  return {
    mapSlot: (name, address, host, sizeBytes, isReadOnly): Mapping => {
      const mapping = slots.mapSlot(name, address, host, sizeBytes, isReadOnly);
      const place = `slot ${name} at ${hex(address)}+${hex(sizeBytes)}`;
      trace(`${place}: mapped${isReadOnly ? " read-only" : ""}`);
      let isMapped = true;
      return {
        unmap: () => {
          if (isMapped) trace(`${place}: unmapped`);
          isMapped = false;
          mapping.unmap();
        },
      };
    },
  };
}

/** `message disk0 msix 1: vector 0x24 to APIC 2`, then `unmasked`, `masked`, `signalled` (by a device of this program), `released`. */
export function traceRouter(router: MsiRouter, trace: Trace): MsiRouter {
  return {
    allocate: (name) => new TracedRoute(router.allocate(name), trace),
    batch: (work) => router.batch(work),
  };
}

class TracedRoute implements MsiRoute {
  readonly #route: MsiRoute;
  readonly #trace: Trace;

  constructor(route: MsiRoute, trace: Trace) {
    this.#route = route;
    this.#trace = trace;
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
    this.#tell(describeMessage(message));
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

  #tell(text: string): void {
    this.#trace(`message ${this.name}: ${text}`);
  }
}

/** What a local APIC makes of a message. Intel SDM volume 3, §11.11 */
function describeMessage({ addressLow, addressHigh, data }: MsiMessage): string {
  const destination = (((addressLow >>> 12) & 0xff) | (addressHigh & 0xffff_ff00)) >>> 0;
  const mode = addressLow & 0x4 ? " (logical)" : "";
  return `vector ${hex(data & 0xff)} to APIC ${destination}${mode}`;
}
