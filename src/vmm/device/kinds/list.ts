import { console, serial } from "./character.ts";
import type { AnyDeviceKind } from "./device-kind.ts";
import { disks } from "./disk.ts";
import { passedFunctions } from "./passed-function.ts";
import { rng } from "./rng.ts";
import { userDevices } from "./user-device.ts";

/** All kinds of this program, in the order in which they take free slots. */
const DEVICE_KINDS: readonly AnyDeviceKind[] = [serial, disks, console, rng, passedFunctions, userDevices];

/** Kinds of programs that use this one, behind {@link DEVICE_KINDS}. */
const added: AnyDeviceKind[] = [];

/** Kinds of this program and those that were added. */
export const allDeviceKinds = (): readonly AnyDeviceKind[] => [...DEVICE_KINDS, ...added];

/** Adds a kind to this thread. */
export function addDeviceKind(kind: AnyDeviceKind): void {
  added.push(kind);
}
