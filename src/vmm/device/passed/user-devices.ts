import { HostError } from "../../../base/errors.ts";
import type { FdWatcher, TurnCounter } from "../../../base/signals.ts";
import { PassthroughFunction, type PassthroughHost } from "../../../passthrough/function.ts";
import { UserDevice } from "../../../vfio-user/client/device.ts";
import type { SharedMemory } from "../../../vfio-user/client/memory.ts";
import type { UserDeviceSpec } from "../../spec/spec.ts";
import { reportFunction } from "./function-facts.ts";
import type { PassedFunction } from "./passed-functions.ts";

/**
 * What devices of other processes are wired to: the same as functions of the host. No IOMMU stands between them and
 * guest RAM: a memfd does.
 */
export interface UserDeviceParts {
  readonly host: PassthroughHost;
  readonly memory: SharedMemory;
  readonly watcher: FdWatcher & TurnCounter;
  /** A time of `performance.now()` after which no server is waited for. */
  readonly cutOff: () => number;
  /** A device's server was lost; by the device's id. May be called during a guest's access to it. */
  readonly onLost: (id: string, reason: string) => void;
}

/**
 * The same after a reset of the guest, which the machine owes it whether the server is there or not. A server that came
 * back since is connected to again.
 *
 * @returns `undefined` where the server cannot be used, which is reported: the guest starts without the device.
 */
export function reopenUserDevice(parts: UserDeviceParts, device: UserDeviceSpec): PassedFunction | undefined {
  try {
    return openUserDevice(parts, device);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    parts.host.report("warn", `${device.id}: the guest starts without it: ${error.message}`);
    return undefined;
  }
}

/**
 * Connects to a device that is a process of its own, by vfio-user. The function is the caller's to close, which hangs
 * up.
 *
 * @throws HostError with the socket's path; nothing is left then.
 */
export function openUserDevice(parts: UserDeviceParts, { id, socket, timeoutSeconds }: UserDeviceSpec): PassedFunction {
  const { host, memory, watcher, cutOff } = parts;
  const timeoutMs = timeoutSeconds === "off" ? Number.POSITIVE_INFINITY : (timeoutSeconds ?? 0) * 1000;
  const backend = new UserDevice({
    name: `vfio-user ${socket}`,
    socket,
    memory,
    watcher,
    ...(timeoutSeconds === undefined ? {} : { timeoutMs }),
    turns: () => watcher.turns,
    cutOff,
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
