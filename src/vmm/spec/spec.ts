import type { InputOf, SpecOf } from "./fields/field.ts";
import type { PartInputOf, PartOf } from "./kinds/kind.ts";
import type { KindInputs, KindParts } from "./kinds/list.ts";
import type { CPUS, MACHINE_FIELDS, MEMORY, PLATFORM } from "./machine-parts.ts";

export type { CharSpec } from "./kinds/character.ts";
export type { DiskInput, DiskSpec } from "./kinds/disk.ts";
export type { DeviceInput, DeviceSpec, RomSpec } from "./kinds/passed-function.ts";
export type { UserDeviceInput, UserDeviceSpec } from "./kinds/user-device.ts";
export type { MemorySpec } from "./machine-parts.ts";

/**
 * Everything that defines a machine, complete and checked; plain data, passed to the workers as it is. Its parts are
 * described in `machine-parts.ts` and, for each kind of device, in `kinds/`.
 */
export interface MachineSpec extends SpecOf<typeof MACHINE_FIELDS>, KindParts {
  readonly cpus: PartOf<typeof CPUS>;
  readonly memory: PartOf<typeof MEMORY>;
  readonly platform: PartOf<typeof PLATFORM>;
}

/**
 * A machine as callers describe it: a kernel, and what differs from the defaults. A complete {@link MachineSpec} is one
 * too.
 */
export interface MachineInput extends InputOf<typeof MACHINE_FIELDS>, KindInputs {
  readonly cpus?: PartInputOf<typeof CPUS>;
  readonly memory?: PartInputOf<typeof MEMORY>;
  readonly platform?: PartInputOf<typeof PLATFORM>;
}
