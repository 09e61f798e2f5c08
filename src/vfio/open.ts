import { basename } from "node:path";
import { HostError } from "../base/errors.ts";
import type { VfioFiles } from "../base/mappings.ts";
import type { VfioLibc } from "./calls.ts";
import { VfioContainer } from "./container.ts";
import { VfioDevice } from "./device.ts";
import type { HostEventHandlers } from "./host-events.ts";
import { type PassthroughChoice, PassthroughFunction, type PassthroughHost } from "./passthrough.ts";
import { readFunction } from "./sysfs.ts";

/** A function to pass through, as the machine's specification names it. */
export interface PassthroughDevice extends PassthroughChoice {
  /** Its sysfs directory. */
  readonly path: string;
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

/** All passed-through functions of a machine and the container they share. */
export interface OpenedPassthrough {
  /** For guest RAM: `mapDma` each region, before a function may do DMA. Close it after the functions. */
  readonly container: VfioContainer;
  /** In the order of the devices. Plug them, then `wireIntx` each. */
  readonly functions: readonly PassthroughFunction[];
}

/**
 * Opens all functions: container, every group once, then the devices. Run `preflight` first, for better words.
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
  const functions: PassthroughFunction[] = [];
  try {
    for (const { group } of found) container.attachGroup(group);
    for (const { device, bdf, group, resetMethods } of found) {
      const backend = new VfioDevice(libc, container.openDevice(group, bdf), bdf, resetMethods);
      const handlers: HostEventHandlers = {
        onError: () => options.onError(device),
        onRequest: () => options.onRequest(device),
      };
      const withPeers: PassthroughHost = devices.length > 1 ? { ...host, peerDma: container } : host;
      functions.push(new PassthroughFunction(backend, device, withPeers, handlers));
    }
  } catch (error) {
    for (const opened of functions.reverse()) opened.close();
    container.close();
    throw error;
  }
  return { container, functions };
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
