/**
 * tsvmm's typed API: boot guests from tests and programs.
 *
 * ```ts
 * import { Machine } from "tsvmm";
 *
 * const spec = { kernel: "vmlinux", initramfs: "initramfs.cpio", cmdline: "console=ttyS0" };
 * await using machine = await Machine.start(spec);
 * await machine.serial.waitFor(/login:/);
 * ```
 *
 * @module
 */
export {
  type DeviceErrorCode,
  type ErrorCode,
  HostError,
  type HostErrorCode,
  type InputErrorCode,
  SpecError,
} from "./base/errors.ts";
export type { MsiMessage } from "./base/signals.ts";
export type { LogSettings, LogThreshold } from "./vmm/log.ts";
export { Machine } from "./vmm/machine.ts";
export type {
  MachineEvents,
  MachineOptions,
  MachineStatistics,
  MachineTrace,
  TraceOptions,
} from "./vmm/machine-api.ts";
export type { MachineExit } from "./vmm/machine-exit.ts";
export type { Pattern, WaitMatch } from "./vmm/pattern-search.ts";
export type { Channel, LogLevel } from "./vmm/shared/messages.ts";
export type {
  MachinePlan,
  PlanBar,
  PlanBarPart,
  PlanDma,
  PlanFunction,
  PlanInterrupt,
  PlanRange,
} from "./vmm/shared/plan.ts";
export type {
  BarSnapshot,
  BusRangeSnapshot,
  CapabilitySnapshot,
  CharSnapshot,
  CommonInspection,
  DeviceSnapshot,
  DiskSnapshot,
  FunctionSnapshot,
  FunctionVectors,
  HiddenCapability,
  MachineSnapshot,
  MemorySlot,
  PassthroughSnapshot,
  QueueIndices,
  QueueInspection,
  RouteState,
  RoutingEntry,
  SnapshotArea,
  VectorInspection,
  VectorsInspection,
  VirtioInspection,
  VirtqueueAddresses,
  WiresSnapshot,
} from "./vmm/shared/snapshot.ts";
export type { DeviceStatistics, FunctionStatistics } from "./vmm/shared/statistics.ts";
export type { WhenBehind } from "./vmm/shared/trace-credit.ts";
export { formatTrace, type TraceAccess, type TraceEvent } from "./vmm/shared/trace-event.ts";
export type { ExitKind } from "./vmm/shared/vcpu-control.ts";
export type {
  CharSpec,
  DeviceInput,
  DeviceSpec,
  DiskInput,
  DiskSpec,
  MachineInput,
  MachineSpec,
  MemorySpec,
  RomSpec,
  UserDeviceInput,
  UserDeviceSpec,
} from "./vmm/spec/spec.ts";
export { type TextChannel, type TextChannelOptions, WaitError, type WaitOptions } from "./vmm/text-channel.ts";
