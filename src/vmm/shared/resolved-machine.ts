import type { HostFunction } from "../../host-pci/functions.ts";
import type { DeviceSpec, MachineSpec } from "../spec/spec.ts";

/** A function to pass through, with what sysfs told of it at the start. */
export interface ResolvedDevice extends DeviceSpec {
  readonly host: HostFunction;
}

/** What a device is opened by. */
export function sourceFunction({ host, vfToken }: ResolvedDevice): HostFunction & { readonly vfToken?: string } {
  return vfToken === undefined ? host : { ...host, vfToken };
}

/**
 * A machine as the control thread hands it to the device thread: its specification, and what of the host belongs to it.
 * Plain data.
 */
export interface ResolvedMachine extends MachineSpec {
  readonly devices: readonly ResolvedDevice[];
}
