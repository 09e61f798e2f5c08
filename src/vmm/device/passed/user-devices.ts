import type { FdWatcher } from "../../../base/signals.ts";
import { PassthroughFunction, type PassthroughHost } from "../../../passthrough/function.ts";
import { UserDevice } from "../../../vfio-user/client/device.ts";
import type { SharedMemory } from "../../../vfio-user/client/memory.ts";
import type { UserDeviceSpec } from "../../spec/spec.ts";
import { reportFunction } from "./function-facts.ts";
import type { PassedFunction } from "./passed-functions.ts";

/** What devices of other processes are wired to: the same as functions of the host. No IOMMU stands between them and guest RAM: a memfd does. */
export interface UserDeviceParts {
  readonly host: PassthroughHost;
  readonly memory: SharedMemory;
  readonly watcher: FdWatcher;
  /** A device's server is of no use any more; by the device's id. May be called during a guest's access to it. */
  readonly onLost: (id: string, reason: string) => void;
}

/**
 * Connects to a device that is a process of its own, by vfio-user. The function is the caller's to close, which hangs up.
 *
 * @throws HostError with the socket's path; nothing is left then.
 */
export function openUserDevice(parts: UserDeviceParts, { id, socket }: UserDeviceSpec): PassedFunction {
  const { host, memory, watcher } = parts;
  const backend = new UserDevice({
    name: `vfio-user ${socket}`,
    socket,
    memory,
    watcher,
    report: host.report,
    onLost: (reason) => parts.onLost(id, reason),
  });
  const handlers = {
    onError: () => parts.onLost(id, "it reports an error that it does not recover from"),
    onRequest: () => parts.onLost(id, "it wants to end"),
  };
  const fn = new PassthroughFunction(backend, { bars: "map", excludedMmapBars: [] }, host, handlers);
  reportFunction(fn, host.report);
  return { id, function: fn, isOfHost: false, release: () => fn.close() };
}
