import { EventFd } from "../../host/eventfd.ts";
import { PassthroughFunction } from "../../passthrough/function.ts";
import { MemoryFaults } from "../../passthrough/memory-faults.ts";
import type { PciFunction } from "../../pci/function.ts";
import { UserDevice } from "../../vfio-user/client/device.ts";
import type { FunctionStatistics } from "../shared/messages.ts";
import type { UserDeviceSpec } from "../spec/spec.ts";
import type { PassthroughDescription } from "./board-plan.ts";
import { barParts, reportFunction } from "./function-facts.ts";
import { functionStatistics, type PassthroughParts } from "./passthrough.ts";

/** What devices of other processes are wired to: the same as those of the host, without KVM's VFIO device and the host's events. */
export interface UserDeviceParts
  extends Pick<PassthroughParts, "memory" | "slots" | "mmio" | "router" | "lines" | "watcher" | "report"> {
  readonly devices: readonly UserDeviceSpec[];
  /** A device's server is of no use any more; by the device's id. May be called during a guest's access to it. */
  readonly onLost: (id: string, reason: string) => void;
}

/** The devices of a board that are processes of their own, reached by vfio-user. No IOMMU stands between them and guest RAM: a memfd does. */
export class UserDevices {
  readonly functions: readonly PassthroughFunction[];
  readonly #ids: ReadonlyMap<PciFunction, string>;
  readonly #faults: MemoryFaults;

  /** @throws HostError with the socket's path; everything is given back then. */
  constructor(parts: UserDeviceParts) {
    const opened: { readonly id: string; readonly function: PassthroughFunction }[] = [];
    try {
      for (const device of parts.devices) opened.push({ id: device.id, function: open(parts, device) });
    } catch (error) {
      for (const { function: fn } of opened.reverse()) fn.close();
      throw error;
    }
    this.functions = opened.map((one) => one.function);
    this.#ids = new Map(opened.map((one) => [one.function, one.id]));
    for (const fn of this.functions) reportFunction(fn, parts.report);
    this.#faults = new MemoryFaults(this.functions, parts.report);
  }

  /** `undefined` for functions that are none of these. */
  idOf(fn: PciFunction): string | undefined {
    return this.#ids.get(fn);
  }

  find(id: string): PassthroughFunction | undefined {
    return this.functions.find((fn) => this.#ids.get(fn) === id);
  }

  describe(fn: PciFunction): PassthroughDescription | undefined {
    const found = this.functions.find((one) => one === fn);
    if (found === undefined) return undefined;
    const { bars } = found.summary();
    return {
      hostAddress: found.name,
      parts: (index) => bars.filter((bar) => bar.index === index).flatMap(barParts),
    };
  }

  statistics(): readonly FunctionStatistics[] {
    return this.functions.map((fn) => functionStatistics(this.#ids.get(fn) ?? fn.name, fn));
  }

  /** KVM met memory that does not answer: a server has cut its file short. See {@link MemoryFaults.handle}. */
  memoryFault(): number {
    return this.#faults.handle();
  }

  /** Hangs up on all servers. */
  close(): void {
    for (const fn of this.functions.toReversed()) fn.close();
  }
}

function open(parts: UserDeviceParts, { id, socket }: UserDeviceSpec): PassthroughFunction {
  const { memory, slots, mmio, router, lines, watcher, report } = parts;
  const backend = new UserDevice({
    name: `vfio-user ${socket}`,
    socket,
    memory,
    watcher,
    report,
    onLost: (reason) => parts.onLost(id, reason),
  });
  const host = { slots, mmio, router, lines, watcher, createEvent: EventFd.create, report };
  const handlers = {
    onError: () => parts.onLost(id, "it reports an error that it does not recover from"),
    onRequest: () => parts.onLost(id, "it wants to end"),
  };
  return new PassthroughFunction(backend, { bars: "map", excludedMmapBars: [] }, host, handlers);
}
