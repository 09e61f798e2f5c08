/**
 * tsvmm's typed API: boot guests from tests and programs.
 *
 * ```ts
 * import { Machine } from "tsvmm";
 *
 * await using machine = await Machine.start({ kernel: "vmlinux", initramfs: "initramfs.cpio", cmdline: "console=ttyS0" });
 * await machine.serial.waitFor(/login:/);
 * ```
 *
 * @module
 */
export { HostError, SpecError } from "./base/errors.ts";
export type { LogSettings } from "./vmm/log.ts";
export { Machine } from "./vmm/machine.ts";
export type { MachineOptions, MachineStatistics, MachineTrace, TraceOptions } from "./vmm/machine-api.ts";
export type { MachineExit } from "./vmm/machine-exit.ts";
export type { MachinePlan } from "./vmm/shared/plan.ts";
export { formatTrace, type TraceAccess, type TraceEvent } from "./vmm/shared/trace-event.ts";
export type { CharSpec, DeviceSpec, DiskSpec, MachineSpec, MemorySpec, UserDeviceSpec } from "./vmm/spec/spec.ts";
export type { DeviceInput, DiskInput, MachineInput, UserDeviceInput } from "./vmm/spec/spec-check.ts";
export { type TextChannel, WaitError, type WaitOptions } from "./vmm/text-channel.ts";
