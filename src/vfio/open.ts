import { basename } from "node:path";
import { HostError } from "../base/errors.ts";
import type { VfioFiles } from "../base/mappings.ts";
import { readFunction } from "../host-pci/functions.ts";
import { type PassthroughChoice, PassthroughFunction, type PassthroughHost } from "../passthrough/function.ts";
import type { HostEventHandlers } from "../passthrough/host-events.ts";
import { type OtherRomContent, withRom } from "../passthrough/rom.ts";
import type { VfioLibc } from "./calls.ts";
import { VfioContainer } from "./container.ts";
import { VfioDevice } from "./device.ts";
import { resetBuses } from "./hot-reset.ts";

/** A function to pass through, as the machine's specification names it. */
export interface PassthroughDevice extends PassthroughChoice {
  /** Its sysfs directory. */
  readonly path: string;
  /** The expansion ROM that the guest sees; the device's own when absent. */
  readonly rom?: OtherRomContent | undefined;
}

export interface OpenPassthroughOptions<Device extends PassthroughDevice> {
  readonly libc: VfioLibc;
  readonly devices: readonly Device[];
  readonly files: VfioFiles;
  readonly host: Omit<PassthroughHost, "peerDma">;
  /** Called on the device thread, with the device as it was given. */
  readonly onError: (device: Device) => void;
  readonly onRequest: (device: Device) => void;
}

/** A function with what it was opened by. */
interface OpenFunction {
  readonly function: PassthroughFunction;
  readonly backend: VfioDevice;
  readonly group: number;
}

/** All passed-through functions of a machine and the container they share. */
export class OpenedPassthrough {
  /** For guest RAM: `mapDma` each region, before a function may do DMA. */
  readonly container: VfioContainer;
  /** In the order of the devices, whether released or not. Plug them, then `wireIntx` each. */
  readonly functions: readonly PassthroughFunction[];
  readonly #open: Set<OpenFunction>;
  readonly #host: Pick<PassthroughHost, "report">;

  constructor(container: VfioContainer, opened: readonly OpenFunction[], host: Pick<PassthroughHost, "report">) {
    this.container = container;
    this.functions = opened.map((one) => one.function);
    this.#open = new Set(opened);
    this.#host = host;
  }

  /**
   * Gives one function back to the host while the others go on. The host may be waiting for it, and for its group: that goes with its
   * last function. Take it off the PCI root before. Calling it twice is harmless.
   */
  release(released: PassthroughFunction): void {
    for (const opened of this.#open) {
      if (opened.function !== released) continue;
      this.#open.delete(opened);
      released.close();
      const isLast = ![...this.#open].some((other) => other.group === opened.group);
      if (isLast) this.container.releaseGroup(opened.group);
    }
  }

  /** Gives everything back, after a reset of the functions that closing alone does not reset. The guest must have stopped. */
  close(): void {
    const opened = [...this.#open].reverse();
    this.#open.clear();
    for (const { function: fn } of opened) fn.retire();
    const backends = opened.map(({ backend }) => backend);
    resetBuses(backends, (group) => this.container.groupFile(group), this.#host.report, "debug");
    for (const { function: fn } of opened) fn.close();
    this.container.close();
  }
}

/**
 * Opens all functions: container, every group once, then the devices; those that opening did not reset are reset with their bus. Run
 * `preflight` first, for better words.
 *
 * BARs are mapped for the other devices' DMA only where there are other devices.
 *
 * @throws HostError with advice; everything is given back then.
 */
export function openPassthrough<Device extends PassthroughDevice>(
  options: OpenPassthroughOptions<Device>,
): OpenedPassthrough {
  const { libc, devices, files, host } = options;
  const found = devices.map((device) => ({ device, ...identify(device.path) }));
  const container = VfioContainer.open(libc, files, host.report);
  const backends: { backend: VfioDevice; device: Device; group: number }[] = [];
  const opened: OpenFunction[] = [];
  try {
    for (const { group } of found) container.attachGroup(group);
    for (const { device, bdf, group, resetMethods } of found) {
      const backend = new VfioDevice(libc, container.openDevice(group, bdf), bdf, resetMethods);
      backends.push({ backend, device, group });
    }
    // All are open and none is used yet: the only moment, but for the end, when a whole bus may be reset.
    resetBuses(
      backends.map(({ backend }) => backend),
      (group) => container.groupFile(group),
      host.report,
    );
    for (const { backend, device, group } of backends) {
      const handlers: HostEventHandlers = {
        onError: () => options.onError(device),
        onRequest: () => options.onRequest(device),
      };
      const withPeers: PassthroughHost = devices.length > 1 ? { ...host, peerDma: container } : host;
      opened.push({
        function: new PassthroughFunction(withRom(backend, device.rom), device, withPeers, handlers),
        backend,
        group,
      });
    }
  } catch (error) {
    for (const { function: fn } of opened.reverse()) fn.close();
    for (const { backend } of backends.reverse()) backend.close();
    container.close();
    throw error;
  }
  return new OpenedPassthrough(container, opened, host);
}

/** What the host says of a function that is to be passed through. @throws HostError when it cannot be. */
export function identify(path: string): {
  readonly bdf: string;
  readonly group: number;
  readonly resetMethods: readonly string[];
} {
  const found = readFunction(path);
  if (found === undefined) throw new HostError(`Cannot pass ${path} through: it is not a PCI function's directory`);
  if (found.group === undefined || found.isNoIommuGroup) {
    throw new HostError(`Cannot pass ${basename(found.path)} through: no IOMMU translates for it`);
  }
  return { bdf: found.bdf, group: found.group, resetMethods: found.resetMethods };
}
