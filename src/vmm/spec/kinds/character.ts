import type { ValueOf } from "../fields/field.ts";
import type { ValueKind } from "./kind.ts";

const SERIAL_FIELD = {
  type: "variants",
  plain: ["off", "null", "tty", "pty", "api"],
  apiOnly: ["api"],
  withPath: ["file", "socket"],
  leadsTo: "output",
  default: { kind: "api" },
  value: "off|null|tty|pty|file=PATH|socket=PATH",
  help: "where its characters go; api: to the typed API",
} as const;

const CONSOLE_FIELD = {
  type: "variants",
  plain: ["off", "null", "tty", "pty", "api"],
  apiOnly: ["api"],
  withPath: ["file", "socket"],
  leadsTo: "output",
  default: { kind: "off" },
  value: "off|null|tty|pty|file=PATH|socket=PATH",
  help: "where its characters go; api: to the typed API",
} as const;

/**
 * Where a character device goes: `{ kind: "off" | "null" | "tty" | "pty" | "api" }`, or `{ kind: "file" | "socket",
 * path }`. `off`: there is no such device; `tty`: this process's terminal, or its standard streams; `api`: bytes go to
 * and come from the typed API.
 */
export type CharSpec = ValueOf<typeof SERIAL_FIELD>;

export const SERIAL: ValueKind<"serial", typeof SERIAL_FIELD> = {
  kind: "serial port",
  about: "A 16550A at COM1.",
  part: "serial",
  shape: "value",
  option: "--serial",
  group: "Devices",
  help: "serial port, ttyS0 in the guest; tty (this terminal) unless the console has it. Ctrl-A x quits",
  cloudHypervisor: "serial",
  isPassedThrough: false,
  field: SERIAL_FIELD,
};

export const CONSOLE: ValueKind<"console", typeof CONSOLE_FIELD> = {
  kind: "console",
  about: "A virtio console of one port.",
  part: "console",
  shape: "value",
  option: "--console",
  group: "Devices",
  help: "virtio console, hvc0 in the guest; default: off",
  cloudHypervisor: "console",
  isPassedThrough: false,
  field: CONSOLE_FIELD,
};
