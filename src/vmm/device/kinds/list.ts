import { console, serial } from "./character.ts";
import type { AnyDeviceKind } from "./device-kind.ts";
import { disks } from "./disk.ts";
import { passedFunctions } from "./passed-function.ts";
import { rng } from "./rng.ts";
import { userDevices } from "./user-device.ts";

/** All kinds of this program, in the order in which they take free slots. */
export const DEVICE_KINDS: readonly AnyDeviceKind[] = [serial, disks, console, rng, passedFunctions, userDevices];
