import { realpathSync } from "node:fs";
import { SpecError } from "../../../base/errors.ts";
import type { InputOf, SpecOf } from "../fields/field.ts";
import type { ListKind } from "./kind.ts";

const FIELDS = {
  /** The unix socket where its server listens. */
  socket: {
    type: "path",
    leadsTo: "socket",
    isRequired: true,
    key: "socket",
    value: "PATH",
    help: "unix socket where the device's process listens",
  },
  id: { type: "id", prefix: "_user", key: "id", value: "NAME", help: "name in messages" },
  /**
   * How long the machine waits for the server, in seconds, before the device counts as lost. It is the sum for one
   * access of the guest, and for slow accesses within a minute. 5 when absent; `off` for no limit, as under a debugger.
   * A day at most: `off` is for longer.
   */
  timeoutSeconds: {
    type: "integer",
    least: 1,
    most: 86_400,
    word: "off",
    unit: "seconds",
    key: "timeout",
    value: "off|SECONDS",
    help: "what its process may take before it counts as lost; default: 5",
  },
} as const;

/** One PCI device that is a process of its own, reached by vfio-user. */
export interface UserDeviceSpec extends SpecOf<typeof FIELDS> {}
/** A vfio-user device as callers describe it. */
export interface UserDeviceInput extends InputOf<typeof FIELDS> {}

export const USER_DEVICE: ListKind<"userDevices", typeof FIELDS> = {
  kind: "vfio-user device",
  about: "A PCI device that is a process of its own; it listens on a unix socket and speaks vfio-user.",
  part: "userDevices",
  shape: "list",
  option: "--user-device",
  group: "Devices",
  help: "PCI device that is a process of its own, reached by vfio-user",
  cloudHypervisor: "user_devices",
  isPassedThrough: true,
  fields: FIELDS,
  check(where, { socket }, before) {
    const real = realpathSync(socket);
    if (before.every((device) => realpathSync(device.socket) !== real)) return;
    throw new SpecError("TSVMM_VALUE_TWICE", `${where}.socket`, `${socket} is given twice`);
  },
};
