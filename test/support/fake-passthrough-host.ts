import { Bus } from "../../src/base/bus.ts";
import type { HostError } from "../../src/base/errors.ts";
import type { DmaMapper, HostMemory, Mapping, PeerMapper, SlotMapper } from "../../src/base/mappings.ts";
import type {
  EventDescriptor,
  FdWatch,
  MsiMessage,
  MsiRoute,
  MsiRouter,
  ResampledLines,
  RingWatcher,
} from "../../src/base/signals.ts";
import { type Fd, fd, gsi, hva } from "../../src/base/units.ts";
import { type PassthroughChoice, PassthroughFunction, type PassthroughHost } from "../../src/passthrough/function.ts";
import { PciRoot } from "../../src/pci/root.ts";
import { PeerDma } from "../../src/vmm/device/passed/peer-dma.ts";
import { intxGsi } from "../../src/vmm/shared/memory-map.ts";
import { type FakeDevice, FakeDeviceBackend } from "./fake-device-backend.ts";
import { FakeEvent } from "./fake-event.ts";

const hexText = (value: number): string => `0x${value.toString(16)}`;

/** A route whose eventfd is 100 + its number: the fake device shows which vectors it got. */
class NumberedRoute implements MsiRoute {
  readonly name: string;
  readonly eventFd: Fd;
  readonly #log: string[];
  isMasked = true;
  isPending = false;
  signals = 0;
  isReleased = false;

  constructor(name: string, eventFd: Fd, log: string[]) {
    this.name = name;
    this.eventFd = eventFd;
    this.#log = log;
  }

  setMessage(message: MsiMessage): void {
    this.#log.push(`route ${this.eventFd} message ${hexText(message.data)}`);
  }

  mask(): void {
    this.isMasked = true;
    this.#log.push(`route ${this.eventFd} mask`);
  }

  unmask(): void {
    this.isMasked = false;
    this.#log.push(`route ${this.eventFd} unmask`);
  }

  /** Its eventfd is the device's, too: see MsiRoute. */
  signal(): void {
    throw new Error(`${this.name}: an eventfd that others hold is written`);
  }

  inject(): void {
    this.signals++;
    this.#log.push(`route ${this.eventFd} signal`);
  }

  release(): void {
    this.isReleased = true;
    this.#log.push(`route ${this.eventFd} release`);
  }
}

/** Everything a passed-through function is handed, all writing to one log. */
export class FakePassthroughHost implements PassthroughHost {
  readonly log: string[] = [];
  readonly reports: string[] = [];
  readonly routes: NumberedRoute[] = [];
  /** Callbacks of the watched descriptors, by number. */
  readonly watched: Map<number, () => void> = new Map();
  /** What the next mapSlot or mapDma throws. */
  readonly failures: Map<"mapSlot" | "mapDma" | "connect", HostError> = new Map();
  readonly ports: Bus = new Bus("ports");
  readonly mmio: Bus = new Bus("mmio");
  readonly peerDma: PeerMapper;

  readonly router: MsiRouter;

  readonly slots: SlotMapper = {
    mapSlot: (name, address, _host, sizeBytes, isReadOnly) =>
      this.#mapping("mapSlot", `${isReadOnly ? "read-only " : ""}slot ${name}`, address, sizeBytes),
  };

  readonly lines: ResampledLines = {
    connect: (line, trigger, resample) => {
      this.#fail("connect");
      if (trigger < 0 || resample < 0) throw new Error("a line is connected to a closed eventfd");
      this.log.push(`connect gsi ${line}`);
      return { disconnect: () => void this.log.push(`disconnect gsi ${line}`) };
    },
  };

  readonly createEvent: () => EventDescriptor = FakeEvent.create;

  /** Memory that was made and not yet given back. */
  readonly memories: Set<string> = new Set();
  readonly createMemory = (name: string, sizeBytes: number): HostMemory => {
    const bytes = new ArrayBuffer(sizeBytes);
    this.memories.add(name);
    return { address: hva(0x7100_0000_0000), view: () => bytes, unmap: () => void this.memories.delete(name) };
  };

  readonly watcher: RingWatcher = {
    watchRings: (descriptor, onRing): FdWatch => {
      this.watched.set(descriptor, onRing);
      return {
        setInterest: () => undefined,
        close: () => {
          this.watched.delete(descriptor);
          this.log.push("unwatch");
        },
      };
    },
  };

  /** @param router Instead of one that numbers its routes, for tests of the routes themselves. */
  constructor(router?: MsiRouter) {
    this.router = router ?? {
      allocate: (name) => {
        const route = new NumberedRoute(name, fd(100 + this.routes.length), this.log);
        this.routes.push(route);
        return route;
      },
      batch: (work) => work(),
    };
    const dma: DmaMapper = {
      mapDma: (name, address, _host, sizeBytes) => this.#mapping("mapDma", `dma ${name}`, address, sizeBytes),
    };
    // No time passes: everything is done at once.
    this.peerDma = new PeerDma(dma, { defer: () => undefined, nowMs: () => 0 });
  }

  readonly report = (level: string, text: string): void => {
    this.reports.push(`${level}: ${text}`);
  };

  /** Takes the log, leaving it empty. */
  takeLog(): readonly string[] {
    return this.log.splice(0);
  }

  #mapping(call: "mapSlot" | "mapDma", what: string, address: number, sizeBytes: number): Mapping {
    this.#fail(call);
    const where = `${what} at ${hexText(address)}+${hexText(sizeBytes)}`;
    this.log.push(where);
    let isMapped = true;
    return {
      unmap: () => {
        if (isMapped) this.log.push(`no ${where}`);
        isMapped = false;
      },
    };
  }

  #fail(call: "mapSlot" | "mapDma" | "connect"): void {
    const failure = this.failures.get(call);
    if (failure !== undefined) throw failure;
  }
}

/** A device in slot 1 of a PCI root, driven as a guest would: through configuration space and the buses. */
export class PassthroughBench {
  readonly host: FakePassthroughHost;
  readonly backend: FakeDeviceBackend;
  readonly function: PassthroughFunction;
  readonly root: PciRoot;
  readonly events: string[] = [];

  /** @param device Described, or a backend that plays it already. */
  constructor(
    device: FakeDevice | FakeDeviceBackend,
    choice: Partial<PassthroughChoice> = {},
    adjust?: (bench: FakeDeviceBackend) => void,
    host: FakePassthroughHost = new FakePassthroughHost(),
  ) {
    this.host = host;
    this.backend = device instanceof FakeDeviceBackend ? device : new FakeDeviceBackend(device, this.host.log);
    adjust?.(this.backend);
    this.function = new PassthroughFunction(this.backend, { bars: "map", excludedMmapBars: [], ...choice }, this.host, {
      onError: () => this.events.push("error"),
      onRequest: () => this.events.push("request"),
    });
    this.root = new PciRoot({
      gsiOf: intxGsi,
      ports: this.host.ports,
      mmio: this.host.mmio,
      windows: {
        ports: [{ base: 0x1000, sizeBytes: 0xf000 }],
        memory32: [{ base: 0xc000_0000, sizeBytes: 0x1000_0000 }],
        memory64: [{ base: 0x40_0000_0000, sizeBytes: 0x1_0000_0000 }],
      },
      report: this.host.report,
    });
    this.root.plug(this.function, 1);
    this.root.assignBars();
    this.function.wireIntx(gsi(17));
  }

  read(offset: number, width: 1 | 2 | 4): number {
    return this.root.configRead(0, 1, 0, offset, width);
  }

  write(offset: number, width: 1 | 2 | 4, value: number): void {
    this.root.configWrite(0, 1, 0, offset, width, value);
  }

  /** Address that firmware gave a memory BAR. */
  barAddress(index: number): number {
    return (this.read(0x10 + 4 * index, 4) & 0xffff_fff0) >>> 0;
  }

  /** Offset of a capability in the guest's list. */
  capability(id: number): number | undefined {
    if ((this.read(0x06, 2) & 0x10) === 0) return undefined;
    for (let at = this.read(0x34, 1); at >= 0x40; at = this.read(at + 1, 1)) if (this.read(at, 1) === id) return at;
    return undefined;
  }
}
