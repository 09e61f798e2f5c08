import { plugPassthrough } from "../passed/passthrough-slots.ts";
import { openUserDevice, reopenUserDevice, type UserDeviceParts } from "../passed/user-devices.ts";
import type { DeviceKind } from "./device-kind.ts";
import { passthroughHost } from "./passed-function.ts";

export const userDevices: DeviceKind<"userDevices"> = {
  part: "userDevices",
  make: (devices, board) => {
    const { memory, watcher, isRestart, cutOff, root, undo, passed, removals } = board;
    const parts: UserDeviceParts = {
      host: passthroughHost(board),
      memory,
      watcher,
      cutOff,
      // Later: it may be noticed during the guest's access to the device.
      onLost: (id, reason) => board.defer(() => removals.serverLost(id, reason)),
    };
    return devices.map((device) => {
      const opened = isRestart ? reopenUserDevice(parts, device) : openUserDevice(parts, device);
      // Its slot stays empty: the devices behind it stay where the guest knows them.
      if (opened === undefined) return { plug: () => undefined };
      const fn = undo.own(opened.function);
      passed.add(opened);
      return { plug: (slot) => plugPassthrough(root, fn, slot, 0) };
    });
  },
};
